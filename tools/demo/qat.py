"""Fake quantisation for Gemma 4 in the mobile layout, and the export of a trained model to that layout.

Bits: embedding and head 2, MLPs of the layers that share their keys and values 2, the other MLPs, attention and the
per-layer table 4, the per-layer gate and projection 8. A weight has one scale per output row, a linear layer one static
8-bit grid at its input and one at its output; the head has none. Rounding passes the gradient straight through, and all
scales are learnt (as logarithms, so that one optimiser step is a relative change).
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

LEVELS = {2: (-2, 1), 4: (-8, 7), 8: (-128, 127)}


def codes(x, scale, bits):
    """The integers (as floats) that stand for x; gradients pass straight through within the range."""
    lo, hi = LEVELS[bits]
    c = (x / scale).clamp(lo - 0.499, hi + 0.499)
    return c + (c.round() - c).detach()


def fake_quant(x, scale, bits):
    return codes(x, scale, bits) * scale


@torch.no_grad()
def best_scale(rows, bits):
    """For every row the scale with the least squared error."""
    reach = rows.abs().amax(-1, keepdim=True).clamp_min(1e-6) / -LEVELS[bits][0]
    best, err = reach, torch.full_like(reach, float("inf"))
    for k in torch.linspace(0.2, 1.3, 56):
        e = (fake_quant(rows, reach * k, bits) - rows).square().sum(-1, keepdim=True)
        best, err = torch.where(e < err, reach * k, best), torch.minimum(e, err)
    return best


class Switch(nn.Module):
    """A module with a number that training changes: a tensor, so that one compiled graph serves all phases."""

    def __init__(self, **values):
        super().__init__()
        for name, v in values.items():
            self.register_buffer(name, torch.tensor(v), persistent=False)


class Dropout(Switch):
    def __init__(self, p):
        super().__init__(p=p)

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)


class Quant(Switch):
    """A quantised weight with `groups` scales a row. `on` says whether it is rounded."""

    def __init__(self, weight, bits, groups=1):
        super().__init__(on=False)
        self.weight, self.bits, self.groups = weight, bits, groups
        self.log_scale = nn.Parameter(torch.zeros(weight.shape[0], groups))

    def blocks(self):
        return self.weight.view(self.weight.shape[0], self.groups, -1)

    def fit(self):
        self.log_scale.data.copy_(best_scale(self.blocks(), self.bits).log().squeeze(-1))

    def dequantized(self):
        rounded = fake_quant(self.blocks(), self.log_scale.exp().unsqueeze(-1), self.bits).view_as(self.weight)
        return torch.where(self.on, rounded, self.weight)

    @torch.no_grad()
    def packed(self):
        """Codes as stored, and scales: offset binary in bytes, lowest bits first (signed bytes for 8 bits)."""
        scale = self.log_scale.exp()
        q = codes(self.blocks(), scale.unsqueeze(-1), self.bits).view_as(self.weight).to(torch.int16)
        if self.bits == 8:
            return q.to(torch.int8), scale
        per = 8 // self.bits
        q = (q - LEVELS[self.bits][0]).view(q.shape[0], -1, per)
        return sum(q[..., i] << (self.bits * i) for i in range(per)).to(torch.uint8), scale


class QLinear(Quant):
    def __init__(self, linear, bits):
        super().__init__(linear.weight, bits)
        self.log_in, self.log_out = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("grids", torch.tensor(False), persistent=False)
        self.seen = None

    def forward(self, x):
        x = torch.where(self.grids, fake_quant(x, self.log_in.exp(), 8), x)
        y = F.linear(x, self.dequantized())
        if self.seen is not None:  # calibration: the largest values that came by
            for i, t in enumerate((x, y)):
                self.seen[i] = max(self.seen[i], t.abs().max().item())
        return torch.where(self.grids, fake_quant(y, self.log_out.exp(), 8), y)


class QEmbedding(Quant):
    def __init__(self, embedding, bits, groups, dropout):
        super().__init__(embedding.weight, bits, groups)
        self.embed_scale, self.dropout = embedding.scalar_embed_scale, Dropout(dropout)

    def forward(self, ids):
        return self.dropout(F.embedding(ids, self.dequantized()) * self.embed_scale)


class QHead(nn.Module):
    """The output layer: the embedding once more."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = [embedding]  # in a list: not a submodule of its own

    def forward(self, x):
        return F.linear(x, self.embedding[0].dequantized())


class DropNorm(nn.Module):
    """A norm at the end of a block, with dropout of what it adds to the residual stream."""

    def __init__(self, norm, dropout):
        super().__init__()
        self.norm, self.dropout = norm, Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.norm(x))


def prepare(model, dropout):
    """Puts the modules above in place of a Gemma4ForCausalLM's own, and gives the weights their initial values."""
    c, text = model.config, model.model
    own = c.num_hidden_layers - c.num_kv_shared_layers
    nn.init.normal_(text.embed_tokens.weight, std=c.hidden_size**-0.5)
    nn.init.normal_(text.embed_tokens_per_layer.weight, std=c.hidden_size_per_layer_input**-0.5)
    text.embed_tokens = QEmbedding(text.embed_tokens, 2, 1, dropout)
    text.embed_tokens_per_layer = QEmbedding(text.embed_tokens_per_layer, 4, c.num_hidden_layers, dropout)
    model.lm_head = QHead(text.embed_tokens)
    for i, layer in enumerate(text.layers):
        a, m = layer.self_attn, layer.mlp
        if i < own:
            a.k_norm.weight.data.fill_(a.head_dim**-0.5)  # attention itself has no such factor
            a.k_proj, a.v_proj = QLinear(a.k_proj, 4), QLinear(a.v_proj, 4)
        a.q_proj, a.o_proj = QLinear(a.q_proj, 4), QLinear(a.o_proj, 4)
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(m, name, QLinear(getattr(m, name), 4 if i < own else 2))
        layer.per_layer_input_gate = QLinear(layer.per_layer_input_gate, 8)
        layer.per_layer_projection = QLinear(layer.per_layer_projection, 8)
        m.up_proj.log_in = m.gate_proj.log_in  # one input, one grid
        if i < own:
            a.k_proj.log_in = a.v_proj.log_in = a.q_proj.log_in
        for name in ("post_attention_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm"):
            norm = getattr(layer, name)
            norm.weight.data.fill_(0.5)
            setattr(layer, name, DropNorm(norm, dropout))
        del layer.layer_scalar
        layer.layer_scalar = nn.Parameter(torch.ones(1))
    return model


def quants(model, kind=Quant):
    return [m for m in model.modules() if isinstance(m, kind)]


def quantize_weights(model):
    for m in quants(model):
        m.fit()
        m.on.fill_(True)


@torch.no_grad()
def calibrate(model, batches):
    """Sets the grids of all linear layers to the range seen in `batches` and switches them on."""
    model.eval()
    for m in quants(model, QLinear):
        m.seen = [0.0, 0.0]
    for x in batches:
        model(input_ids=x, use_cache=False)
    for m in quants(model, QLinear):
        m.log_in.data.fill_(m.seen[0] / 127).log_()  # shared inputs: each sees the same values
        m.log_out.data.fill_(m.seen[1] / 127).log_()
        m.seen = None
        m.grids.fill_(True)
    model.train()


@torch.no_grad()
def cache_scales(model, x):
    """Grids for an 8-bit cache, per owner layer: keys after norm and rotation, values after norm."""
    out = {}
    for i, layer in enumerate(model.model.layers):
        a = layer.self_attn
        if a.is_kv_shared_layer:
            continue
        seen = [0.0, 0.0]

        def look(which):
            def hook(_, __, y):  # a rotation can lengthen a component to the pair's norm
                h = y.float().unflatten(-1, (2, -1)).square().sum(-2).sqrt() if which == 0 else y.abs()
                seen[which] = max(seen[which], h.max().item())
            return hook

        hooks = [a.k_norm.register_forward_hook(look(0)), a.v_norm.register_forward_hook(look(1))]
        model(input_ids=x, use_cache=False)
        [h.remove() for h in hooks]
        out[i] = (seen[0] / 127, seen[1] / 127)
    return out


def export(model, sample, directory: Path):
    """Writes model.safetensors, config.json and generation_config.json."""
    c, text, P = model.config, model.model, "model.language_model."
    own = c.num_hidden_layers - c.num_kv_shared_layers
    last = {c.layer_types[i]: i for i in range(own)}
    kv, out, f32 = cache_scales(model, sample), {}, torch.float32
    scalar = lambda v: torch.tensor(v, dtype=f32)

    def linear(name, m):
        out[name + ".weight"], out[name + ".weight_scale"] = m.packed()
        out[name + ".input_activation_scale"] = m.log_in.detach().exp()
        out[name + ".output_activation_scale"] = m.log_out.detach().exp()

    for name, m in text.named_modules():
        if isinstance(m, QLinear):
            linear(P + name, m)
        elif isinstance(m, QEmbedding):
            out[P + name + ".embedding_quantized"], out[P + name + ".embedding_scale"] = m.packed()
    out["lm_head.weight"], out["lm_head.weight_scale"] = text.embed_tokens.packed()
    out["lm_head.input_activation_scale"] = out["lm_head.output_activation_scale"] = scalar(0.0)
    quantised = {id(m.weight) for m in quants(model)}
    for name, p in text.named_parameters():
        if id(p) not in quantised and ".log_" not in name and not name.startswith("log_"):
            out[P + name.replace(".norm.weight", ".weight")] = p.detach().bfloat16()
    for i in range(c.num_hidden_layers):
        k, v = kv[i if i < own else last[c.layer_types[i]]]
        out[f"{P}layers.{i}.self_attn.k_cache_scale"], out[f"{P}layers.{i}.self_attn.v_cache_scale"] = scalar(k), scalar(v)
    directory.mkdir(parents=True, exist_ok=True)
    save_file({k: v.cpu().contiguous().clone() for k, v in out.items()}, directory / "model.safetensors", {"format": "pt"})

    t = c.to_dict()
    for key in ("per_layer_config", "architectures", "tie_word_embeddings", "_name_or_path"):
        t.pop(key, None)
    keep = ("attention_bias attention_dropout attention_k_eq_v bos_token_id enable_moe_block eos_token_id "
            "final_logit_softcapping head_dim hidden_activation hidden_size hidden_size_per_layer_input "
            "initializer_range intermediate_size layer_types max_position_embeddings model_type "
            "num_attention_heads num_hidden_layers num_key_value_heads num_kv_shared_layers pad_token_id "
            "rms_norm_eps rope_parameters sliding_window use_bidirectional_attention use_cache "
            "use_double_wide_mlp vocab_size vocab_size_per_layer_input").split()
    t = {k: t[k] for k in keep} | {
        "global_head_dim": text.layers[c.layer_types.index("full_attention")].self_attn.head_dim,
        "num_global_key_value_heads": None, "tie_word_embeddings": True,
    }
    L = r"language_model\.layers\."
    owners = "|".join(str(i) for i in range(own))
    bits = {"^lm_head$": 2, r"language_model\.embed_tokens$": 2, r"language_model\.embed_tokens_per_layer$": 4,
            rf"{L}({owners})\.mlp\.": 4, rf"{L}\d+\.mlp\.": 2, rf"{L}\d+\.per_layer_input_gate$": 8,
            rf"{L}\d+\.per_layer_projection$": 8, rf"{L}\d+\.self_attn\.": 4}
    config = {
        "architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "text_config": t,
        "tie_word_embeddings": False, "eos_token_id": [1], "dtype": "bfloat16",
        "image_token_id": 258880, "audio_token_id": 258881,
        "quantization_config": {
            "quant_method": "gemma", "num_bits": 4, "quantize_embeddings": True,
            "module_quant_configs": {k: {"num_bits": b} for k, b in bits.items()},
            "modules_to_not_convert": ["per_layer_model_projection"],
        },
    }
    generation = {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": [1], "do_sample": True,
                  "temperature": 0.8, "top_k": 64, "top_p": 0.95}
    for name, value in (("config", config), ("generation_config", generation)):
        (directory / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
