"""Queries with lists of documents, and a BERT."""

import json
from pathlib import Path

import numpy as np
from conftest import WORDS, make_tiny_model, sentence

from tiny_tasks import Tiny


def make(folder: Path) -> Tiny:
    """20 queries to train on (the last update of 8 is ragged), 8 to measure."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    for split, count, seed in (("train", 20, 0), ("test", 8, 5)):
        write_lists(folder / "data" / f"{split}.jsonl", count, seed)
    return Tiny(make_tiny_model(folder / "model"), folder / "data", {"rerank_loss": "listnet"})


def write_lists(path: Path, count: int, seed: int) -> None:
    """Queries with two to four documents, of which the first speaks of the same thing."""
    random, names = np.random.default_rng(seed), list(WORDS)
    with path.open("w", encoding="utf-8") as file:
        for row in range(count):
            own, *others = np.roll(names, row % 3).tolist()
            documents = [sentence(random, own), *(sentence(random, others[k % 2]) for k in range(1 + row % 3))]
            labels = [1.0] + [0.0] * (len(documents) - 1)
            line = {"query": f"{sentence(random, own)} {row}", "documents": documents, "labels": labels}
            file.write(json.dumps(line) + "\n")
