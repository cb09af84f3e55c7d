"""spearman: how well predicted numbers keep the order of the right ones (scipy's `spearmanr`)."""

from typing import Any

from scipy.stats import spearmanr

from hf_tuner.metrics._base import NUMBERS, ArrayMetric, numbers


def compute(predictions: Any, references: Any) -> float:
    """Spearman correlation, -1 to 1, of numbers [rows]; NaN when either side is constant or has fewer than two rows."""
    left, right = numbers(predictions, references)
    if len(left) < 2 or not left.std() or not right.std():
        return float("nan")
    return float(spearmanr(left, right).statistic)


class Metric(ArrayMetric):
    """Spearman correlation as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = NUMBERS
    text = "Spearman correlation of predicted and right numbers."
