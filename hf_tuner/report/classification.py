"""What the page shows of a classifier or a regressor: classes, confusions, calibration, the worst answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
POINTS = 2000
"""Points of a scatter plot at most."""


def describe(
    problem: str, logits: Any, references: Any, names: Sequence[str], texts: Sequence[str] = ()
) -> dict[str, Any]:
    """The page's details of one split's answers: per_class, confusion, calibration, scatter, errors (what applies).

    `logits` [rows, classes] (numbers: [rows] or [rows, 1]); `references` as in `per_class`; `problem` is single,
    multi or regression.
    """
    errors = {"errors": worst_errors(texts, logits, references, names)} if len(texts) else {}
    if problem == "regression":
        return {"scatter": scatter(logits, references), **errors}
    each = {"per_class": per_class(logits, references, names)}
    if problem == "multi":
        return {**each, **errors}
    pairs = {"confusion": confusion(logits, references, names), "calibration": calibration(logits, references)}
    return {**each, **pairs, **errors}


def per_class(logits: Any, references: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and rows of each class, most rows first.

    `references` are class ids [rows], or 0/1 [rows, classes] for several labels (decided at probability 0.5).
    A ratio over nothing is None.
    """
    truth, predicted = _decisions(np.asarray(logits), np.asarray(references))
    hits, expected, given = (truth & predicted).sum(0), truth.sum(0), predicted.sum(0)
    result = [
        {
            "name": names[k],
            "precision": _ratio(hits[k], given[k]),
            "recall": _ratio(hits[k], expected[k]),
            "f1": _ratio(2 * hits[k], expected[k] + given[k]),
            "rows": int(expected[k]),
        }
        for k in range(len(names))
    ]
    return sorted(result, key=lambda c: -c["rows"])


def confusion(logits: Any, references: Any, names: Sequence[str]) -> dict[str, Any]:
    """Counts [expected, predicted] of class ids [rows], with the classes' names."""
    best = np.asarray(logits).argmax(axis=1)
    cells = np.asarray(references, np.int64) * len(names) + best
    matrix = np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), len(names))
    return {"matrix": matrix.tolist(), "names": list(names)}


def calibration(logits: Any, references: Any) -> list[dict[str, Any]]:
    """Mean confidence, accuracy and rows of each of 15 bins of confidence that holds rows."""
    probabilities = _softmax(logits)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(references)
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(correct[index == b].mean()),
            "rows": int((index == b).sum()),
        }
        for b in np.unique(index)
    ]


def scatter(logits: Any, references: Any) -> dict[str, list[float]]:
    """True and predicted numbers of at most 2,000 rows, evenly spaced over the split: {"true", "predicted"}."""
    given, expected = np.ravel(np.asarray(logits, float)), np.ravel(np.asarray(references, float))
    keep = np.unique(np.linspace(0, len(given) - 1, min(POINTS, len(given))).astype(int))
    return {"true": expected[keep].tolist(), "predicted": given[keep].tolist()}


def worst_errors(
    texts: Sequence[str], logits: Any, references: Any, names: Sequence[str], count: int = 20
) -> list[dict[str, Any]]:
    """The worst answers, worst first: {"text", "expected", "predicted", "score"}.

    One label: wrong answers by the confidence in them. Several: wrong sets of labels by their log loss. Numbers (no
    names): by distance. Label errors in the data often stand on top of this list.
    """
    values, right = np.asarray(logits, np.float64), np.asarray(references)
    if not len(names):
        return _worst_numbers(texts, np.ravel(values), np.ravel(right).astype(float), count)
    truth, predicted = _decisions(values, right)
    wrong = np.flatnonzero((truth != predicted).any(axis=1))
    if right.ndim == 1:
        score = _softmax(values).max(axis=1)
    else:
        score = np.logaddexp(0, np.where(truth, -values, values)).sum(axis=1)
    worst = wrong[np.argsort(-score[wrong], kind="stable")][:count]
    return [
        {
            "text": str(texts[i]),
            "expected": _named(truth[i], names),
            "predicted": _named(predicted[i], names),
            "score": float(score[i]),
        }
        for i in worst
    ]


def _worst_numbers(texts: Sequence[str], given: np.ndarray, expected: np.ndarray, count: int) -> list[dict[str, Any]]:
    distance = np.abs(given - expected)
    return [
        {
            "text": str(texts[i]),
            "expected": float(expected[i]),
            "predicted": float(given[i]),
            "score": float(distance[i]),
        }
        for i in map(int, np.argsort(-distance, kind="stable")[:count])
    ]


def _decisions(logits: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected and predicted classes, both bool [rows, classes]."""
    if references.ndim == 2:
        return references.astype(bool), logits > 0
    classes = np.arange(logits.shape[1])
    return references[:, None] == classes, logits.argmax(axis=1)[:, None] == classes


def _named(chosen: np.ndarray, names: Sequence[str]) -> str:
    return ", ".join(names[int(k)] for k in np.flatnonzero(chosen)) or "(none)"


def _ratio(top: int, bottom: int) -> float | None:
    return float(top / bottom) if bottom else None


def _softmax(logits: Any) -> np.ndarray:
    values = np.asarray(logits, np.float64)
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
