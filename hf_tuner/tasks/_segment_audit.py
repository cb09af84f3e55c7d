"""What is wrong or odd in pictures with segments: outside, without a pixel, of no class, crowds, pictures without any."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.pictures import looked_through
from hf_tuner.tasks._box_audit import sizes_of, tell_unknown
from hf_tuner.tasks._boxes import SLACK
from hf_tuner.tasks._runs import read
from hf_tuner.tasks._segment_classes import FOUND, counted, is_mapped, names_of, numbered, stuff_of, tallied
from hf_tuner.tasks._segments import numbers_of, segment_mask
from hf_tuner.tasks._task import Findings
from hf_tuner.tasks._vision import columns_of

NAMED = 8
SMALL = 4.0
"""Pixels below which a polygon is drawn to see whether it covers any."""
CURE = "--bad-segments clip cuts segments to the picture and leaves out those without a pixel"


def segment_findings(data: Mapping[str, Any], run: Any, given: Any, stuff: bool) -> Findings:
    """The findings in all splits; `stuff` as in `known_of`. Raises UsageError for training rows without segments."""
    columns = data["train"].column_names
    if "segments" not in columns and "map" not in columns:
        raise UsageError(f"no segments in the training rows; found: {columns_of(data['train'])}; expected a column `objects` with "
                         "segmentation and category, a map, or --columns segments=COLUMN,labels=COLUMN")  # fmt: skip
    if is_mapped(data["train"]):
        return _of_maps(data, run, given, stuff)
    found, names = Findings(), names_of(data["train"], stuff)
    if not names:
        raise UsageError("no picture has a segment; there is nothing to learn")
    for split, rows in data.items():
        if "segments" not in rows.column_names:
            raise UsageError(f"{split}: no segments; to measure, they are needed as train has them")
        _of_split(found, split, rows, given.bad_segments == "refuse")
        tell_unknown(found, split, rows["labels"][:], (*names, *stuff_of(data["train"])))
    return found


def fault(text: str, width: int, height: int) -> tuple[str, bool]:
    """What is wrong with polygons or runs in a picture, "" for nothing, and whether cutting it to the picture mends it."""
    value = json.loads(text)
    if isinstance(value, Mapping):
        return _of_runs(value, width, height)
    xs, ys = ([n for one in value for n in one[k::2]] for k in (0, 1))
    if not all(abs(n) < float("inf") for n in xs + ys):
        return "is not finite", False
    if xs and (min(xs) < -SLACK or min(ys) < -SLACK or max(xs) > width + SLACK or max(ys) > height + SLACK):
        return f"stands out of the picture of {width} × {height}", True
    if sum(map(_area, value)) < SMALL and not segment_mask(text, height, width).any():
        return "covers no pixel", True
    return "", True


def _of_runs(value: Mapping[str, Any], width: int, height: int) -> tuple[str, bool]:
    if list(value["size"]) != [height, width]:
        return f"has runs for {value['size'][1]} × {value['size'][0]} pixels, the picture has {width} × {height}", False
    try:
        counts = read(value["counts"]) if isinstance(value["counts"], str) else value["counts"]
    except ValueError as error:
        return f"has runs that cannot be read ({error})", False
    if sum(counts) != width * height or min(counts, default=0) < 0:
        return f"has runs of {sum(counts):,} pixels, the picture has {width * height:,}", False
    return ("" if sum(counts[1::2]) else "covers no pixel"), True


def _area(corners: Sequence[float]) -> float:
    x, y = corners[::2], corners[1::2]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def _of_split(found: Findings, split: str, rows: Any, refuse: bool) -> None:
    empty = cut = 0
    plain = rows.select_columns(["segments", "labels", "crowds", "width", "height"])
    counts = Counter(label for labels in plain["labels"][:] for label in labels)
    crowds = sum(sum(one) for one in plain["crowds"][:])
    maps = "map" in rows.column_names
    for row, one in enumerate(plain):
        empty += not one["segments"]
        texts, size = one["segments"], (one["width"], one["height"])
        wrong = _in_map(rows[row]["map"], texts, *size) if maps else [
            (f"segment {place} {what}", mends) for place, text in enumerate(texts, 1)
            for what, mends in [fault(text, *size)] if what]  # fmt: skip
        cut += len(wrong)
        hard = [what for what, mends in wrong if refuse or not mends]
        if hard:
            more = f" (and {len(hard) - 1} more)" if len(hard) > 1 else ""
            found.errors.append((split, row, f"{hard[0]}{more}" + (f"; {CURE}" if refuse and not maps else "")))
    total = sum(counts.values())
    _tell(found, split, counts, empty)
    found.facts.setdefault("segments", {})[split] = {"segments": total, "empty": empty, "faulty": cut, "crowds": crowds}
    if crowds:
        found.lines[split] += f"; {crowds:,} of them crowds: not learned, and no fault to find"
    if cut and not refuse:
        said = f"{split}: {cut:,} of {total:,} segments are cut to their picture or left out (--bad-segments clip)"
        found.warnings.append(said)


def _in_map(value: Mapping[str, Any], texts: Sequence[str], width: int, height: int) -> list[tuple[str, bool]]:
    """What is wrong with the numbers that a row's segments have in its map, and whether they can be left out."""
    import numpy as np

    try:
        numbers = numbers_of(value)
    except UsageError as error:
        return [(str(error), False)]
    if numbers.shape != (height, width):
        return [(_other_size(numbers.shape, (width, height)), False)]
    there = {str(n) for n in np.unique(numbers).tolist()}
    return [(f"segment {text} has no pixel in its map", True) for text in texts if text not in there]


def _of_maps(data: Mapping[str, Any], run: Any, given: Any, stuff: bool) -> Findings:
    found, held = Findings(), {}
    for split, rows in data.items():
        each: list[dict[int, int]] = []
        for row, (one, size) in enumerate(zip(_counts(rows, stuff), sizes_of(rows), strict=True)):
            if isinstance(one, UsageError):
                found.errors.append((split, row, str(one)))
                continue
            if one[0] != size[::-1]:
                found.errors.append((split, row, _other_size(one[0], size)))
            each.append(one[1])
        held[split] = each
    tallies = {split: tallied(each) for split, each in held.items()}
    found.facts[FOUND] = {split: {str(n): list(one) for n, one in part.items()} for split, part in tallies.items()}
    if found.errors:
        return found
    known = numbered(_Counted(data, found.facts), run, given, stuff)
    if not any(number in known for one in held["train"] for number in one):
        raise UsageError("no map of train holds a segment; there is nothing to learn. Expected class numbers in the first "
                         "channel of a PNG and instance numbers, from 1, in the second")  # fmt: skip
    for split, each in held.items():
        counts = Counter({known[n]: 0 for n in known})
        for numbers in each:
            counts.update({known[n]: count for n, count in numbers.items() if n in known})
        _tell(found, split, +counts, sum(not set(one) & known.keys() for one in each))
    return found


def _other_size(shape: Sequence[int], size: Sequence[int]) -> str:
    return f"the map has {shape[1]} × {shape[0]} pixels, its picture {size[0]} × {size[1]}; they must be alike"


class _Counted(dict):
    """Rows by split that carry what was counted, as the audited rows will."""

    def __init__(self, data: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.tuner_notes = {"audit": facts}


def _counts(rows: Any, stuff: bool) -> Iterator[tuple[tuple[int, int], dict[int, int]] | UsageError]:
    def one(value: Mapping[str, Any]) -> tuple[tuple[int, int], dict[int, int]] | UsageError:
        try:
            return counted(value, stuff)
        except UsageError as error:
            return error

    return looked_through(rows, "map", one)


def _tell(found: Findings, split: str, counts: Mapping[str, int], empty: int) -> None:
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    named = ", ".join(f"{name} {count:,}" for name, count in ordered[:NAMED]) + (", …" if len(ordered) > NAMED else "")
    none = f"; {empty:,} pictures without segments" if empty else ""
    found.lines[split] = f"{sum(counts.values()):,} segments ({named}){none}"
    if split == "train":
        found.facts["classes"] = dict(counts)
