"""Rows of tasks whose columns need more than finding: recognise the layout, convert row by row, name the bad ones."""

import types
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets

from hf_tuner.data.columns import parse_columns
from hf_tuner.data.picture_rows import with_pictures
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import BlankRow, EmptyRow, Layout, RowError, Task

LOOKED_AT = 50
"""Rows by whose content a layout is recognised."""
NAMED = 5
"""Rows of a kind of fault that are named."""
ROW = "__row__"
"""Column that carries the number of each row up to the audit, so that messages can name its place in its file."""
AT_ONCE = 1000
EMPTY = "; --drop-empty skips such rows"

Place = Callable[[int], str]


def has_layout(task: type) -> bool:
    """Whether a task recognises layouts itself, instead of naming columns."""
    own = getattr(task, "layout", None)
    return own is not None and own.__func__ is not Task.layout.__func__  # type: ignore[attr-defined]


def layout_of(rows: Dataset, task: type, given: str | None, settings: Any = None,
              faults: Mapping[str, str] = types.MappingProxyType({})) -> Layout:  # fmt: skip
    """The layout of rows, with what --columns and the task's settings say.

    Raises UsageError when none fits, with the `faults` of columns that could not be read.
    """
    first = list(islice(iter(rows), LOOKED_AT))
    names = [name for name in rows.column_names if name != ROW]
    asked = parse_columns(given, names, list(getattr(task, "columns")))  # noqa: B009 - declared by convention
    features = {name: feature for name, feature in rows.features.items() if name != ROW}
    said = getattr(task, "asked")(settings)  # noqa: B009
    try:
        return getattr(task, "layout")(features, [{k: r[k] for k in names} for r in first], {**said, **asked})  # noqa: B009
    except UsageError as error:
        raise UsageError("\n".join([*faults.values(), *([str(error)] if names else [])])) from error


def arranged(rows: Dataset, task: Task, given: str | None, *, answers: bool = True) -> Dataset:
    """Canonical rows for predicting or measuring. Raises UsageError that names the first rows that cannot be read.

    Without `answers`, columns that hold them are not looked at: what is wrong with them is nobody's concern.
    """
    layout, folder = layout_of(rows, type(task), given, task), getattr(rows, "tuner_folder", None)
    unasked = [layout.columns[name] for name in task.targets if layout.columns.get(name) in rows.column_names]
    if unasked and not answers:
        parts = (part for part in (given or "").split(",") if part.partition("=")[0].strip() not in task.targets)
        rows = rows.remove_columns(unasked)
        layout = layout_of(rows, type(task), ",".join(parts), task)
    pictures = [layout.columns[name] for name in task.pictures if name in layout.columns]
    rows = with_pictures(rows, pictures, folder)
    errors: list[str] = []
    result = convert(rows, layout, lambda number: f"row {number + 1}", errors, blank=not answers, carried=task.carried)
    if errors:
        raise UsageError("\n".join(error.replace(EMPTY, "") for error in errors))  # predict and evaluate skip no rows
    hidden = () if answers else getattr(task, "targets", ())
    return result.remove_columns([name for name in result.column_names if name in (*hidden, ROW)])


def convert(rows: Dataset, layout: Layout, place: Place, errors: list[str], *, drop_empty: bool = False,
            blank: bool = False, carried: Sequence[str] = ()) -> Dataset:  # fmt: skip
    """Canonical rows, each with its number (`ROW`) when it had one; `errors` gets what cannot be read, by kind of fault.

    With `drop_empty`, rows with nothing in them are left out; those whose layout takes them for usual always are, but
    for `blank`. Columns of `carried` go along untouched. `place` turns a row's number into words.
    """
    faults: dict[str, list[int]] = {}
    aside = {layout.columns[name]: name for name in carried if name in layout.columns}
    read = rows if ROW in rows.column_names else rows.add_column(ROW, np.arange(len(rows)))
    lacking = {number for column, name in aside.items() if name == "label" for number in _empty(read, column)}
    read = read.remove_columns([column for column in aside if column in rows.column_names])
    whole = list(_converted(read, layout, faults, EmptyRow if drop_empty else () if blank else BlankRow, lacking))
    for text, numbers in faults.items():
        named = ", ".join(place(number) for number in numbers[:NAMED]) + (", …" if len(numbers) > NAMED else "")
        errors.append(f"{named}: {text}" + (f" ({len(numbers):,} rows)" if len(numbers) > 1 else ""))
    made = _dataset(whole)
    if not aside or not whole:
        return made
    index = {int(number): position for position, number in enumerate(read[ROW][:])}
    kept = rows.select([index[row[ROW]] for row in whole]).select_columns(list(aside))
    return concatenate_datasets([kept.rename_columns({c: n for c, n in aside.items() if c != n}), made], axis=1)


def _empty(rows: Dataset, column: str) -> Iterator[int]:
    """Numbers of the rows with nothing in a column, read without converting it."""
    for part in rows.select_columns([column, ROW]).with_format("arrow").iter(AT_ONCE):
        none = pc.is_null(part[column], nan_is_null=True)
        if pa.types.is_string(part[column].type) or pa.types.is_large_string(part[column].type):
            none = pc.or_(none, pc.equal(pc.fill_null(pc.utf8_trim_whitespace(part[column]), ""), ""))
        yield from part[ROW].filter(none).to_pylist()


def _converted(rows: Dataset, layout: Layout, faults: dict[str, list[int]], drop: Any,
               lacking: Container[int]) -> Iterator[dict[str, Any]]:  # fmt: skip
    for start in range(0, len(rows), AT_ONCE):
        batch: Mapping[str, Sequence[Any]] = rows[start : start + AT_ONCE]
        names = [name for name in batch if name != ROW]
        for offset in range(len(batch[ROW])):
            number = int(batch[ROW][offset])
            raw = {name: batch[name][offset] for name in names}
            for one in layout.expand(raw) if layout.expand else [raw]:
                try:
                    if number in lacking:
                        raise EmptyRow("label is empty")
                    row = layout.convert(one)
                except EmptyRow as error:
                    if not isinstance(error, drop):
                        faults.setdefault(f"{error}{EMPTY}", []).append(number)
                except RowError as error:
                    faults.setdefault(str(error), []).append(number)
                else:
                    yield {**row, ROW: number}


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows) if rows else Dataset.from_dict({})
