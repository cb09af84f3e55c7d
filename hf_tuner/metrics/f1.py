"""f1: harmonic mean of precision and recall, averaged over classes.

F1 = 2·TP / (2·TP + FP + FN), as in scikit-learn's `f1_score`.
"""

from typing import Any

from sklearn.metrics import f1_score

from hf_tuner.metrics._base import LABELS, ArrayMetric, average_of, same_shape


def compute(predictions: Any, references: Any, average: str = "macro") -> float:
    """F1 of class ids or names [rows], or of 0/1 rows [rows, labels], 0 to 1.

    `average`: macro (every class counts the same), micro (every decision counts the same), weighted (classes count
    by their rows), binary (class 1 alone). A class that is neither expected nor predicted anywhere is left out.
    Raises UsageError for another average.
    """
    left, right = same_shape(predictions, references)
    undefined = 0.0 if average == "binary" else float("nan")
    return float(f1_score(right, left, average=average_of(average), zero_division=undefined))


class Metric(ArrayMetric):
    """F1 as an `evaluate.Metric`; `Metric(average="micro")` chooses the average."""

    score = staticmethod(compute)
    formats = LABELS
    text = "F1, averaged over classes (average: macro, micro, weighted or binary)."
