"""Sentences whose weather, food and sport words are entities, some too long for one window, and a BERT."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import FILLER, WORDS, make_tiny_model

from tiny_tasks import Tiny


def sentence(random: np.random.Generator, length: int) -> dict[str, Any]:
    """Words with their tags in BIO: one or two words of a kind in a row are an entity."""
    tokens: list[str] = []
    tags: list[str] = []
    while len(tokens) < length:
        filler = random.choice(FILLER, int(random.integers(1, 4)))
        kind = str(random.choice(list(WORDS)))
        words = random.choice(WORDS[kind], int(random.integers(1, 3)))
        tokens += [*map(str, filler), *map(str, words)]
        tags += [*["O"] * len(filler), f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
    return {"tokens": tokens, "tags": tags}


def make(folder: Path) -> Tiny:
    """20 rows to train on (the last update of 8 is ragged), 8 to measure; one in five is longer than the model reads."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    for split, count, seed in (("train", 20, 1), ("test", 8, 2)):
        random = np.random.default_rng(seed)
        rows = [sentence(random, 100 if index % 5 == 4 else int(random.integers(4, 20))) for index in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return Tiny(make_tiny_model(folder / "model"), folder / "data", {"stride": 8})
