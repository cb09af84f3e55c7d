"""CIDEr-D as a function of row weights (Vedantam, Zitnick and Parikh 2015, arXiv 1411.5726).

How alike a text and its references are in runs of one to four words, those that few rows share counting most. A drawn
sample has its own shares of rows: everything in the score but they is a sum over runs of words of a number times the square
of the run's weight, so that a bootstrap sample is a few products with sparse matrices.

As the authors' code has it: no stemming, the cosine of clipped counts, texts of another length than their reference marked
down (sigma 6), times ten; 10 for texts that equal their only reference.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from hf_tuner.metrics._rouge import WORDS

Weighted = Callable[[np.ndarray], np.ndarray]

ORDER = 4
"""Longest run of words."""
SIGMA = 6.0
"""Words by which a text may differ in length before it is marked down much."""
FACTOR = 10.0
CELLS = 4_000_000
"""Numbers held at once, samples × runs of words."""
ALONE = "which words are rare is known from the other rows: one row tells nothing"


def cider(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Weighted:
    """Mean CIDEr-D, 0 to 10, of texts [rows] against one or several references a row; NaN where one row is drawn alone."""
    orders, owners = _prepared(texts, references)

    def score(weights: np.ndarray) -> np.ndarray:
        rows = np.zeros(weights.shape)
        for order in orders:
            rows += order.rows(weights, owners) / ORDER
        several = (weights > 0).sum(axis=1) > 1
        total = (weights * rows).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
        return np.where(several, FACTOR * total, np.nan)

    return score


def cider_of_rows(texts: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D, 0 to 10, of every row [rows]."""
    orders, owners = _prepared(texts, references)
    once = np.ones((1, len(texts)))
    return FACTOR * sum((order.rows(once, owners)[0] for order in orders), np.zeros(len(texts))) / ORDER


def words_of(text: str) -> list[str]:
    """Words in lower case, without what stands between them; Chinese and Japanese by the character."""
    return WORDS.findall(text.lower())


class _Order:
    """Runs of `length` words: in which rows' references each stands, and how often in both texts of every pair."""

    def __init__(self, length: int, texts: list[list[str]], known: list[list[list[str]]], decay: np.ndarray) -> None:
        given = [_runs(words, length) for words in texts]
        wanted = [[_runs(words, length) for words in row] for row in known]
        names = {run for row in wanted for one in row for run in one} | {run for one in given for run in one}
        self.number = {run: place for place, run in enumerate(sorted(names))}
        self.decay = decay
        self.stands = self._matrix({run: 1 for one in row for run in one} for row in wanted)
        pairs = [(mine, one) for mine, row in zip(given, wanted, strict=True) for one in row]
        self.both = self._matrix({run: min(n, one[run]) * one[run] for run, n in mine.items() if run in one}
                                 for mine, one in pairs).T  # fmt: skip
        self.left, self.right = (
            self._matrix({run: n * n for run, n in pair[side].items()} for pair in pairs).T for side in (0, 1)
        )

    def rows(self, weights: np.ndarray, owners: Any) -> np.ndarray:
        """Means over each row's references [samples, rows] of the likeness of runs, for some samples at a time."""
        step = max(1, CELLS // max(1, len(self.number)))
        return np.concatenate([self._some(weights[i : i + step], owners) for i in range(0, len(weights), step)])

    def _some(self, weights: np.ndarray, owners: Any) -> np.ndarray:
        shares = np.log(np.maximum(weights @ self.stands, 1))
        rare = np.square(np.log(weights.sum(axis=1, keepdims=True)) - shares)
        norms = np.sqrt((rare @ self.left) * (rare @ self.right))
        alike = np.divide(rare @ self.both, norms, out=np.zeros_like(norms), where=norms > 0)
        return np.asarray((alike * self.decay) @ owners)

    def _matrix(self, rows: Iterable[dict[tuple[str, ...], int]]) -> Any:
        """Counts by run as a sparse matrix [rows, runs]."""
        values: list[float] = []
        places: list[int] = []
        ends = [0]
        for row in rows:
            places += [self.number[run] for run in row]
            values += row.values()
            ends.append(len(places))
        return csr_matrix((np.array(values, np.float64), places, ends), (len(ends) - 1, len(self.number)))


def _prepared(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[_Order], Any]:
    """The runs of each length, and which row each pair of text and reference belongs to, as means [pairs, rows]."""
    mine, known = [words_of(text) for text in texts], [[words_of(one) for one in row] for row in references]
    apart = np.array([len(a) - len(b) for a, row in zip(mine, known, strict=True) for b in row], np.float64)
    decay = np.exp(-np.square(apart) / (2 * SIGMA**2))
    row_of = np.repeat(np.arange(len(known)), [len(row) for row in known])
    shares = np.concatenate([np.full(len(row), 1 / len(row)) for row in known])
    owners = csr_matrix((shares, (np.arange(len(row_of)), row_of)), (len(row_of), len(known)))
    return [_Order(length, mine, known, decay) for length in range(1, ORDER + 1)], owners


def _runs(words: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))
