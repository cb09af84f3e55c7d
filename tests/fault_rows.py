"""The rows of the fault matrix: what can go wrong, what should happen then, and what is not proved yet and why."""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "fault_rows.csv"

NOTES = {
    "2": "The interrupted runs of all tasks (`test_task_invariants.py`) crop pictures at random too.",
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
