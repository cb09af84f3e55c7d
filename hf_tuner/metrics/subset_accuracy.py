"""subset_accuracy: share of rows whose whole set of labels is right (scikit-learn's `accuracy_score`)."""

from typing import Any

from sklearn.metrics import accuracy_score

from hf_tuner.metrics._base import SETS, ArrayMetric, same_shape


def compute(predictions: Any, references: Any) -> float:
    """Share of rows of 0/1 [rows, labels] that are equal in every label, 0 to 1."""
    left, right = same_shape(predictions, references)
    return float(accuracy_score(right, left))


class Metric(ArrayMetric):
    """Subset accuracy as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = SETS
    text = "Share of rows whose whole set of labels is right."
