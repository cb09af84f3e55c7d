"""Segments: how they are written in rows, their masks, and how an answer is kept.

A segment of a row is text until a batch needs its mask: polygons `[[x, y, …]]`, runs `{"size": [h, w], "counts": …}`, or a
number, which is that of its pixels in the row's map. Maps without segments beside them say the class themselves: their
numbers are class + 256 × instance, the first two channels of a PNG.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.pictures import open_numbers
from hf_tuner.tasks._runs import covered, mask_of, polygon_mask, read, runs_of

CLASSES = 256
"""In a map: class and instance are the remainder and the quotient of its numbers by this."""


@dataclass(frozen=True)
class Segments:
    """Scored segments of one picture, in its own size."""

    height: int
    width: int
    score: Any
    """float32 [segments]"""
    label: Any
    """Class ids int64 [segments]."""
    runs: Sequence[Any]

    def masks(self) -> Any:
        """bool [segments, height, width]"""
        import numpy as np

        made = [mask_of(one, self.height, self.width) for one in self.runs]
        return np.stack(made) if made else np.zeros((0, self.height, self.width), bool)

    def bits(self) -> Any:
        """The masks as `overlap` reads them."""
        return covered(self.masks())


def packed(found: Segments) -> Any:
    """Segments as one array int32: height, width, number, each one's score (its bits), label and runs, then all runs."""
    import numpy as np

    heads = np.stack([found.score.astype(np.float32).view(np.int32), found.label.astype(np.int32),
                      np.array([len(one) for one in found.runs], np.int32)], axis=1)  # fmt: skip
    first = np.array([found.height, found.width, len(found.runs)])
    return np.concatenate([first, heads.ravel(), *found.runs]).astype(np.int32)


def unpacked(kept: Any) -> Segments:
    """The segments of an array; none for one that says that the model's numbers were not finite."""
    import numpy as np

    if kept.dtype != np.int32:
        return Segments(int(kept[0]), int(kept[1]), np.zeros(0, np.float32), np.zeros(0, np.int64), [])
    height, width, number = (int(n) for n in kept[:3])
    heads = kept[3 : 3 + 3 * number].reshape(number, 3)
    ends = np.cumsum(heads[:, 2])[:-1]
    runs = np.split(kept[3 + 3 * number :], ends) if number else []
    score = np.ascontiguousarray(heads[:, 0]).view(np.float32)
    return Segments(height, width, score, heads[:, 1].astype(np.int64), runs)


def surest(found: Segments) -> Any:
    """int64 [height, width]: the class of the segment with the highest score at each pixel, from 1; 0 where there is none."""
    import numpy as np

    seen = np.zeros((found.height, found.width), np.int64)
    masks = found.masks()
    for place in np.argsort(found.score, kind="stable"):
        seen[masks[place]] = found.label[place] + 1
    return seen


def broken(height: int, width: int) -> Any:
    """What is kept where a model gave numbers that are not finite."""
    import numpy as np

    return np.array([height, width, np.nan], np.float64)


def as_text(value: Any, place: int) -> str:
    """A segmentation as rows hold it: polygons, one polygon, or runs, perhaps as JSON already.

    Raises ValueError for anything else, naming the segment by its `place`.
    """
    import numpy as np

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"segment {place} is {value[:40]!r}; expected polygons or runs (RLE)") from error
    if isinstance(value, Mapping) and value.get("counts") is not None:
        counts = value["counts"]
        counts = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
        size = [int(n) for n in value.get("size") or []]
        if len(size) == 2:
            return json.dumps({"size": size, "counts": counts if isinstance(counts, str) else [int(n) for n in counts]})
    elif isinstance(value, list | tuple | np.ndarray):
        parts: list[Any] = [list(one) if isinstance(one, list | tuple | np.ndarray) else one for one in value]
        polygons = [parts] if parts and not any(isinstance(one, list) for one in parts) else parts
        try:
            made = [[float(n) for n in one] for one in polygons]
        except (TypeError, ValueError):
            made = [[]]
        if all(len(one) >= 6 and len(one) % 2 == 0 for one in made):
            return json.dumps(made)
    raise ValueError(f"segment {place} is {str(value)[:60]}; expected polygons [[x, y, x, y, x, y, …]] or runs "
                     '{"size": [height, width], "counts": …}')  # fmt: skip


def segment_mask(text: str, height: int, width: int, numbers: Any = None) -> Any:
    """The mask bool [height, width] of a segment of a row; `numbers` is the row's map where it has one.

    Raises UsageError for runs of another size.
    """
    import numpy as np

    value = json.loads(text)
    if isinstance(value, int):
        return np.asarray(numbers == value)
    try:
        if isinstance(value, Mapping):
            counts = value["counts"]
            return mask_of(read(counts) if isinstance(counts, str) else counts, height, width)
    except ValueError as error:
        raise UsageError(f"a segment's runs do not fit its picture: {error}") from error
    return np.logical_or.reduce([np.zeros((height, width), bool), *(polygon_mask(one, height, width) for one in value)])


def numbers_of(value: Mapping[str, Any]) -> Any:
    """The numbers int64 [height, width] in a map's {"bytes", "path"}. Raises UsageError for what is no map."""
    return open_numbers(value["bytes"] if value["bytes"] is not None else Path(value["path"]))


@dataclass(frozen=True)
class Known:
    """The segments that one row is annotated with."""

    masks: Any
    """bool [segments, height, width]"""
    label: Any
    """Class ids int64 [segments]."""
    crowd: Any
    """bool [segments]: several things in one, neither learned nor a fault to find."""

    def chosen(self, which: Any) -> "Known":
        """Some of them."""
        return Known(self.masks[which], self.label[which], self.crowd[which])


def known_of(row: Mapping[str, Any], height: int, width: int, ids: Mapping[int, int], stuff: bool) -> Known:
    """The segments of an encoded row that have a pixel.

    `ids` maps class numbers in maps to class ids; with `stuff`, what has no instance number is a segment too.
    """
    import numpy as np

    numbers: Any = numbers_of(row["map"]) if row.get("map") is not None else None
    if numbers is not None and numbers.shape != (height, width):
        raise UsageError(f"a map has {numbers.shape[1]} × {numbers.shape[0]} pixels, its picture {width} × {height}")
    if "segments" in row:
        masks = [segment_mask(text, height, width, numbers) for text in row["segments"]]
        labels, crowds = list(row["labels"]), list(row["crowds"])
    else:
        there = [int(n) for n in np.unique(numbers) if n % CLASSES in ids and (stuff or n >= CLASSES)]
        masks, labels = [numbers == n for n in there], [ids[n % CLASSES] for n in there]
        crowds = [False] * len(there)
    whole = np.stack(masks) if masks else np.zeros((0, height, width), bool)
    made = Known(whole, np.array(labels, np.int64), np.array(crowds, bool))
    return made.chosen(whole.any(axis=(1, 2)))


def from_masks(masks: Any, score: Any, label: Any) -> Segments:
    """Segments of masks bool [n, height, width]."""
    import numpy as np

    runs = [runs_of(one) for one in masks]
    height, width = masks.shape[1:]
    return Segments(height, width, np.asarray(score, np.float32), np.asarray(label, np.int64), runs)
