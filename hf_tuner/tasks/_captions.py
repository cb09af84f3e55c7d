"""Rows of pictures and what is said of them: which columns the captions stand in, how many there are, what is odd."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import mean, median
from typing import Any

from hf_tuner.console import count
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import EmptyRow, Findings, Layout, RowError
from hf_tuner.tasks._vision import columns_of, picture_columns

CAPTIONS = ("captions", "references", "sentences", "caption", "text", "sentence", "description", "alt_text")
"""Names that captions go by; a column of several goes before one of a single one."""
INSIDE = ("caption", "raw", "text", "sentence")
"""Where a caption stands in a record, as COCO's annotations are."""
NUMBERED = re.compile(r"(?:caption|sentence|text)s?_?\d+", re.IGNORECASE)
SAME = 0.5
"""The share of pictures with the same caption past which it is a warning."""


def caption_layout(
    columns: Mapping[str, Sequence[str]], features: Mapping[str, Any], given: Mapping[str, str]
) -> Layout:
    """A column of pictures or paths, and one of captions, or several that are numbered (caption_0, caption_1, …).

    Raises UsageError when there is no picture.
    """
    numbered = sorted((name for name in features if NUMBERED.fullmatch(name)), key=_number)
    usual = {**columns, "captions": () if numbered else columns["captions"]}
    found = picture_columns(features, given, usual)
    sources = [found["captions"]] if "captions" in found else numbered
    if sources:
        found["captions"] = ", ".join(sources)

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        if not sources:
            return {}
        said = [one for name in sources for one in _captions(row[name], name)]
        if not said:
            raise EmptyRow(f'no caption in column "{found["captions"]}"')
        return {"captions": said}

    return Layout("pictures with captions" if sources else "pictures", found, convert)


def audit_captions(data: Mapping[str, Any]) -> Findings:
    """How many captions there are, how long, and whether they say something. Raises UsageError for rows without any."""
    train = data["train"]
    if "captions" not in train.column_names:
        raise UsageError(f"no column for captions; found: {columns_of(train)}; name it: --columns captions=COLUMN")
    found = Findings()
    rows = train["captions"][:]
    every = [one for row in rows for one in row]
    words = [len(one.split()) for one in every]
    found.lines["captions"] = (f"{count(len(every))} of {count(len(rows))} pictures ({mean(map(len, rows)):.1f} each); half up "
                               f"to {median(words):.0f} words, longest {max(words)}")  # fmt: skip
    found.facts["captions"] = {"captions": len(every), "pictures": len(rows), "p50": median(words), "max": max(words)}
    common, times = Counter(one for row in rows for one in set(row)).most_common(1)[0]
    if len(rows) > 1 and times > SAME * len(rows):
        found.warnings.append(f'train: {count(times)} of {count(len(rows))} pictures have the caption "{_short(common)}": '
                              "the model learns to say it always")  # fmt: skip
    return found


def typical(captions: Sequence[str]) -> str:
    """The caption whose words are most like those of all others: what fits best without looking.

    That of the largest cosine with the mean of all captions' words, each caption of length one.
    """
    import numpy as np

    bags = [Counter(one.lower().split()) for one in captions]
    norms = [np.sqrt(sum(n * n for n in bag.values())) or 1.0 for bag in bags]
    total: Counter[str] = Counter()
    for bag, norm in zip(bags, norms, strict=True):
        total.update({word: n / norm for word, n in bag.items()})  # type: ignore[misc]  # Counters add what they are given
    alike = [sum(n * total[word] for word, n in bag.items()) / norm for bag, norm in zip(bags, norms, strict=True)]
    return captions[int(np.argmax(alike))]


def _captions(value: Any, name: str) -> list[str]:
    """The captions in a cell: one, a list of them, a JSON list, or records that hold one each. Raises RowError."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        with suppress(ValueError):  # a caption may begin so
            value = json.loads(value)
    if isinstance(value, dict):
        value = next((value[key] for key in INSIDE if key in value), value)
    many = value if isinstance(value, list) else [value]
    said: list[str] = []
    for one in many:
        text = next((one[key] for key in INSIDE if key in one), one) if isinstance(one, dict) else one
        if text is not None and not isinstance(text, str):
            raise RowError(f'column "{name}" holds {type(text).__name__}, expected a caption or a list of them')
        said += [text.strip()] if text and text.strip() else []
    return said


def _number(name: str) -> int:
    return int(re.findall(r"\d+", name)[-1])


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
