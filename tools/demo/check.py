"""Reads the exported demo model with transformers' own quantised path (float32, on the CPU).

  python tools/demo/check.py model/demo --text tinyshakespeare.txt            losses and samples
  python tools/demo/check.py model/demo --golden                              writes model/demo/golden.safetensors

golden.safetensors: tokens I64 [T], logits F32 [T,V], hidden F32 [L+1,T,H] (the residual stream before layer 0 and after
each layer) and greedy I64 [64], the most likely continuation of tokens[:16].
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Gemma4ForConditionalGeneration

import bpe

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model", type=Path)
ap.add_argument("--text", type=Path, help="report losses on this text")
ap.add_argument("--golden", action="store_true", help="write golden.safetensors")
ap.add_argument("--length", type=int, default=28, help="tokens in golden.safetensors")
ap.add_argument("--prompt", default="First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"
                "First Citizen:\nYou are all resolved rather to die than to famish?", help="text of golden.safetensors")
ap.add_argument("--samples", nargs="*", default=[], help="prompts to continue, with sampling and greedily")
ap.add_argument("--tokens", type=int, default=200, help="length of a sample")
ap.add_argument("--temperature", type=float)
ap.add_argument("--seed", type=int, default=0)
args = ap.parse_args()

tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))


def load(dtype):
    return Gemma4ForConditionalGeneration.from_pretrained(args.model, dtype=dtype).eval()


@torch.no_grad()
def logits_of(m, ids):
    return m(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0].float()


@torch.no_grad()
def generate(m, ids, n, **how):
    x = torch.tensor(ids)[None]
    return m.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=n, **how)[0, len(ids) :].tolist()


def loss(m, text, context=512):
    ids, total = torch.tensor(bpe.encode(tokenizer, text)), 0.0
    for at in range(0, len(ids), context // 2):
        lo = max(0, at - context // 2)
        y = ids[lo : at + context // 2]
        z = logits_of(m, torch.cat([torch.tensor([bpe.BOS]), y[:-1]]))
        total += F.cross_entropy(z[at - lo :], y[at - lo :], reduction="sum").item()
    return total / len(ids), total / len(text.encode()) / math.log(2)


model = load(torch.float32)
if args.text:
    train, held = bpe.split(args.text.read_text())
    for name, part in (("training (first part)", train[: len(held)]), ("held out", held)):
        print("%s: %.4f nats/token = %.4f bits/byte" % (name, *loss(model, part)))

for prompt in args.samples:
    ids = [bpe.BOS] + bpe.encode(tokenizer, prompt)
    g = json.loads((args.model / "generation_config.json").read_text())
    if args.temperature:
        g["temperature"] = args.temperature
    torch.manual_seed(args.seed)
    how = {k: g[k] for k in ("temperature", "top_k", "top_p")}
    for name, out in (
        (f"sampled {how}", generate(model, ids, args.tokens, do_sample=True, **how)),
        ("greedy", generate(model, ids, args.tokens, do_sample=False, temperature=None, top_k=None, top_p=None)),
    ):
        print(f"---- {name}\n{prompt}{tokenizer.decode(out)}")

if args.golden:
    ids = ([bpe.BOS] + bpe.encode(tokenizer, args.prompt))[: args.length]
    assert len(ids) == args.length, "the prompt is too short"
    layers, hidden = model.model.language_model.layers, []
    hooks = [layers[0].register_forward_pre_hook(lambda m, a, k: hidden.append((a or list(k.values()))[0][0].clone()), with_kwargs=True)]
    hooks += [l.register_forward_hook(lambda m, a, y: hidden.append(y[0].clone())) for l in layers]
    logits = logits_of(model, ids)
    [h.remove() for h in hooks]
    greedy = generate(model, ids[:16], 64, do_sample=False, temperature=None, top_k=None, top_p=None)
    # How far float64 lies from float32: a value next to the edge of a grid can take the next step.
    exact = load(torch.float64)
    again = logits_of(exact, ids)
    noise = {"max_abs": (again - logits).abs().max().item(), "rms": (again - logits).square().mean().sqrt().item(),
             "top1": (again.argmax(-1) == logits.argmax(-1)).float().mean().item(),
             "greedy": sum(a == b for a, b in zip(greedy, generate(exact, ids[:16], 64, do_sample=False, temperature=None, top_k=None, top_p=None)))}
    save_file(
        {"tokens": torch.tensor(ids), "logits": logits.contiguous(), "hidden": torch.stack(hidden).float().contiguous(),
         "greedy": torch.tensor(greedy)},
        args.model / "golden.safetensors",
        {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": "float32", "float64": json.dumps(noise)},
    )
    print("golden:", len(ids), "tokens;", "float64 against float32:", noise)
    print(tokenizer.decode(ids[:16] + greedy))
