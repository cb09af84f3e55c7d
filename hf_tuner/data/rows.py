"""Rows for a model that exists already: to predict or to measure. No splits are made and nothing is refused twice."""

from typing import Any

from datasets import Dataset

from hf_tuner.console import warn
from hf_tuner.data.audit import as_text
from hf_tuner.data.columns import match_columns
from hf_tuner.data.files import Reading
from hf_tuner.data.layouts import arranged, has_layout
from hf_tuner.data.sources import Raw, parse, read
from hf_tuner.data.splits import named, part, sample
from hf_tuner.errors import UsageError

SEED = 42
"""Of the sample that "name#500" asks for, where there is no run that has a seed."""


def read_rows(name: str, *, config: str | None = None, split: str | None = None, encoding: str | None = None,
              separator: str | None = None) -> tuple[str, Dataset]:  # fmt: skip
    """Split name and all columns of what `name` holds: the split asked for, else test, validation, or the only one; of
    "name#500" a sample of so many rows.

    Raises UsageError for a split that is not there.
    """
    source = parse(name, config)
    raw: Raw = read(source, Reading(encoding, separator))
    for note in raw.notes:
        warn(note)
    chosen = split or named(raw.splits, "test") or named(raw.splits, "validation") or next(iter(raw.splits))
    rows = part(raw.splits, split, "split") if split else raw.splits[chosen]
    if source.sample:
        rows = sample(rows, source.sample, SEED)
    rows.tuner_folder = raw.folder  # where paths of pictures begin
    return chosen, rows


def task_columns(rows: Dataset, task: Any, columns: str | None, *, answers: bool) -> Dataset:
    """The task's own columns of rows, under their canonical names; with `answers`, those that hold answers too.

    Empty texts stay, as empty text, so that every row gets its prediction; they are counted in a warning. Raises
    UsageError when a column is missing or a row cannot be read.
    """
    if has_layout(type(task)):
        return arranged(rows, task, columns, answers=answers)
    unasked = () if answers else task.targets
    wanted = {k: v for k, v in task.columns.items() if k not in unasked and (k != "text_pair" or task.pair)}
    reads = type("Reads", (), {"columns": wanted, "optional": ()})
    found = match_columns(rows.column_names, reads, columns)
    plain = rows.select_columns(list(dict.fromkeys(found.values())))
    plain = as_text(plain.rename_columns({v: k for k, v in found.items() if v != k}), found, [])
    if "label" in found and None in plain["label"][:]:
        raise UsageError(f'column "{found["label"]}" has empty cells; scores need a label for every row')
    return _without_nulls(plain)


def _without_nulls(rows: Dataset) -> Dataset:
    texts = [c for c in rows.column_names if c != "label"]
    empty = sum(not (v or "").strip() for c in texts for v in rows[c][:])
    if not empty:
        return rows
    warn(f"{empty} of {len(rows)} texts are empty; they are predicted as empty text")
    return rows.map(lambda batch: {c: [v or "" for v in batch[c]] for c in texts}, batched=True)
