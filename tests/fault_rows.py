"""The rows of the fault matrix: what can go wrong, what should happen then, and what is not proved yet and why."""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "fault_rows.csv"

NO_VISION = "Images are looked at; nothing trains on them before the vision tasks are there."
NO_BOXES = "Object detection is not there yet."
NOTES = {
    "2": "Nothing is augmented at random yet: `hf_tuner/augment` is empty, so every row is the same in every epoch.",
    "35": "Generation is not there yet: classifiers never write an end of text.",
    "39": NO_BOXES,
    "40": f"Shown for text. {NO_VISION}",
    "55": NO_VISION,
    "56": NO_VISION,
    "59": NO_BOXES,
}
"""What a row's tests leave open, or why it has none."""


@dataclass(frozen=True)
class Row:
    """One row of the matrix."""

    id: str
    part: str
    priority: str
    scenario: str
    expected: str


@functools.cache
def rows() -> tuple[Row, ...]:
    """All rows, in order."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Row(**fields) for fields in csv.DictReader(file))
