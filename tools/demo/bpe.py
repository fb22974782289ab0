"""The demo model's tokenizer: a small BPE in Gemma's manner, written as a tokenizer.json.

Spaces become "▁", unknown characters fall back to byte pieces, and the special tokens have Gemma's first ids. While the
merges are learnt the text is cut into words, newline runs and punctuation, so no piece crosses such a boundary; the
written file has no cutting rule of its own that matters: a plain BPE over the whole text gives the same ids.
"""

import json

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
PAD, EOS, BOS = 0, 1, 2
CUT = r"▁?[A-Za-z']+|\n+|▁?[^A-Za-z'▁\n]+|▁"


def train(text: str, vocab_size: int) -> str:
    """Learns the merges from `text` and returns the contents of tokenizer.json."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(CUT), "isolated")
    fixed = len(SPECIAL) + 256
    learner.train_from_iterator([text], trainers.BpeTrainer(vocab_size=vocab_size - fixed, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]

    pieces = SPECIAL + [f"<0x{b:02X}>" for b in range(256)]
    pieces += sorted(learnt["vocab"], key=learnt["vocab"].get)
    assert len(pieces) == len(set(pieces)) == vocab_size
    added = [
        {"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i, s in enumerate(SPECIAL)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                              "invert": False},
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ]},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": "<unk>",
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {p: i for i, p in enumerate(pieces)},
                "merges": learnt["merges"],
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def split(text: str) -> tuple[str, str]:
    """The text in training and held-out part: the last 5 %, cut where a speech begins."""
    cut = text.index("\n\n", int(len(text) * 0.95)) + 2
    return text[:cut], text[cut:]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids
