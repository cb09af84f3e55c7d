"""Panoptic quality as a function of how often each picture was drawn (Kirillov et al. 2019, arXiv 1801.00868).

A segment that was found is right when it is of the class of one that is expected and they overlap by more than a half,
which can hold for one pair only as segments share no pixel. Pixels of nothing (void) count for no overlap; what lies mostly
in void, or in a crowd of its class, is no fault. The rules are those of COCO's `panopticapi`. What is summed over pictures
is weighted, so a bootstrap matches nothing again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

Weighted = Callable[[np.ndarray], np.ndarray]
HALF = 0.5


@dataclass(frozen=True)
class Matches:
    """How the segments of one picture match."""

    shared: np.ndarray
    """Pixels of found and expected segments [found, expected]."""
    void: np.ndarray
    """Pixels [found] where nothing is expected."""
    said: np.ndarray
    """Class [found]."""
    area: np.ndarray
    """Pixels [found]."""
    known: np.ndarray
    """Class [expected]."""
    size: np.ndarray
    """Pixels [expected]."""
    crowd: np.ndarray
    """Whether it is several things in one [expected]."""


@dataclass(frozen=True)
class Tallies:
    """What each picture adds to each class, [pictures, classes] each."""

    right: np.ndarray
    overlap: np.ndarray
    """Sum of the overlaps of right segments."""
    wrong: np.ndarray
    missed: np.ndarray


def tallies(pictures: Sequence[Matches], classes: int) -> Tallies:
    """The counts of all pictures."""
    made = np.zeros((4, len(pictures), classes))
    for row, one in enumerate(pictures):
        union = one.area[:, None] + one.size[None] - one.shared - one.void[:, None]
        share = np.divide(one.shared, union, out=np.zeros_like(union, dtype=float), where=union > 0)
        fits = (share > HALF) & (one.said[:, None] == one.known[None]) & ~one.crowd[None]
        for found, expected in zip(*np.nonzero(fits), strict=True):
            made[0, row, one.said[found]] += 1
            made[1, row, one.said[found]] += share[found, expected]
        crowds = one.crowd[None] & (one.said[:, None] == one.known[None])
        aside = one.void + (one.shared * crowds).sum(axis=1) > HALF * one.area
        np.add.at(made[2, row], one.said[~fits.any(axis=1) & ~aside], 1)
        np.add.at(made[3, row], one.known[~fits.any(axis=0) & ~one.crowd], 1)
    return Tallies(*made)


def scores(counts: Tallies, names: Sequence[str], things: Sequence[bool]) -> dict[str, Weighted]:
    """PQ, of things and of stuff, SQ (how well right segments fit), RQ (how many are right), and the PQ of up to 12 classes.

    Each is a mean over classes that are found or expected, as a function of weights [samples, pictures].
    """
    every = np.arange(len(names))
    kinds = {"pq_things": every[np.array(things, bool)], "pq_stuff": every[~np.array(things, bool)]}
    made: dict[str, Weighted] = {"pq": partial(_mean, counts, 0, every)}
    made |= {name: partial(_mean, counts, 0, chosen) for name, chosen in kinds.items() if _there(counts)[chosen].any()}
    made |= {"sq": partial(_mean, counts, 1, every), "rq": partial(_mean, counts, 2, every)}
    for index, name in enumerate(names if len(names) <= 12 else ()):
        if _there(counts)[index]:
            made[f"pq_{name}"] = partial(_mean, counts, 0, np.array([index]))
    return made


def class_table(counts: Tallies, names: Sequence[str], things: Sequence[bool]) -> list[dict[str, Any]]:
    """{"name", "thing", "expected", "pq", "sq", "rq"} of every class; None where nothing is found or expected."""
    one = np.ones((1, len(counts.right)))
    values = [_qualities(counts, one)[kind][0] for kind in range(3)]
    expected = (counts.right + counts.missed).sum(axis=0)

    def shown(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return [{"name": name, "thing": bool(things[k]), "expected": int(expected[k]), "pq": shown(values[0][k]),
             "sq": shown(values[1][k]), "rq": shown(values[2][k])} for k, name in enumerate(names)]  # fmt: skip


def _there(counts: Tallies) -> np.ndarray:
    return (counts.right + counts.wrong + counts.missed).sum(axis=0) > 0


def _qualities(counts: Tallies, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PQ, SQ and RQ [samples, classes]; NaN where nothing is found or expected."""
    right, overlap, wrong, missed = (
        weights @ one for one in (counts.right, counts.overlap, counts.wrong, counts.missed)
    )
    all_of = right + (wrong + missed) / 2
    there = all_of > 0
    nothing = np.full_like(all_of, np.nan)
    fit = np.where(there, np.divide(overlap, right, out=np.zeros_like(overlap), where=right > 0), np.nan)
    return (np.divide(overlap, all_of, out=nothing.copy(), where=there), fit,
            np.divide(right, all_of, out=nothing, where=there))  # fmt: skip


def _mean(counts: Tallies, kind: int, classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over the classes that are known [samples]; NaN where none is."""
    values = _qualities(counts, weights)[kind][:, classes]
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.divide(np.where(known, values, 0.0).sum(axis=1), count, out=np.full(len(values), np.nan), where=count > 0)
