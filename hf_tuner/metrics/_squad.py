"""Exact match and F1 of answers, as the official evaluation script of SQuAD 2.0 has them (Rajpurkar et al. 2018).

Answers are compared without case, punctuation, articles and extra spaces; the best of a question's answers counts. A
question without an answer is right when nothing is answered. Scores lie between 0 and 1.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = frozenset(string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space."""
    plain = "".join(character for character in text.lower() if character not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """1 when the answer is one of the expected ones (none: when it is empty), else 0."""
    return float(any(normalised(answer) == normalised(one) for one in _known(expected)))


def f1(answer: str, expected: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall of the answer's words over the expected ones."""
    return max(overlapping(normalised(answer).split(), normalised(one).split()) for one in _known(expected))


def best_threshold(differences: np.ndarray, answered: np.ndarray, impossible: np.ndarray) -> tuple[float, float]:
    """The threshold that gives the highest mean score when all above it are left without an answer, and that mean.

    `differences` [rows]: how much likelier no answer is than the best one; `answered` [rows]: the score of the best
    answer; `impossible` bool [rows]. The official script's `find_best_thresh`, with the threshold midway between rows.
    """
    order = np.argsort(differences, kind="stable")
    gain = np.where(impossible, -1.0, answered)[order]
    totals = impossible.sum() + np.concatenate([[0.0], np.cumsum(gain)])
    ordered = differences[order]
    # Rows that differ by nothing are cut together.
    allowed = np.concatenate([[True], np.diff(ordered) > 0, [True]])
    best = int(np.argmax(np.where(allowed, totals, -np.inf)))
    if best == 0:
        threshold = float(ordered[0]) - 1.0
    elif best == len(ordered):
        threshold = float(ordered[-1]) + 1.0
    else:
        threshold = float(ordered[best - 1] + ordered[best]) / 2
    return threshold, float(totals[best] / len(ordered))


def mean_over(values: np.ndarray, which: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The mean of values [rows] over the rows that `which` (0/1 [rows]) names; NaN where none is drawn."""

    def score(weights: np.ndarray) -> np.ndarray:
        bottom = weights @ which
        return np.divide(weights @ (values * which), bottom, out=np.full(len(bottom), np.nan), where=bottom > 0)

    return score


def _known(expected: Sequence[str]) -> list[str]:
    return [one for one in expected if normalised(one)] or [""]


def overlapping(given: list[str], wanted: list[str]) -> float:
    """F1 of two lists of words; 1 when both are empty."""
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted))
