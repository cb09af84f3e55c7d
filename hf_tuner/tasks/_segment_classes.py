"""Which classes segments have: by their names, or by the numbers in maps."""

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from hf_tuner import catalog
from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import natural
from hf_tuner.tasks._masks import code_of
from hf_tuner.tasks._segments import CLASSES, numbers_of

FOUND = "segment_maps"
"""Fact of the audit: split → class number in maps → (segments, most of it in one picture)."""
Counts = Mapping[str, Mapping[int, tuple[int, int]]]


def names_of(rows: Any, stuff: bool) -> tuple[str, ...]:
    """The labels of rows in natural order; without those that the data say are no things, where `stuff` is not wanted."""
    aside = set() if stuff else stuff_of(rows)
    return tuple(sorted({label for labels in rows["labels"][:] for label in labels} - aside, key=natural))


def stuff_of(rows: Any) -> set[str]:
    """Labels that the data say are no things, such as sky and road."""
    if not {"things", "labels"} <= set(rows.column_names):
        return set()
    return {label for labels, things in zip(rows["labels"][:], rows["things"][:], strict=True)
            for label, thing in zip(labels, things, strict=False) if not thing}  # fmt: skip


def is_mapped(rows: Any) -> bool:
    """Whether maps alone say what the segments are."""
    return "map" in rows.column_names and "segments" not in rows.column_names


def counted(value: Mapping[str, Any], stuff: bool) -> tuple[tuple[int, int], dict[int, int]]:
    """Height and width of a map, and segments of each class number: instances, and with `stuff` what has no instance."""
    import numpy as np

    numbers = numbers_of(value)
    found: dict[int, int] = {}
    for number in np.unique(numbers).tolist():
        if stuff or number >= CLASSES:
            found[number % CLASSES] = found.get(number % CLASSES, 0) + 1
    return numbers.shape, found


def numbered(data: Any, run: Any, given: Any, stuff: bool) -> dict[int, str]:
    """Class number in maps → name, in the order of the numbers.

    Named by the data, --classes or an id2label.json beside the data. Raises UsageError for maps without a segment.
    """
    if hasattr(given, "numbers"):  # a saved task
        return dict(zip(given.numbers, given.names, strict=True))
    counts = map_counts(data, stuff)
    written = next((text for text in data["train"]["written"][:] if text), "")
    told = {int(number): name for number, name in json.loads(written or "{}").items()}
    there = {number for one in counts.values() for number in one}
    if told and given.classes == "auto":
        return {number: told.get(number, f"class {number}") for number in sorted(there)}
    settings = SimpleNamespace(classes=given.classes, ignore_index=given.ignore_index, reduce_labels=False)
    found = {split: {number: one[0] for number, one in part.items()} for split, part in counts.items()}
    code = code_of(found, settings, str(run.dataset))
    return dict(zip(code.ids, code.names, strict=True))


def map_counts(data: Any, stuff: bool) -> Counts:
    """Segments of each class number by split, and the most of one picture: as the audit counted them, or counted now."""
    known = getattr(data, "tuner_notes", {}).get("audit", {}).get(FOUND)
    if known is not None:
        return {split: {int(n): (one[0], one[1]) for n, one in part.items()} for split, part in known.items()}
    return {split: tallied([counted(value, stuff)[1] for value in rows["map"]]) for split, rows in data.items()}


def tallied(each: list[dict[int, int]]) -> dict[int, tuple[int, int]]:
    """Class number → (segments, most in one picture) over pictures."""
    total: dict[int, tuple[int, int]] = {}
    for one in each:
        for number, n in one.items():
            before = total.get(number, (0, 0))
            total[number] = before[0] + n, max(before[1], n)
    return total


def known_labels(rows: Any, names: tuple[str, ...], stuff: bool) -> Any:
    """The same rows. Raises UsageError for labels that the model does not know."""
    labels = names_of(rows, stuff) if "labels" in rows.column_names else ()
    other = [label for label in labels if label not in names]
    if other:
        raise UsageError(f'label "{other[0]}" is not among those of the model: {", ".join(names[:10])}')
    return rows


def countable(data: Any, names: Sequence[str], numbers: Sequence[int], given: str) -> tuple[bool, ...]:
    """Whether each class is one of things: as `given` (names by commas), as the data say, or as a picture shows two of it.

    Raises UsageError for a name that is no class.
    """
    if given != "auto":
        wanted = [name.strip() for name in given.split(",") if name.strip()]
        if other := [name for name in wanted if name not in names]:
            raise UsageError("--things: " + catalog.unknown("class", other[0], list(names)))
        return tuple(name in wanted for name in names)
    if numbers:
        counts = map_counts(data, True)["train"]
        return tuple(counts.get(number, (0, 0))[1] > 1 for number in numbers)
    rows = data["train"]
    if any(rows["things"][:]):
        stuff = stuff_of(rows)
        return tuple(name not in stuff for name in names)
    several = {label for labels in rows["labels"][:] for label in labels if labels.count(label) > 1}
    return tuple(name in several for name in names)
