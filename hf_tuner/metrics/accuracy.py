"""accuracy: share of rows whose predicted class is the right one (scikit-learn's `accuracy_score`)."""

from typing import Any

from sklearn.metrics import accuracy_score

from hf_tuner.metrics._base import LABELS, ArrayMetric, same_shape


def compute(predictions: Any, references: Any) -> float:
    """Share of equal classes, 0 to 1. Class ids or names [rows]; with 0/1 rows [rows, labels] all must be equal."""
    left, right = same_shape(predictions, references)
    return float(accuracy_score(right, left))


class Metric(ArrayMetric):
    """Accuracy as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = LABELS
    text = "Share of rows whose predicted class is the right one."
