"""Which food stands in a sentence: some contexts are longer than the model reads, some hold no food at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import FILLER, WORDS, make_tiny_model

from tiny_tasks import Tiny


def question(random: np.random.Generator, length: int, possible: bool, number: int) -> dict[str, Any]:
    """A row of SQuAD 2.0: filler around two words of food, or none."""
    words = [str(word) for word in random.choice(FILLER, length)]
    answer = " ".join(random.choice(WORDS["food"], 2, replace=False))
    place = int(random.integers(0, length))
    before = " ".join(words[:place])
    start = len(before) + (place > 0)
    inside = [answer] if possible else []
    context = " ".join([*words[:place], *inside, *words[place:]])
    return {"id": str(number), "question": "the food is", "context": context,
            "answers": {"text": inside, "answer_start": [start] if possible else []}}  # fmt: skip


def make(folder: Path) -> Tiny:
    """20 rows to train on (the last update of 8 is ragged), 8 to choose the threshold on, 8 to measure."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    for split, count, seed in (("train", 20, 1), ("validation", 8, 3), ("test", 8, 2)):
        random = np.random.default_rng(seed)
        rows = [
            question(random, 90 if i % 5 == 4 else int(random.integers(4, 20)), i % 4 != 3, i) for i in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return Tiny(make_tiny_model(folder / "model"), folder / "data", {"doc_stride": 16})
