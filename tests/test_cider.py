"""CIDEr-D against numbers worked out by hand, and as a function of row weights."""

import math

import numpy as np
import pytest

from hf_tuner.metrics._cider import cider, cider_of_rows, words_of

TEXTS = ["a dog runs", "two cats sleep on a couch", "no idea", "a b c d"]
KNOWN = [["a dog runs fast", "the dog runs"], ["two cats sleep on a red couch"], ["a house"], ["a b c d", "c d"]]


def score(texts: list[str], known: list[list[str]], weights: object = None) -> float:
    given = np.ones((1, len(texts))) if weights is None else np.asarray([weights], float)
    return float(cider(texts, known)(given)[0])


def test_text_equal_to_its_reference_has_ten_when_it_has_words_of_its_own() -> None:
    assert cider_of_rows(["one two three four", "x"], [["One, two: three four!"], ["y"]]) == pytest.approx([10, 0])


def test_words_that_all_rows_have_count_nothing() -> None:
    # a: in both rows, weight 0. b, and "a b": in one of two, log 2. Of four lengths two are there, each with cosine 1.
    assert cider_of_rows(["a b", "a b"], [["a b"], ["a c"]]) == pytest.approx([5, 0])


def test_repeated_words_are_clipped_and_another_length_is_marked_down() -> None:
    # b: 2 · w against 1 · w, clipped to 1: (1 · 1) / (2 · 1) = 1/2; one word apart: exp(-1 / (2 · 36)); one length of four.
    expected = 10 * 0.5 * math.exp(-1 / 72) / 4
    assert cider_of_rows(["b b", "z"], [["b"], ["c"]]) == pytest.approx([expected, 0])


def test_two_references_are_a_mean_and_cosines_weigh_rare_words_more() -> None:
    # Three rows. red: in rows 1 and 2, log 3/2; car: in row 1, log 3; "red car": in row 1, log 3.
    red, car = math.log(3 / 2), math.log(3)
    one = car**2 / math.sqrt((red**2 + car**2) * car**2) * math.exp(-1 / 72)  # "red car" beside "car"
    known = [["red car", "car"], ["red"], ["x"]]
    expected = 10 * ((1 + 1) / 4 + one / 4) / 2
    assert cider_of_rows(["red car", "q", "q"], known)[0] == pytest.approx(expected)


def test_weights_count_rows_as_often_as_they_are_drawn() -> None:
    weights = [2, 0, 1, 3]
    drawn = [i for i, n in enumerate(weights) for _ in range(n)]
    again = score([TEXTS[i] for i in drawn], [KNOWN[i] for i in drawn])
    assert score(TEXTS, KNOWN, weights) == pytest.approx(again) and again != pytest.approx(score(TEXTS, KNOWN))
    assert score(TEXTS, KNOWN) == pytest.approx(cider_of_rows(TEXTS, KNOWN).mean())
    many = np.random.default_rng(0).multinomial(4, [0.25] * 4, 20).astype(float)
    each = [score(TEXTS, KNOWN, row) for row in many]
    np.testing.assert_allclose(cider(TEXTS, KNOWN)(many), each)


def test_one_row_alone_has_no_score() -> None:
    assert math.isnan(score(["a"], [["a"]])) and math.isnan(score(TEXTS, KNOWN, [0, 5, 0, 0]))


def test_samples_may_be_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(1).multinomial(4, [0.25] * 4, 7).astype(float)
    whole = cider(TEXTS, KNOWN)(weights)
    monkeypatch.setattr("hf_tuner.metrics._cider.CELLS", 30)
    np.testing.assert_array_equal(cider(TEXTS, KNOWN)(weights), whole)


def test_words_are_lower_case_without_signs_and_of_any_script() -> None:
    assert words_of("A Dog's red-hot  RUN .") == ["a", "dog", "s", "red", "hot", "run"]
    assert words_of("猫が歩く") == ["猫", "が", "歩", "く"]
