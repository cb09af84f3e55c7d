"""average_precision: mean over labels of the average precision, for several labels per row.

AP = Σ (R_n − R_{n−1}) · P_n over the thresholds n, the area under the precision-recall curve without interpolation
(scikit-learn's `average_precision_score`). Labels without a positive row are left out.
"""

from typing import Any

from sklearn.metrics import average_precision_score

from hf_tuner.metrics._base import SCORES, ArrayMetric, arrays, mean_over_classes, one_column_each


def compute(predictions: Any, references: Any) -> float:
    """Macro average precision, 0 to 1, of scores [rows, labels] against 0/1 [rows, labels] (or class ids [rows]).

    NaN when no label has a positive row.
    """
    scores, truth = one_column_each(*arrays(predictions, references))
    return mean_over_classes(scores, truth, average_precision_score, truth.sum(axis=0) > 0)


class Metric(ArrayMetric):
    """Macro average precision as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = SCORES
    text = "Average precision, the mean over labels."
