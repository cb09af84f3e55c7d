"""Questions with a polite answer and a rude one, and the Llama of sft."""

import json
from pathlib import Path

import numpy as np
from conftest import WORDS

from tiny_tasks import Tiny
from tiny_tasks.sft import ANSWERS, conversation, make_tiny_llama


def write_pairs(path: Path, count: int, seed: int = 0) -> None:
    """A JSON Lines file of prompt, chosen and rejected."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        kind = list(WORDS)[i % 3]
        asks = conversation(random, kind, i)[0]["content"]
        rows.append({"prompt": asks, "chosen": ANSWERS[kind], "rejected": "no " * (1 + i % 3)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make(folder: Path) -> Tiny:
    """20 pairs to learn, 8 to measure."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    write_pairs(folder / "data" / "train.jsonl", 20)
    write_pairs(folder / "data" / "test.jsonl", 8, seed=5)
    return Tiny(make_tiny_llama(folder / "model"), folder / "data", {"max_length": 96, "max_new_tokens": 6})
