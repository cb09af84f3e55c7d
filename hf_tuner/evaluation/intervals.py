"""Scores with intervals: the percentile bootstrap over rows, and tests that compare two models on the same rows.

Every score here is a function of row weights, [samples, rows] → [samples]: how often each row was drawn. Weights of
one give the score itself, drawn counts give its bootstrap, and a thousand samples are a few array operations
(Efron & Tibshirani 1993, chapter 13). The values are those of `hf_tuner.metrics`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hf_tuner.evaluation.loop import finite
from hf_tuner.metrics import _weighted as weighted
from hf_tuner.tasks._task import Measures

SAMPLES = 1000
LEVEL = 0.95
PROPORTIONS = {"accuracy", "subset_accuracy"}
"""Scores that are a share of the rows."""
CELLS = 2_000_000
"""Drawn counts held at once, samples × rows: 16 MB."""
BUDGET = 1e7
"""Array cells a ranking score may walk over; large data get fewer samples (but 200 or more)."""

Weighted = Callable[[np.ndarray], np.ndarray]
Interval = tuple[float, float, float]


def bootstrap(
    score: Callable[..., float],
    rows: tuple[np.ndarray, ...],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Value, low and high of `score(*arrays)` for any score, by drawing rows of all arrays together.

    Draws where the score is not finite are left out. Raises ValueError when there are no rows.
    """
    count = _rows(*rows)
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(0, count, count) for _ in range(samples)]
    return _interval(score(*rows), np.array([score(*(a[i] for a in rows)) for i in drawn], float), level)


def mean_interval(values: np.ndarray, *, samples: int = SAMPLES, seed: int = 0, level: float = LEVEL) -> Interval:
    """Value, low and high of the mean of one number per row [rows] (0/1 for accuracy, squared errors for mse)."""
    return weighted_bootstrap(weighted.mean(values), _rows(values), samples=samples, seed=seed, level=level)


def weighted_bootstrap(
    score: Weighted, rows: int, *, samples: int = SAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Value, low and high of a score that is a function of row weights [samples, rows] → [samples]."""
    drawn = [score(weights) for weights in draws(rows, samples, seed)]
    return _interval(float(score(np.ones((1, rows)))[0]), np.concatenate(drawn), level)


def draws(rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, float64 [some samples, rows], in parts that fit in memory."""
    generator = np.random.default_rng(seed)
    at_once = max(1, CELLS // rows)
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        index = generator.integers(0, rows, (size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(index.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def paired_bootstrap(
    correct_a: np.ndarray, correct_b: np.ndarray, *, samples: int = SAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Mean of a − b over the same rows, with its interval; a difference is clear when the interval leaves out 0.

    Both are one number per row [rows]: 0/1 for right answers, or any per-row score.
    Raises ValueError when the lengths differ.
    """
    _rows(correct_a, correct_b)
    difference = np.asarray(correct_a, np.float64) - np.asarray(correct_b, np.float64)
    return mean_interval(difference, samples=samples, seed=seed, level=level)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """p-value of the exact McNemar test: are rows that only one model gets right evenly shared?

    Both are booleans [rows]; a two-sided binomial test on the rows where they differ (McNemar 1947), 1 when there
    are none. Raises ValueError when the lengths differ.
    """
    from scipy.stats import binomtest

    _rows(correct_a, correct_b)
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def scores_with_intervals(
    problem: str, logits: np.ndarray, references: np.ndarray, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Every score of classified rows as `{name: {"value", "low", "high"}}`, headline first.

    `logits` [rows, classes] (regression: [rows] or [rows, 1]); `references` are class ids [rows] (single), 0/1
    [rows, classes] (multi, decided at probability 0.5) or numbers [rows] (regression). A number that is not finite
    is None, with the reason under "note". The calibration error of a drawn sample lies above that of the rows, so
    its interval leans upwards. Raises ValueError for an unknown problem or shapes that don't fit.
    """
    values = np.asarray(logits, np.float64)
    if problem not in weighted.NAMES:
        raise ValueError(f'problem "{problem}": expected one of {", ".join(weighted.NAMES)}')
    if unusable := _unusable(values):
        return {name: _nothing(unusable) for name in weighted.NAMES[problem]}
    rows = _rows(values, references)
    scores, notes = weighted.scores(problem, values, np.asarray(references))
    return with_intervals(Measures(scores, rows, notes),
                          cells=values.size, samples=samples, seed=seed)  # fmt: skip


def measured(task: Any, kept: list[np.ndarray], ready: Any, rows: Any) -> dict[str, dict[str, Any]]:
    """Every score of a task as `{name: {"value", "low", "high"}}`, headline first; see `scores_with_intervals`.

    `kept` has one array for each encoded row of `ready`, `rows` are the data's.
    """
    broken = int((~finite(kept)).sum())
    if broken or not kept:
        why = f"outputs of {broken} of {len(kept)} rows are not finite" if kept else "no rows"
        blank = [np.zeros(1, np.float32) if row is None else np.nan_to_num(row) for row in kept]
        return {name: _nothing(why) for name in (task.measure(blank, ready, rows).scores if kept else ())}
    return with_intervals(task.measure(kept, ready, rows), cells=sum(row.size for row in kept))


def with_intervals(
    measures: Measures, *, cells: int = 0, samples: int = SAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The bootstrap of every score; `cells` is how many numbers a ranking score walks over for one sample."""
    rows, notes = measures.rows, measures.notes
    found = {name: _entry(score, rows, _affordable(name, cells, samples), seed, notes.get(name))
             for name, score in measures.scores.items()}  # fmt: skip
    for name in PROPORTIONS & found.keys():
        if found[name]["value"] in (0.0, 1.0):
            found[name] |= _wilson(found[name]["value"], rows)
    return found


def _wilson(value: float, rows: int) -> dict[str, float]:
    """Bounds of a proportion of 0 or 1, where every drawn sample is alike (Wilson 1927)."""
    from scipy.stats import binomtest

    bounds = binomtest(round(value * rows), rows).proportion_ci(LEVEL, method="wilson")
    return {"low": float(bounds.low), "high": float(bounds.high)}


def _entry(score: Weighted, rows: int, samples: int, seed: int, note: str | None) -> dict[str, Any]:
    value, low, high = weighted_bootstrap(score, rows, samples=samples, seed=seed)
    if not np.isfinite(value):
        return _nothing(note or "undefined on these rows")
    known = {"value": value, "low": low if np.isfinite(low) else None, "high": high if np.isfinite(high) else None}
    return {**known, "note": note} if note else known


def _unusable(logits: np.ndarray) -> str:
    """Why no score can be given at all; empty when one can."""
    if len(logits) == 0:
        return "no rows"
    broken = int((~np.isfinite(logits.reshape(len(logits), -1))).any(axis=1).sum())
    return f"logits of {broken} of {len(logits)} rows are not finite" if broken else ""


def _nothing(note: str) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "note": note}


def _affordable(name: str, cells: int, samples: int) -> int:
    """Fewer samples for scores that walk over every row of every class."""
    ranks = name in weighted.RANKING
    return max(min(samples, 200), min(samples, int(BUDGET / max(1, cells)))) if ranks else samples


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite) or not np.isfinite(value):
        return float(value), float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(value), float(low), float(high)


def _rows(*arrays: Any) -> int:
    counts = [len(a) for a in arrays]
    if len(set(counts)) != 1 or counts[0] == 0:
        raise ValueError(f"arrays must have the same number of rows, at least one; found {counts}")
    return counts[0]
