"""Scores as functions of row weights [samples, rows] → [samples].

A weight says how often a row was drawn: a row of weight 2 counts as two equal rows. Written once for the score
itself (weights of one) and for all bootstrap samples at a time. Formulas are scikit-learn's and scipy's, checked
against them in the tests; F1 averages over classes that are expected or predicted among the drawn rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Weighted = Callable[[np.ndarray], np.ndarray]

NAMES = {
    "single": ("accuracy", "macro_f1", "weighted_f1", "mcc", "log_loss", "calibration_error"),
    "multi": ("micro_f1", "macro_f1", "subset_accuracy", "average_precision", "roc_auc"),
    "regression": ("pearson", "spearman", "mse", "mae"),
}
RANKING = (
    "average_precision",
    "roc_auc",
    "spearman",
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "cider",
)
BINS = 15


def scores(problem: str, logits: np.ndarray, references: np.ndarray) -> tuple[dict[str, Weighted], dict[str, str]]:
    """Every score of a problem, headline first, and notes on those that leave something out.

    `logits` float64 [rows, classes], or [rows] for numbers. Raises ValueError when references don't fit.
    """
    if problem == "regression":
        return _regression(_column(logits), _column(references.astype(np.float64)))
    if problem == "multi":
        if references.shape != logits.shape:
            raise ValueError(f"references must be 0/1 {list(logits.shape)}; found {list(references.shape)}")
        return _multi(logits, references.astype(bool))
    if references.ndim != 1 or references.min() < 0 or references.max() >= logits.shape[1]:
        raise ValueError(f"references must be class ids 0 … {logits.shape[1] - 1} [rows]")
    return _single(logits, references.astype(np.int64))


def mean(values: np.ndarray) -> Weighted:
    """Mean of one number per row [rows]."""
    numbers = np.asarray(values, np.float64)
    return lambda weights: weights @ numbers / weights.sum(axis=1)


def f1(truth: np.ndarray, predicted: np.ndarray, average: str) -> Weighted:
    """F1 of 0/1 [rows, classes] against 0/1 [rows, classes]: macro, micro or weighted by rows."""
    both, expected, given = (a.astype(np.float64) for a in (truth & predicted, truth, predicted))
    if average == "micro":
        both, expected, given = (a.sum(axis=1, keepdims=True) for a in (both, expected, given))

    def score(weights: np.ndarray) -> np.ndarray:
        hits, support, named = weights @ both, weights @ expected, weights @ given
        each = _ratio(2 * hits, support + named)
        if average == "weighted":
            return _ratio((np.nan_to_num(each) * support).sum(axis=1), support.sum(axis=1))
        return _mean_of_known(each)

    return score


def mcc(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    """Matthews correlation for any number of classes (Gorodkin 2004), of one-hot [rows, classes]; 0 when constant."""
    correct = (truth & predicted).any(axis=1).astype(np.float64)
    expected, given = truth.astype(np.float64), predicted.astype(np.float64)

    def score(weights: np.ndarray) -> np.ndarray:
        rows, hits = weights.sum(axis=1), weights @ correct
        t, p = weights @ expected, weights @ given
        covariance = hits * rows - (t * p).sum(axis=1)
        spread = (rows**2 - (t**2).sum(axis=1)) * (rows**2 - (p**2).sum(axis=1))
        return np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1)), 0.0)

    return score


def calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> Weighted:
    """Expected calibration error in 15 bins (Guo et al. 2017) of probabilities [rows, classes]."""
    confidence = probabilities.max(axis=1)
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.zeros((len(confidence), BINS))
    gap[np.arange(len(confidence)), index] = confidence - correct
    return lambda weights: np.abs(weights @ gap).sum(axis=1) / weights.sum(axis=1)


def roc_auc(values: np.ndarray, truth: np.ndarray) -> Weighted:
    """Area under the ROC curve, the mean over columns of values and truth [rows, columns]; ties count half."""
    columns = [_Ranked(values[:, k], truth[:, k]) for k in range(values.shape[1])]

    def one(column: _Ranked, weights: np.ndarray) -> np.ndarray:
        hits, misses = column.split(weights)
        below = np.cumsum(misses, axis=1) - misses / 2
        return _ratio((hits * below).sum(axis=1), hits.sum(axis=1) * misses.sum(axis=1))

    return lambda weights: _mean_of_known(np.stack([one(c, weights) for c in columns], axis=1))


def average_precision(values: np.ndarray, truth: np.ndarray) -> Weighted:
    """Average precision, the mean over columns of values and truth [rows, columns] that have a positive row."""
    columns = [_Ranked(-values[:, k], truth[:, k]) for k in range(values.shape[1])]

    def one(column: _Ranked, weights: np.ndarray) -> np.ndarray:
        hits, misses = column.split(weights)
        found = np.cumsum(hits, axis=1)
        precision = np.divide(found, found + np.cumsum(misses, axis=1), out=np.zeros_like(found), where=found > 0)
        return _ratio((hits * precision).sum(axis=1), found[:, -1])

    return lambda weights: _mean_of_known(np.stack([one(c, weights) for c in columns], axis=1))


def pearson(left: np.ndarray, right: np.ndarray) -> Weighted:
    """Pearson correlation of numbers [rows]; NaN when one side is constant."""
    x, y = left - left.mean(), right - right.mean()
    moments = np.stack([x, y, x * x, y * y, x * y], axis=1)

    def score(weights: np.ndarray) -> np.ndarray:
        mx, my, xx, yy, xy = (weights @ moments / weights.sum(axis=1, keepdims=True)).T
        return _correlation(xy - mx * my, xx - mx * mx, yy - my * my)

    return score


def spearman(left: np.ndarray, right: np.ndarray) -> Weighted:
    """Spearman correlation of numbers [rows]: Pearson's of the ranks among the drawn rows, ties sharing theirs."""
    orders = [np.unique(side, return_inverse=True)[1] for side in (left, right)]

    def score(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1, keepdims=True)
        x, y = (_ranks(order, weights) - (total + 1) / 2 for order in orders)
        return _correlation(*((weights * a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y))))

    return score


class _Ranked:
    """A column's rows sorted by value, with rows of equal value as one step."""

    def __init__(self, values: np.ndarray, truth: np.ndarray) -> None:
        self.order = np.argsort(values, kind="stable")
        steps = np.flatnonzero(np.diff(values[self.order], prepend=-np.inf) > 0)
        self.starts = steps if len(steps) < len(values) else None
        self.truth = truth[self.order].astype(np.float64)

    def split(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of positive and of negative rows at each step, both [samples, steps], smallest value first."""
        drawn = weights[:, self.order]
        hits = drawn * self.truth
        if self.starts is None:
            return hits, drawn - hits
        hits, drawn = np.add.reduceat(hits, self.starts, axis=1), np.add.reduceat(drawn, self.starts, axis=1)
        return hits, drawn - hits


def _ranks(steps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank [samples, rows] of each row among the drawn ones, from its step number [rows]."""
    order = np.argsort(steps, kind="stable")
    at_step = np.add.reduceat(weights[:, order], np.flatnonzero(np.diff(steps[order], prepend=-1)), axis=1)
    return (np.cumsum(at_step, axis=1) - (at_step - 1) / 2)[:, steps]


def _single(logits: np.ndarray, references: np.ndarray) -> tuple[dict[str, Weighted], dict[str, str]]:
    rows, classes = np.arange(len(logits)), logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    best = logits.argmax(axis=1)
    truth, predicted = (ids[:, None] == np.arange(classes) for ids in (references, best))
    result = {
        "accuracy": mean(best == references),
        "macro_f1": f1(truth, predicted, "macro"),
        "weighted_f1": f1(truth, predicted, "weighted"),
        "mcc": mcc(truth, predicted),
        "log_loss": mean(-logs[rows, references]),
        "calibration_error": calibration_error(np.exp(logs), best == references),
    }
    notes = {}
    if classes == 2:
        result["roc_auc"] = roc_auc((logits[:, 1] - logits[:, 0])[:, None], truth[:, 1:])
        notes["roc_auc"] = "all rows are of one class" if truth.all(axis=0).any() else ""
    notes["macro_f1"] = _left_out(~(truth | predicted).any(axis=0), "classes", "are neither expected nor predicted")
    return result, {name: note for name, note in notes.items() if note}


def _multi(logits: np.ndarray, truth: np.ndarray) -> tuple[dict[str, Weighted], dict[str, str]]:
    predicted = logits > 0
    result = {
        "micro_f1": f1(truth, predicted, "micro"),
        "macro_f1": f1(truth, predicted, "macro"),
        "subset_accuracy": mean((predicted == truth).all(axis=1)),
        "average_precision": average_precision(logits, truth),
        "roc_auc": roc_auc(logits, truth),
    }
    empty, full = ~truth.any(axis=0), truth.all(axis=0)
    notes = {
        "macro_f1": _left_out(empty & ~predicted.any(axis=0), "labels", "are neither expected nor predicted"),
        "average_precision": _left_out(empty, "labels", "have no positive row"),
        "roc_auc": _left_out(empty | full, "labels", "have rows on one side only"),
    }
    return result, {name: note for name, note in notes.items() if note}


def _regression(predicted: np.ndarray, expected: np.ndarray) -> tuple[dict[str, Weighted], dict[str, str]]:
    result = {
        "pearson": pearson(predicted, expected),
        "spearman": spearman(predicted, expected),
        "mse": mean((predicted - expected) ** 2),
        "mae": mean(np.abs(predicted - expected)),
    }
    constant = [name for name, side in (("predictions", predicted), ("references", expected)) if np.ptp(side) == 0]
    note = f"{' and '.join(constant)} are all the same number"
    return result, dict.fromkeys(("pearson", "spearman"), note) if constant else {}


def _left_out(who: Any, what: str, why: str) -> str:
    """A note on classes [classes] that a mean leaves out; empty when there are none."""
    return f"{int(who.sum())} of {len(who)} {what} {why} and are left out" if who.any() else ""


def _column(values: np.ndarray) -> np.ndarray:
    if values.ndim > 1 and values.size != len(values):
        raise ValueError(f"regression has one number for each row; found the shape {list(values.shape)}")
    return values.reshape(len(values))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def _correlation(covariance: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    spread = np.sqrt(np.maximum(left, 0)) * np.sqrt(np.maximum(right, 0))
    return np.clip(_ratio(covariance, np.where(spread > 1e-15, spread, 0.0)), -1, 1)
