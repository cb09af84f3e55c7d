"""Short texts about three things, and a BERT without a head for words."""

from pathlib import Path

from conftest import make_tiny_model

from tiny_tasks import Tiny
from tiny_tasks.causal_lm import write_texts


def make(folder: Path) -> Tiny:
    """20 texts to train on, some longer than a block, and 8 to measure; blocks of 32 tokens."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    write_texts(folder / "data" / "train.jsonl", 20, 0)
    write_texts(folder / "data" / "test.jsonl", 8, 1)
    return Tiny(make_tiny_model(folder / "model"), folder / "data", {"block_size": 32})
