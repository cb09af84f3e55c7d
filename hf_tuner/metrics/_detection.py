"""Average precision of boxes and masks as COCO measures it, as a function of how often each picture was drawn.

Boxes (or masks) are matched once per picture, class and range of sizes (Lin et al. 2014, arXiv 1405.0312; the rules of pycocotools'
`COCOeval`): detections by falling score, each takes the free box of its class that it overlaps most, if the overlap
reaches the threshold. What is summed over pictures afterwards is weighted, so a bootstrap matches nothing again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Overlaps (intersection over union) from which a detection counts as right."""
RECALLS = 101
"""Places between 0 and 1 at which precision is read."""
SIZES: Mapping[str, tuple[float, float]] = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
"""Areas in pixels of the picture."""
EVERY = (0.0, 1e10)
MOST = 100
"""Detections of a class that count in one picture."""

Boxes = np.ndarray
"""Corners [boxes, 4]: left, top, right, bottom, in pixels."""
Weighted = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Compared:
    """One picture: what was found, what there is to find, and how far each covers the other."""

    score: np.ndarray
    """[found]"""
    said: np.ndarray
    """Class [found]."""
    area: np.ndarray
    """Pixels [found]."""
    known: np.ndarray
    """Class [expected]."""
    size: np.ndarray
    """Pixels [expected]."""
    crowd: np.ndarray
    """Whether it is several things in one [expected]."""
    shared: np.ndarray
    """Intersection over union [found, expected]; with a crowd, the share of what was found that lies in it."""


@dataclass(frozen=True)
class Matched:
    """The detections of one class in all pictures, by falling score."""

    rows: np.ndarray
    """The picture [detections] each is in."""
    right: np.ndarray
    """Whether it found a box [thresholds, detections]."""
    aside: np.ndarray
    """Whether it counts for nothing [thresholds, detections], as it is of another size."""
    boxes: np.ndarray
    """How many boxes there are to find in each picture [pictures]."""


def overlaps(found: Boxes, expected: Boxes, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union [found, expected] of corners [n, 4]; 0 where both are empty.

    With those expected that are a `crowd` [expected], it is the share of what was found that lies in it.
    """
    left_top = np.maximum(found[:, None, :2], expected[None, :, :2])
    right_bottom = np.minimum(found[:, None, 2:4], expected[None, :, 2:4])
    shared = np.clip(right_bottom - left_top, 0, None).prod(axis=2)
    union = _areas(found)[:, None] + _areas(expected)[None] - shared
    if crowd is not None:
        union = np.where(crowd, _areas(found)[:, None], union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def compared(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[Compared]:
    """Boxes of each picture beside each other.

    `found` has [detections, 6] for each picture: corners in pixels, score, class; `expected` [boxes, 6]: corners, class, 1
    around a crowd, or without the last.
    """
    made = []
    for said, known in zip(found, expected, strict=True):
        crowd = known[:, 5] > 0 if known.shape[1] > 5 else np.zeros(len(known), bool)
        shared = overlaps(said, known, crowd)
        made.append(Compared(said[:, 4], said[:, 5], _areas(said), known[:, 4], _areas(known), crowd, shared))
    return made


def matched(pictures: Sequence[Compared], sizes: tuple[float, float] = EVERY) -> dict[int, Matched]:
    """What was found matched with what is expected, by class.

    What is expected with an area outside of `sizes` and crowds need not be found, and finding them is no fault; a crowd may
    be found as often as something is said to be in it.
    """
    where: dict[int, list[int]] = {}
    for row, one in enumerate(pictures):
        for name in np.unique(np.concatenate([one.known, one.said])).astype(int).tolist():
            where.setdefault(name, []).append(row)
    return {name: _of_class(name, where[name], pictures, sizes) for name in sorted(where)}


def precisions(classes: Sequence[Matched], weights: np.ndarray, wanted: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """Average precision [samples, classes, wanted] under weights [samples, pictures]; NaN where nothing is to find.

    `wanted` are some of the thresholds.
    """
    made = [_precision(one, weights, wanted) for one in classes]
    return np.stack(made, axis=1) if made else np.full((len(weights), 0, len(wanted)), np.nan)


def scores(pictures: Sequence[Compared], names: Sequence[str]) -> dict[str, Weighted]:
    """mAP, mAP at overlaps of 0.5 and 0.75, by size, the mean recall, and the AP of each class (up to a dozen).

    Each score is a function of weights [samples, pictures]; sizes and classes of which there is nothing to find are left
    out.
    """
    every = matched(pictures)
    classes = list(every.values())
    made: dict[str, Weighted] = {
        "map": partial(_mean, classes, THRESHOLDS),
        "map_50": partial(_mean, classes, (0.5,)),
        "map_75": partial(_mean, classes, (0.75,)),
    }
    for size, area in SIZES.items():
        if any((~_uncounted(one, area)).any() for one in pictures):
            made[f"map_{size}"] = _of_size(pictures, area)
    made["mar_100"] = partial(_recall, classes)
    for index, name in enumerate(names if len(names) <= 12 else ()):
        if index in every and every[index].boxes.sum():
            made[f"ap_{name}"] = partial(_mean, [every[index]], THRESHOLDS)
    return made


def class_table(pictures: Sequence[Compared], names: Sequence[str]) -> list[dict[str, Any]]:
    """{"name", "expected", "ap", "ap_50"} of every class; None where there is nothing to find."""
    every, weights, table = matched(pictures), np.ones((1, len(pictures))), []
    for index, name in enumerate(names):
        values = precisions([every[index]], weights)[0, 0] if index in every else np.full(len(THRESHOLDS), np.nan)
        known = bool(np.isfinite(values).all())
        boxes = int(every[index].boxes.sum()) if index in every else 0
        table.append({"name": name, "expected": boxes, "ap": float(values.mean()) if known else None,
                      "ap_50": float(values[0]) if known else None})  # fmt: skip
    return table


def _areas(boxes: Boxes) -> np.ndarray:
    return np.clip(boxes[:, 2:4] - boxes[:, :2], 0, None).prod(axis=1)


def _of_size(pictures: Sequence[Compared], area: tuple[float, float]) -> Weighted:
    """mAP of one range of sizes; nothing is matched before it is asked for."""
    classes = cache(lambda: list(matched(pictures, area).values()))
    return lambda weights: _mean(classes(), THRESHOLDS, weights)


def _uncounted(one: Compared, sizes: tuple[float, float]) -> np.ndarray:
    """What need not be found [expected]: of another size, or a crowd."""
    return (one.size < sizes[0]) | (one.size > sizes[1]) | one.crowd


def _of_class(name: int, where: Sequence[int], pictures: Sequence[Compared], sizes: tuple[float, float]) -> Matched:
    """A class matched in the pictures that have a box or a detection of it."""
    rows, sure, right, aside, boxes = [], [], [], [], np.zeros(len(pictures))
    for row in where:
        one = pictures[row]
        said, known = np.flatnonzero(one.said == name), np.flatnonzero(one.known == name)
        said = said[np.argsort(-one.score[said], kind="stable")][:MOST]
        crowd = one.crowd[known]
        other = _uncounted(one, sizes)[known]
        boxes[row] = (~other).sum()
        hit, skipped = _match(one.shared[np.ix_(said, known)], other, crowd)
        outside = (one.area[said] < sizes[0]) | (one.area[said] > sizes[1])
        rows.append(np.full(len(said), row))
        sure.append(one.score[said])
        right.append(hit & ~skipped)
        aside.append(skipped | (~hit & outside))
    order = np.argsort(-np.concatenate(sure), kind="stable")
    return Matched(np.concatenate(rows)[order], np.concatenate(right, axis=1)[:, order],
                   np.concatenate(aside, axis=1)[:, order], boxes)  # fmt: skip


def _match(shared: np.ndarray, other: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which detections find a box, and which find one that does not count, [thresholds, detections] each."""
    hit = np.zeros((len(THRESHOLDS), len(shared)), bool)
    skipped = hit.copy()
    if not shared.size:
        return hit, skipped
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(other), bool)
        for d in np.flatnonzero(shared.max(axis=1) >= threshold):
            # One that counts comes first, even where one that does not overlaps more. Of equals the last, as in COCOeval.
            for which in (~other, other):
                able = np.where(free & which, shared[d], -1.0)
                g = len(able) - 1 - int(able[::-1].argmax())
                if able[g] >= threshold:
                    free[g], hit[t, d], skipped[t, d] = bool(crowd[g]), True, bool(other[g])
                    break
    return hit, skipped


def _precision(one: Matched, weights: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Average precision [samples, wanted] of a class."""
    total = weights @ one.boxes
    drawn = weights[:, one.rows]
    result = np.zeros((len(weights), len(wanted)))
    places = np.linspace(0, 1, RECALLS)
    for place, t in enumerate(map(THRESHOLDS.index, wanted)):
        hits = np.flatnonzero(one.right[t])
        if not len(hits):
            continue
        said = np.cumsum(drawn * ~one.aside[t], axis=1)[:, hits]
        right = np.cumsum(drawn[:, hits], axis=1)
        precision = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = np.divide(right, total[:, None], out=np.zeros_like(right), where=total[:, None] > 0)
        reached = np.searchsorted(places, recall, side="right") * (recall > 0)
        step = np.diff(reached, axis=1, prepend=0)
        result[:, place] = (best * step).sum(axis=1) / RECALLS
    result[total == 0] = np.nan
    return result


def _mean(classes: Sequence[Matched], wanted: Sequence[float], weights: np.ndarray) -> np.ndarray:
    return _known_mean(precisions(classes, weights, wanted).reshape(len(weights), -1))


def _recall(classes: Sequence[Matched], weights: np.ndarray) -> np.ndarray:
    made = []
    for one in classes:
        total = (weights @ one.boxes)[:, None]
        right = weights[:, one.rows] @ one.right.T.astype(float)
        made.append(np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0))
    return _known_mean(np.concatenate(made, axis=1) if made else np.full((len(weights), 1), np.nan))


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the columns that are known; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
