"""pearson: how well predicted and right numbers lie on a line (scipy's `pearsonr`)."""

from typing import Any

from scipy.stats import pearsonr

from hf_tuner.metrics._base import NUMBERS, ArrayMetric, numbers


def compute(predictions: Any, references: Any) -> float:
    """Pearson correlation, -1 to 1, of numbers [rows]; NaN when either side is constant or has fewer than two rows."""
    left, right = numbers(predictions, references)
    if len(left) < 2 or not left.std() or not right.std():
        return float("nan")
    return float(pearsonr(left, right).statistic)


class Metric(ArrayMetric):
    """Pearson correlation as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = NUMBERS
    text = "Pearson correlation of predicted and right numbers."
