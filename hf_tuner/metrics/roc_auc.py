"""roc_auc: area under the ROC curve, from scores (scikit-learn's `roc_auc_score`).

The chance that a random row of a class scores higher than a random row of the others. With more than two classes or
several labels: one class against the rest, and the mean over classes that have rows on both sides.
"""

from typing import Any

from sklearn.metrics import roc_auc_score

from hf_tuner.metrics._base import SCORES, ArrayMetric, arrays, mean_over_classes, one_column_each


def compute(predictions: Any, references: Any) -> float:
    """Area, 0 to 1; NaN when no class has rows on both sides.

    `predictions`: scores of class 1 [rows], or scores [rows, classes] (probabilities when there are more than two
    classes, so that rows can be compared). `references`: class ids [rows] or 0/1 [rows, labels].
    """
    scores, truth = one_column_each(*arrays(predictions, references))
    positives = truth.sum(axis=0)
    return mean_over_classes(scores, truth, roc_auc_score, (positives > 0) & (positives < len(truth)))


class Metric(ArrayMetric):
    """Area under the ROC curve as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = SCORES
    text = "Area under the ROC curve: two classes, or one against the rest and the mean over classes."
