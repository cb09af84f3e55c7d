"""recall: share of a class's rows that were found, averaged over classes.

TP / (TP + FN), as in scikit-learn's `recall_score`.
"""

from typing import Any

from sklearn.metrics import recall_score

from hf_tuner.metrics._base import LABELS, ArrayMetric, average_of, same_shape


def compute(predictions: Any, references: Any, average: str = "macro") -> float:
    """Recall of class ids or names [rows], or of 0/1 rows [rows, labels], 0 to 1.

    `average`: macro (every class counts the same), micro (every decision counts the same), weighted (classes count
    by their rows), binary (class 1 alone). A class without rows counts as 0.
    Raises UsageError for another average.
    """
    left, right = same_shape(predictions, references)
    return float(recall_score(right, left, average=average_of(average), zero_division=0.0))


class Metric(ArrayMetric):
    """Recall as an `evaluate.Metric`; `Metric(average="micro")` chooses the average."""

    score = staticmethod(compute)
    formats = LABELS
    text = "Recall, averaged over classes (average: macro, micro, weighted or binary)."
