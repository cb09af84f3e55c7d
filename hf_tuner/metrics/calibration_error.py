"""calibration_error: expected calibration error in 15 bins of equal width; lower is better.

ECE = Σ_b n_b/n · |accuracy(b) − confidence(b)| over bins of the highest probability (Guo et al. 2017,
arXiv 1706.04599): how far "90 % sure" is from being right nine times in ten.
"""

from typing import Any

import numpy as np

from hf_tuner.metrics._base import REAL, WHOLE, ArrayMetric, datasets, probabilities

BINS = 15


def compute(predictions: Any, references: Any, bins: int = BINS) -> float:
    """ECE, 0 to 1, of probabilities [rows, classes] (or P(class 1) [rows]) and class ids [rows].

    Bin b holds confidences in (b/bins, (b+1)/bins]. Raises UsageError when logits are given.
    """
    left, right = probabilities(predictions, references)
    confidence, correct = left.max(axis=1), left.argmax(axis=1) == right
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(index, confidence - correct, minlength=bins)).sum() / len(right))


class Metric(ArrayMetric):
    """Expected calibration error as an `evaluate.Metric`."""

    score = staticmethod(compute)
    formats = ((REAL, WHOLE), (datasets.Sequence(REAL), WHOLE))
    text = "Expected calibration error in 15 bins; lower is better."
