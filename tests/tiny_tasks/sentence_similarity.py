"""Pairs of short sentences with a score, and a BERT."""

import csv
from pathlib import Path

import numpy as np
from conftest import WORDS, make_tiny_model, sentence

from tiny_tasks import Tiny


def make(folder: Path) -> Tiny:
    """20 scored pairs to train on (the last update of 8 is ragged), 8 to measure; with the cosine loss, a sum over rows."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    for split, count, seed in (("train", 20, 0), ("test", 8, 5)):
        write_pairs(folder / "data" / f"{split}.csv", count, seed)
    return Tiny(make_tiny_model(folder / "model"), folder / "data", {"similarity_loss": "cosine"})


def write_pairs(path: Path, count: int, seed: int) -> None:
    """Pairs of sentences, alike (5) when they speak of the same thing, else not (0 or a little)."""
    random, names = np.random.default_rng(seed), list(WORDS)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("sentence1", "sentence2", "score"))
        for row in range(count):
            left, right = names[row % 3], names[(row + row % 2) % 3]
            score = 5.0 if left == right else float(random.integers(0, 4)) / 2
            writer.writerow((f"{sentence(random, left)} {row}", f"{sentence(random, right)} {row}", score))
