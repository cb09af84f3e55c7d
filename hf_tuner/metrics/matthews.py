"""matthews: Matthews correlation coefficient of predicted and right classes.

The correlation of the confusion matrix for any number of classes (Gorodkin 2004), as in scikit-learn's
`matthews_corrcoef`: 1 is perfect, 0 what chance or a constant answer gives, whatever the class sizes.
"""

from typing import Any

from sklearn.metrics import matthews_corrcoef

from hf_tuner.metrics._base import WHOLE, WORD, ArrayMetric, same_shape


def compute(predictions: Any, references: Any) -> float:
    """Matthews correlation, -1 to 1, of class ids or names [rows]; 0 when either side is constant."""
    left, right = same_shape(predictions, references)
    return float(matthews_corrcoef(right, left))


class Metric(ArrayMetric):
    """Matthews correlation as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = ((WHOLE, WHOLE), (WORD, WORD))
    text = "Matthews correlation of predicted and right classes."
