"""log_loss: mean of −ln of the probability given to the right class; lower is better (scikit-learn's `log_loss`)."""

from typing import Any

import numpy as np
from sklearn.metrics import log_loss

from hf_tuner.metrics._base import REAL, WHOLE, ArrayMetric, datasets, probabilities


def compute(predictions: Any, references: Any) -> float:
    """Log loss in nats, 0 or more, of probabilities [rows, classes] (or P(class 1) [rows]) and class ids [rows].

    Probabilities of 0 count as the smallest float. Raises UsageError when logits are given.
    """
    left, right = probabilities(predictions, references)
    left = left / left.sum(axis=1, keepdims=True)
    return float(log_loss(right, left, labels=np.arange(left.shape[1])))


class Metric(ArrayMetric):
    """Log loss as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = ((REAL, WHOLE), (datasets.Sequence(REAL), WHOLE))
    text = "Mean of -ln of the probability given to the right class; lower is better."
