"""Trains the demo model: a small Gemma 4, aware of the mobile layout's quantisation from the second phase on.

  python tools/demo/train.py --text tinyshakespeare.txt --out model/demo

First several teachers: the same network in float, from different seeds, with much dropout. Then the student: it begins
with the first teacher's weights and learns, with weights and activations rounded, from the text and from the teachers'
mean prediction. The last 5 % of the text are held out; of each run the weights with the best held-out loss are kept.
"""

import argparse
import copy
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

import bpe
import qat

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--text", type=Path, required=True)
ap.add_argument("--out", type=Path, required=True)
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--vocab", type=int, default=2048)
ap.add_argument("--hidden", type=int, default=256)
ap.add_argument("--ffn", type=int, default=384)
ap.add_argument("--ple", type=int, default=32)
ap.add_argument("--context", type=int, default=512)
ap.add_argument("--batch", type=int, default=32)
ap.add_argument("--dropout", type=float, default=0.5, help="of the teachers")
ap.add_argument("--student-dropout", type=float, default=0.15)
ap.add_argument("--lr", type=float, default=1.5e-3)
ap.add_argument("--student-lr", type=float, default=1.5e-3)
ap.add_argument("--decay", type=float, default=0.3, help="weight decay of the matrices")
ap.add_argument("--teachers", type=int, default=4)
ap.add_argument("--distill", type=float, default=0.8, help="share of the teachers in the loss")
ap.add_argument("--pool", type=int, default=4096, help="windows for which the teachers' predictions are kept")
ap.add_argument("--steps", type=int, nargs=2, default=[800, 2000], help="of a teacher, of the student")
ap.add_argument("--eval-every", type=int, default=100)
ap.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
args = ap.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(args.seed)
torch.set_float32_matmul_precision("high")
started = time.time()


def say(*a):
    print(f"[{time.time() - started:6.1f}s]", *a, flush=True)


# ---- text -------------------------------------------------------------------------------------------------------------
args.out.mkdir(parents=True, exist_ok=True)
train_text, held_text = bpe.split(args.text.read_text())
(args.out / "tokenizer.json").write_text(bpe.train(train_text, args.vocab))
tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
train_ids, held_ids = (torch.tensor(bpe.encode(tokenizer, t), device=device) for t in (train_text, held_text))
assert tokenizer.decode(train_ids[:5000].tolist()) == train_text[: len(tokenizer.decode(train_ids[:5000].tolist()))]
nats_to_bits = len(held_ids) / len(held_text.encode()) / math.log(2)  # nats per token -> bits per byte
say(f"{len(train_ids)} training tokens, {len(held_ids)} held out, {len(train_text) / len(train_ids):.2f} characters each")

# A window starts where a line or a speech begins, after <bos>.
newline = torch.tensor([i for p, i in tokenizer.get_vocab().items() if p.strip("\n") == ""], device=device)
ends = torch.isin(train_ids, newline)
speeches = torch.isin(train_ids, newline[newline != tokenizer.token_to_id("\n")])
starts = [(e[: -args.context - 1].nonzero().flatten() + 1) for e in (ends, speeches)]


def batch(n=args.batch):
    s = torch.cat([k[torch.randint(len(k), (n // 2,), device=device)] for k in starts])
    y = train_ids[s[:, None] + torch.arange(args.context, device=device)]
    return behind_bos(y), y


def behind_bos(y):
    return torch.cat([torch.full_like(y[:, :1], bpe.BOS), y[:, :-1]], 1)


# ---- model ------------------------------------------------------------------------------------------------------------
pattern = ["sliding_attention"] * 3 + ["full_attention"]
config = Gemma4TextConfig(
    vocab_size=args.vocab, vocab_size_per_layer_input=args.vocab, hidden_size=args.hidden, intermediate_size=args.ffn,
    num_hidden_layers=8, num_kv_shared_layers=4, layer_types=pattern * 2, use_double_wide_mlp=True,
    num_attention_heads=4, num_key_value_heads=1, head_dim=64, global_head_dim=128, sliding_window=64,
    hidden_size_per_layer_input=args.ple, max_position_embeddings=4096, final_logit_softcapping=30.0,
    pad_token_id=bpe.PAD, eos_token_id=bpe.EOS, bos_token_id=bpe.BOS,
)


def fresh():
    return qat.prepare(Gemma4ForCausalLM(config), args.dropout).to(device)


def logits_of(model, x):
    return model(input_ids=x, use_cache=False).logits


@torch.no_grad()
def held_out(model, ids):
    """The probability of every token, behind <bos> and at least half a window of text (less at the start)."""
    model.eval()
    half, out = args.context // 2, []
    windows = ids[: len(ids) // half * half].unfold(0, args.context, half)
    for y in windows.split(args.batch):
        p = F.softmax(logits_of(model, behind_bos(y)), -1).gather(-1, y[..., None])[..., 0]
        out += [p[0, :half]] if not out else []
        out.append(p[:, half:].flatten())
    model.train()
    return torch.cat(out)


def nats(p):
    return -p.log().mean().item()


def optimiser(model, lr):
    groups = {"matrix": [], "scale": [], "plain": []}
    for name, p in model.named_parameters():
        groups["scale" if "log_" in name else "matrix" if p.ndim == 2 else "plain"].append(p)
    return torch.optim.AdamW(
        [{"params": groups["matrix"], "weight_decay": args.decay, "base": lr},
         {"params": groups["plain"], "weight_decay": 0.0, "base": lr},
         {"params": groups["scale"], "weight_decay": 0.0, "base": lr / 2}],
        lr=lr, betas=(0.9, 0.99), fused=device == "cuda")


def phase(name, model, run, steps, lr, loss_of):
    """Trains with a warm-up and a cosine; leaves the model with the weights of the best held-out loss."""
    opt, best, kept = optimiser(model, lr), float("inf"), None
    model.train()
    mean, seen = torch.zeros((), device=device), 0
    for step in range(steps):
        f = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for g in opt.param_groups:
            g["lr"] = g["base"] * f
        loss = loss_of(run)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        mean, seen = mean + loss.detach(), seen + 1
        if (step + 1) % args.eval_every == 0 or step + 1 == steps:
            v = nats(held_out(model, held_ids))
            say(f"{name} {step + 1:5d}/{steps} loss {mean.item() / seen:.4f} held out {v:.4f} = {v * nats_to_bits:.4f} bits/byte")
            mean, seen = torch.zeros((), device=device), 0
            if v < best:
                best, kept = v, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)


def teacher_loss(run):
    x, y = batch()
    return F.cross_entropy(logits_of(run, x).flatten(0, 1), y.flatten())


def student_loss(run):
    i = torch.randint(args.pool, (args.batch,), device=device)
    z = logits_of(run, pool_x[i]).flatten(0, 1)
    hard, soft = F.cross_entropy(z, pool_y[i].flatten()), F.cross_entropy(z, pool_p[i].flatten(0, 1).float())
    return (1 - args.distill) * hard + args.distill * soft


# ---- training ---------------------------------------------------------------------------------------------------------
model = fresh()
say(f"{sum(p.numel() for n, p in model.named_parameters() if 'log_' not in n) / 1e6:.2f} M parameters on {device}")
run = torch.compile(model) if args.compile else model  # the same module: its weights and switches are changed in place

pool_x, pool_y = batch(args.pool)
pool_p = torch.zeros(*pool_y.shape, args.vocab, dtype=torch.float16, device=device)
first, mean = None, 0.0
for k in range(args.teachers):
    torch.manual_seed(args.seed + 1000 * k)
    model.load_state_dict(fresh().state_dict())
    phase(f"teacher {k}", model, run, args.steps[0], args.lr, teacher_loss)
    first = first or copy.deepcopy(model.state_dict())
    mean = mean + held_out(model, held_ids) / args.teachers
    model.eval()
    with torch.no_grad():
        for i in range(0, args.pool, args.batch):
            j = slice(i, i + args.batch)
            pool_p[j] += F.softmax(logits_of(model, pool_x[j]), -1) / args.teachers
say(f"teachers together: held out {nats(mean):.4f} = {nats(mean) * nats_to_bits:.4f} bits/byte")

model.load_state_dict(first)
for m in model.modules():
    if isinstance(m, qat.Dropout):
        m.p.fill_(args.student_dropout)
qat.quantize_weights(model)
qat.calibrate(model, [batch()[0] for _ in range(4)])
say(f"student before training: held out {nats(held_out(model, held_ids)):.4f}")
phase("student", model, run, args.steps[1], args.student_lr, student_loss)
for name, ids in (("training text (its first part)", train_ids[: len(held_ids)]), ("held out", held_ids)):
    say(f"final, quantised: {name} {nats(held_out(model, ids)):.4f} nats/token")
model.eval()
qat.export(model, batch()[0], args.out)
say("written:", {p.name: p.stat().st_size for p in sorted(args.out.iterdir())})
