"""Panoptic quality, worked by hand, and by weights."""

import numpy as np
import pytest

from hf_tuner.metrics._panoptic import Matches, class_table, scores, tallies
from hf_tuner.tasks._runs import covered, pixels, shared

NAMES, THINGS = ("car", "sky"), (True, False)


def compare(found: str, expected: str, classes: dict[str, int], crowds: str = "") -> Matches:
    """A picture drawn as letters: each letter is a segment of a class, a dot is nothing."""
    said, known = (np.array([list(line) for line in text.split()]) for text in (found, expected))
    names = [sorted(set(one.ravel()) - {"."}) for one in (said, known)]
    masks = [
        np.array([one == name for name in each]).reshape(-1, *one.shape)
        for one, each in zip((said, known), names, strict=True)
    ]
    bits = [covered(one) for one in masks]
    nothing = covered((known == ".")[None])
    labels = [np.array([classes[name] for name in each], int) for each in names]
    return Matches(shared(*bits), shared(bits[0], nothing)[:, 0], labels[0], pixels(bits[0]), labels[1], pixels(bits[1]),
                   np.array([name in crowds for name in names[1]], bool))  # fmt: skip


CLASSES = {"a": 0, "b": 0, "c": 0, "s": 1}
ONE = compare(
    # a is found but for one pixel and takes one of the sky; b is missed; c is a car where the sky is
    "aaas aass cccs ssss",
    "aaas aaas sssb sssb",
    CLASSES,
)
TWO = compare("aa.. .... ssss", "aa.. aa.. ssss", CLASSES)


def value(pictures: list[Matches], name: str) -> float:
    return float(scores(tallies(pictures, 2), NAMES, THINGS)[name](np.ones((1, len(pictures))))[0])


def test_a_picture_worked_by_hand() -> None:
    """Cars: one right with 5 of 6 pixels, one wrong, one missed. Sky: 8 found, 8 expected, 4 + 1 = 5 … shared."""
    counts = tallies([ONE], 2)
    assert (
        counts.right[0].tolist() == [1, 0]
        and counts.wrong[0].tolist() == [1, 1]
        and counts.missed[0].tolist() == [1, 1]
    )
    assert counts.overlap[0].tolist() == pytest.approx([5 / 6, 0])
    assert value([ONE], "pq_things") == pytest.approx((5 / 6) / (1 + 0.5 + 0.5))
    assert value([ONE], "pq_stuff") == 0.0
    assert value([ONE], "pq") == pytest.approx((5 / 12 + 0) / 2)
    assert value([ONE], "sq") == pytest.approx((5 / 6 + 0) / 2) and value([ONE], "rq") == pytest.approx((1 / 2 + 0) / 2)


def test_an_overlap_of_exactly_a_half_is_not_enough() -> None:
    counts = tallies([TWO], 2)
    assert (
        counts.right[0].tolist() == [0, 1]
        and counts.wrong[0].tolist() == [1, 0]
        and counts.missed[0].tolist() == [1, 0]
    )
    assert value([TWO], "pq_sky") == 1.0 and value([TWO], "pq_car") == 0.0


def test_void_and_crowds_count_for_nothing() -> None:
    """What lies in void enlarges no union; a segment mostly in void, or in a crowd of its class, is no fault."""
    assert value([compare("aaa. ss..", "aa.. ss..", CLASSES)], "pq") == 1.0
    aside = tallies([compare("aab. aab.", "cc.. cc..", CLASSES, crowds="c")], 2)
    assert aside.right.sum() == aside.wrong.sum() == aside.missed.sum() == 0
    other = tallies([compare("ss.. ss..", "cc.. cc..", CLASSES, crowds="c")], 2)
    assert other.wrong[0].tolist() == [0, 1], "a crowd of cars excuses no sky"


def test_a_weight_is_how_often_a_picture_counts() -> None:
    weights = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    made = scores(tallies([ONE, TWO], 2), NAMES, THINGS)
    for sample, (first, second) in enumerate(weights.astype(int)):
        again = [ONE] * first + [TWO] * second
        for name, score in made.items():
            assert score(weights)[sample] == pytest.approx(value(again, name)), name


def test_each_class_has_a_line() -> None:
    table = class_table(tallies([TWO], 3), (*NAMES, "tree"), (*THINGS, True))
    assert table[1] == {"name": "sky", "thing": False, "expected": 1, "pq": 1.0, "sq": 1.0, "rq": 1.0}
    assert table[2]["pq"] is None and table[0]["pq"] == 0.0
