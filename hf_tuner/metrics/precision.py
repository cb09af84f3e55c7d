"""precision: share of the rows given to a class that belong to it, averaged over classes.

TP / (TP + FP), as in scikit-learn's `precision_score`.
"""

from typing import Any

from sklearn.metrics import precision_score

from hf_tuner.metrics._base import LABELS, ArrayMetric, average_of, same_shape


def compute(predictions: Any, references: Any, average: str = "macro") -> float:
    """Precision of class ids or names [rows], or of 0/1 rows [rows, labels], 0 to 1.

    `average`: macro (every class counts the same), micro (every decision counts the same), weighted (classes count
    by their rows), binary (class 1 alone). A class never predicted counts as 0.
    Raises UsageError for another average.
    """
    left, right = same_shape(predictions, references)
    return float(precision_score(right, left, average=average_of(average), zero_division=0.0))


class Metric(ArrayMetric):
    """Precision as an `evaluate.Metric`; `Metric(average="micro")` chooses the average."""

    score = staticmethod(compute)
    formats = LABELS
    text = "Precision, averaged over classes (average: macro, micro, weighted or binary)."
