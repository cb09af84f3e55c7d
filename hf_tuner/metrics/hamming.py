"""hamming: share of single labels that are wrong; lower is better (scikit-learn's `hamming_loss`)."""

from typing import Any

from sklearn.metrics import hamming_loss

from hf_tuner.metrics._base import SETS, ArrayMetric, same_shape


def compute(predictions: Any, references: Any) -> float:
    """Hamming loss, 0 to 1, of 0/1 rows [rows, labels]."""
    left, right = same_shape(predictions, references)
    return float(hamming_loss(right, left))


class Metric(ArrayMetric):
    """Hamming loss as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = SETS
    text = "Share of single labels that are wrong; lower is better."
