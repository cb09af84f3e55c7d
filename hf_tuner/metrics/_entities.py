"""Entities in rows of BIO tags, and how many are found: as seqeval counts them by default.

An entity counts when its kind, its first and its last word are right (CoNLL-2000, Tjong Kim Sang & Buchholz 2000).
Scores are functions of row weights, see `_weighted`. A ratio over nothing is 0, as in seqeval.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Entity = tuple[str, int, int]
"""Kind, first word, past the last word."""
Tags = Sequence[Sequence[str]]


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one row of BIO tags; I- where nothing of its kind goes on begins one."""
    found: list[Entity] = []
    for index, tag in enumerate(tags):
        if tag == "O":
            continue
        kind, name = tag[0], tag[2:]
        if kind == "I" and found and found[-1][2] == index and found[-1][0] == name:
            found[-1] = (name, found[-1][1], index + 1)
        else:
            found.append((name, index, index + 1))
    return found


def counts(expected: Tags, predicted: Tags) -> np.ndarray:
    """Entities found, given and expected, words right and words, float64 [rows, 5]."""
    lines = []
    for truth, said in zip(expected, predicted, strict=True):
        right, given = set(entities(truth)), set(entities(said))
        words = sum(a == b for a, b in zip(truth, said, strict=True))
        lines.append((len(right & given), len(given), len(right), words, len(truth)))
    return np.array(lines, np.float64).reshape(-1, 5)


def scores(expected: Tags, predicted: Tags) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """F1, precision and recall over all entities (micro), and the share of words with the right tag."""
    table = counts(expected, predicted)

    def ratio(top: Any, bottom: Any) -> Callable[[np.ndarray], np.ndarray]:
        return lambda weights: _share(weights @ (table @ top), weights @ (table @ bottom))

    found, given, wanted, words, total = np.eye(5)
    return {
        "f1": ratio(2 * found, given + wanted),
        "precision": ratio(found, given),
        "recall": ratio(found, wanted),
        "accuracy": ratio(words, total),
    }


def per_entity(expected: Tags, predicted: Tags) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of each kind of entity, most frequent first; a ratio over nothing is None."""
    found: Counter[str] = Counter()
    given: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for truth, said in zip(expected, predicted, strict=True):
        right, mine = set(entities(truth)), set(entities(said))
        found.update(name for name, *_ in right & mine)
        given.update(name for name, *_ in mine)
        wanted.update(name for name, *_ in right)
    return [_line(name, found[name], given[name], wanted[name]) for name in _by_size(wanted, given)]


def per_tag(expected: Tags, predicted: Tags) -> list[dict[str, Any]]:
    """The same of single tags, such as parts of speech."""
    pairs = [pair for row in zip(expected, predicted, strict=True) for pair in zip(*row, strict=True)]
    found, given, wanted = (
        Counter(t for t, p in pairs if t == p),
        Counter(p for _, p in pairs),
        Counter(t for t, _ in pairs),
    )
    return [_line(name, found[name], given[name], wanted[name]) for name in _by_size(wanted, given)]


def tag_scores(expected: Tags, predicted: Tags) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Share of words with the right tag, and F1 as the mean over tags that are expected or given."""
    names = sorted({tag for rows in (expected, predicted) for row in rows for tag in row})
    place = {name: index for index, name in enumerate(names)}
    table = np.zeros((3, len(expected), max(1, len(names))))
    for row, (truth, said) in enumerate(zip(expected, predicted, strict=True)):
        for a, b in zip(truth, said, strict=True):
            table[0, row, place[a]] += a == b
            table[1, row, place[a]] += 1
            table[2, row, place[b]] += 1
    right, words = table[0].sum(axis=1), table[1].sum(axis=1)

    def macro(weights: np.ndarray) -> np.ndarray:
        found, wanted, given = (weights @ part for part in table)
        known = wanted + given > 0
        return _share((2 * _share(found, wanted + given)).sum(axis=1), known.sum(axis=1).astype(np.float64))

    return {"accuracy": lambda weights: _share(weights @ right, weights @ words), "macro_f1": macro}


def _share(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros(np.shape(bottom)), where=bottom > 0)


def _by_size(wanted: Counter[str], given: Counter[str]) -> list[str]:
    return sorted({*wanted, *given}, key=lambda name: (-wanted[name], name))


def _line(name: str, found: int, given: int, wanted: int) -> dict[str, Any]:
    def ratio(top: int, bottom: int) -> float | None:
        return top / bottom if bottom else None

    return {
        "name": name,
        "precision": ratio(found, given),
        "recall": ratio(found, wanted),
        "f1": ratio(2 * found, given + wanted),
        "rows": wanted,
    }
