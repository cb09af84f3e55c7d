"""mse: mean squared error of predicted numbers; lower is better (scikit-learn's `mean_squared_error`)."""

from typing import Any

from sklearn.metrics import mean_squared_error

from hf_tuner.metrics._base import NUMBERS, ArrayMetric, numbers


def compute(predictions: Any, references: Any) -> float:
    """Mean squared error, 0 or more, of numbers [rows]."""
    left, right = numbers(predictions, references)
    return float(mean_squared_error(right, left))


class Metric(ArrayMetric):
    """Mean squared error as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = NUMBERS
    text = "Mean squared error of predicted numbers; lower is better."
