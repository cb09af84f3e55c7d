"""mae: mean absolute error of predicted numbers; lower is better (scikit-learn's `mean_absolute_error`)."""

from typing import Any

from sklearn.metrics import mean_absolute_error

from hf_tuner.metrics._base import NUMBERS, ArrayMetric, numbers


def compute(predictions: Any, references: Any) -> float:
    """Mean absolute error, 0 or more, of numbers [rows]."""
    left, right = numbers(predictions, references)
    return float(mean_absolute_error(right, left))


class Metric(ArrayMetric):
    """Mean absolute error as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = NUMBERS
    text = "Mean absolute error of predicted numbers; lower is better."
