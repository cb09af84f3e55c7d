"""Scores of class maps as functions of row weights: IoU, Dice and accuracies over the pixels of the drawn pictures.

They need three counts of every picture and class only (right pixels, expected pixels, predicted pixels), which add up
over pictures, so that drawing pictures anew is exact. A class that is neither expected nor predicted among the drawn
pictures counts for no mean, as in the COCO-Stuff and ADE20K benchmarks (Long et al. 2015, arXiv 1411.4038).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Weighted = Callable[[Any], Any]
"""A score as a function of row weights, [samples, rows] → [samples]."""


def tallies(pairs: Iterable[tuple[Any, Any]], classes: int) -> tuple[Any, Any, Any]:
    """Right, expected and predicted pixels int64 [pictures, classes] each, of pairs of class maps (expected, predicted).

    Expected ids below 0 are ignored: their pixels count nowhere. Raises ValueError for maps of two sizes.
    """
    made = []
    for pair in pairs:
        together = _together(*pair, classes)
        made.append([together.diagonal().copy(), together.sum(axis=1), together.sum(axis=0)])
    counts = np.array(made, np.int64).reshape(-1, 3, classes)
    return counts[:, 0], counts[:, 1], counts[:, 2]


def confusion(pairs: Iterable[tuple[Any, Any]], classes: int) -> Any:
    """Pixels int64 [expected, predicted] over all pairs of class maps; ids below 0 count nowhere."""
    return sum((_together(*pair, classes) for pair in pairs), np.zeros((classes, classes), np.int64))


def _together(expected: Any, predicted: Any, classes: int) -> Any:
    """Pixels int64 [expected, predicted] of one pair of class maps."""
    if expected.shape != predicted.shape:
        raise ValueError(f"a mask of {expected.shape} against an answer of {predicted.shape}")
    both = expected.astype(np.int32) * classes + predicted.astype(np.int32)
    covered = expected >= 0
    counted = both if covered.all() else both[covered]
    return np.bincount(counted.ravel(), minlength=classes**2).reshape(classes, classes)


def scores(right: Any, expected: Any, given: Any) -> dict[str, Weighted]:
    """Mean IoU, mean Dice, mean accuracy of classes, and the share of right pixels, from `tallies`."""
    sums = [np.asarray(one, np.float64) for one in (right, expected, given)]

    def drawn(weights: Any) -> list[Any]:
        return [weights @ one for one in sums]

    def mean_iou(weights: Any) -> Any:
        hits, truth, said = drawn(weights)
        return _mean(hits, truth + said - hits)

    def mean_dice(weights: Any) -> Any:
        hits, truth, said = drawn(weights)
        return _mean(2 * hits, truth + said)

    def mean_accuracy(weights: Any) -> Any:
        hits, truth, _ = drawn(weights)
        return _mean(hits, truth)

    def pixel_accuracy(weights: Any) -> Any:
        hits, truth, _ = drawn(weights)
        with np.errstate(invalid="ignore"):
            return hits.sum(axis=1) / truth.sum(axis=1)

    return {"mean_iou": mean_iou, "mean_dice": mean_dice, "mean_accuracy": mean_accuracy,
            "pixel_accuracy": pixel_accuracy}  # fmt: skip


def row_ious(right: Any, expected: Any, given: Any) -> Any:
    """Mean IoU [pictures] of each picture by itself, from `tallies`; NaN where nothing counts."""
    hits, truth, said = (np.asarray(one, np.float64) for one in (right, expected, given))
    return _mean(hits, truth + said - hits)


def per_class(right: Any, expected: Any, given: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """IoU, precision, recall, F1 and expected pixels (as "rows") of each class, most pixels first; None over nothing."""
    hits, truth, said = (np.asarray(one).sum(axis=0) for one in (right, expected, given))
    found = [
        {
            "name": name,
            "iou": _ratio(hits[k], truth[k] + said[k] - hits[k]),
            "precision": _ratio(hits[k], said[k]),
            "recall": _ratio(hits[k], truth[k]),
            "f1": _ratio(2 * hits[k], truth[k] + said[k]),
            "rows": int(truth[k]),
        }
        for k, name in enumerate(names)
    ]
    return sorted(found, key=lambda one: -int(one["rows"] or 0))


def _mean(above: Any, below: Any) -> Any:
    """The mean over classes [samples] of ratios [samples, classes] where there is something below."""
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    with np.errstate(invalid="ignore"):
        return ratios.sum(axis=1) / there.sum(axis=1)


def _ratio(above: Any, below: Any) -> float | None:
    return float(above / below) if below else None
