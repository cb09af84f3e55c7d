"""Training rows as a person sees them, for the sheet of `check`: which are chosen, and how each is shown."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from hf_tuner.tasks._drawn import sized
from hf_tuner.tasks._vision import decoded

EDGE = 320
"""Pixels of the longer edge of a picture on which nothing is drawn."""


@dataclass(frozen=True)
class Sample:
    """A row with what it is labelled with."""

    image: Any
    """A PIL image."""
    lines: tuple[str, ...]
    """What stands below it."""
    place: str
    """Where it comes from."""


def spread(kinds: Sequence[Iterable[Hashable]], most: int, seed: int) -> list[int]:
    """Rows in their order, at most `most`, that show as many kinds as they can and each about as often.

    `kinds` says what there is in each row: its class, its labels, nothing.
    """
    import numpy as np

    waiting: dict[Hashable, list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(kinds)).tolist():
        for kind in list(dict.fromkeys(kinds[row])) or [None]:
            waiting.setdefault(kind, []).append(row)
    turns = (row for turn in zip_longest(*waiting.values()) for row in turn if row is not None)
    return sorted(islice(_once(turns), most))


def _once(rows: Iterable[int]) -> Iterable[int]:
    seen: set[int] = set()
    for row in rows:
        if row not in seen:
            seen.add(row)
            yield row


def plain(row: Mapping[str, Any], number: int, lines: Iterable[str]) -> Sample:
    """A row whose column `image` is shown as it is."""
    return Sample(sized(decoded(row["image"]), EDGE), tuple(lines), place_of(row["image"], number))


def captioned(rows: Any, column: str, most: int, seed: int) -> list[Sample]:
    """Pictures with their captions, a list in `column`."""
    chosen = spread([()] * len(rows), most, seed)
    return [plain(row, number, row[column]) for number, row in zip(chosen, rows.select(chosen), strict=True)]


def place_of(picture: Mapping[str, Any], number: int) -> str:
    """The file of a picture with its folder's name, or which picture it is of its split, from 1."""
    return "/".join(Path(picture["path"]).parts[-2:]) if picture["path"] else f"picture {number + 1:,}"


def tally(labels: Iterable[str], nothing: str) -> str:
    """How often each label is there, most first."""
    return ", ".join(f"{label}: {times:,}" for label, times in Counter(labels).most_common()) or nothing
