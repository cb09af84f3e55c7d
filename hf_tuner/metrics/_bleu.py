"""BLEU and chrF as functions of row weights, from sacrebleu's own counts per row.

Both are ratios of sums over rows, so a bootstrap sample is one matrix product. At weights of one the values are those
of `sacrebleu.corpus_bleu` and `corpus_chrf` (Post 2018; Papineni et al. 2002; Popović 2015).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Weighted = Callable[[np.ndarray], np.ndarray]

ORDER = 4
"""Longest n-gram of BLEU."""
CHARACTERS = 6
"""Longest character n-gram of chrF."""
BETA = 2.0
"""How many times more chrF minds recall than precision."""
TOKENIZERS = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}
"""How text of a language is split for BLEU where words stand without spaces; 13a for the others."""


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]], language: str = "") -> Weighted:
    """Corpus BLEU, 0 to 100, of texts [rows] against one or several references a row; smoothed as sacrebleu does (exp).

    `language` is the target's code: it decides how text is split (see `tokenizer`).
    """
    from sacrebleu.metrics import BLEU

    counts = _counts(BLEU(tokenize=tokenizer(language), force=True), texts, references)
    return lambda weights: _bleu(weights @ counts)


def chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Weighted:
    """Corpus chrF, 0 to 100, of texts [rows] against one or several references a row."""
    from sacrebleu.metrics import CHRF

    counts = _counts(CHRF(), texts, references)
    return lambda weights: _chrf(weights @ counts)


def tokenizer(language: str) -> str:
    """sacrebleu's tokenizer for a language code such as en or zh_CN: 13a, zh, or single characters."""
    return TOKENIZERS.get(language.replace("-", "_").partition("_")[0].lower(), "13a")


def _counts(metric: Any, texts: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """sacrebleu's statistics of every row, float64 [rows, statistics]."""
    rows = []
    for text, known in zip(texts, references, strict=True):
        wanted = [metric._preprocess_segment(one) for one in known]
        got = metric._preprocess_segment(text)
        rows.append(metric._compute_segment_statistics(got, metric._extract_reference_info(wanted)))
    return np.asarray(rows, np.float64)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU [samples] of summed statistics [samples, lengths of text and reference, matches and totals of n = 1 … 4]."""
    length, wanted = sums[:, 0], sums[:, 1]
    matches, totals = sums[:, 2 : 2 + ORDER], sums[:, 2 + ORDER :]
    halved = np.cumsum(matches == 0, axis=1)  # each order without a match counts half of the one before
    smoothed = np.where(matches > 0, matches, 1 / 2.0**halved)
    precision = np.divide(100 * smoothed, totals, out=np.zeros_like(totals), where=totals > 0)
    logs = np.log(precision, out=np.full_like(precision, -np.inf), where=precision > 0).mean(axis=1)
    ratio = np.divide(wanted, length, out=np.full_like(length, np.inf), where=length > 0)
    brevity = np.where(length < wanted, np.exp(1 - ratio), 1.0)
    return np.where(matches.any(axis=1), brevity * np.exp(logs), 0.0)


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF [samples] of summed statistics [samples, n-grams of text, of reference, in both, for n = 1 … 6]."""
    given, wanted, both = (sums[:, first::3] for first in range(3))
    known = (given > 0) & (wanted > 0)
    orders = np.maximum(known.sum(axis=1), 1)
    precision = np.divide(both, given, out=np.zeros_like(both), where=known).sum(axis=1) / orders
    recall = np.divide(both, wanted, out=np.zeros_like(both), where=known).sum(axis=1) / orders
    top, bottom = (1 + BETA**2) * precision * recall, BETA**2 * precision + recall
    return 100 * np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
