"""Which sentence is about the same thing: two to four choices, and a BERT."""

import json
from pathlib import Path

import numpy as np
from conftest import WORDS, make_tiny_model, sentence

from tiny_tasks import Tiny


def make(folder: Path) -> Tiny:
    """20 rows to train on, 8 to measure."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    write_choices(folder / "data" / "train.jsonl", 20, 0)
    write_choices(folder / "data" / "test.jsonl", 8, 1)
    return Tiny(make_tiny_model(folder / "model"), folder / "data")


def write_choices(path: Path, count: int, seed: int) -> Path:
    """JSON Lines with a question, choices with keys, and the key of the right one, as CommonsenseQA has them."""
    random, names, lines = np.random.default_rng(seed), list(WORDS), []
    for _ in range(count):
        topic, size = names[int(random.integers(3))], int(random.integers(2, 5))
        right = int(random.integers(size))
        others = [name for name in names if name != topic]
        texts = [sentence(random, topic if i == right else others[i % 2]) for i in range(size)]
        keys = list("ABCD"[:size])
        lines.append(
            {"question": sentence(random, topic), "choices": {"text": texts, "label": keys}, "answerKey": keys[right]}
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
