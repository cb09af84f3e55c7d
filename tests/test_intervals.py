"""Intervals: the values of scikit-learn, draws that agree with scikit-learn on repeated rows, honest coverage."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from hf_tuner.evaluation.intervals import (
    bootstrap,
    draws,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    scores_with_intervals,
)
from hf_tuner.metrics import _weighted as weighted


def single(rows=90, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    return (rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth]).astype(np.float32), truth


def multi(rows=90, labels=5, seed=1):
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, labels)) < 0.3).astype(int)
    # Rounded, so that rows tie.
    return np.round(rng.normal(size=(rows, labels)) + 2 * truth - 1, 1).astype(np.float32), truth


def regression(rows=90, seed=2):
    rng = np.random.default_rng(seed)
    truth = np.round(rng.normal(size=rows), 1)
    return np.round(truth + 0.6 * rng.normal(size=rows), 1).astype(np.float32)[:, None], truth


def softmax(logits):
    values = np.exp(np.float64(logits) - np.max(logits, axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def ece(logits, truth):
    probabilities = softmax(logits)
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth
    edges = np.linspace(0, 1, 16)
    bins = [(sure > a) & (sure <= b) for a, b in itertools.pairwise(edges)]
    return sum(abs(sure[b].mean() - right[b].mean()) * b.mean() for b in bins if b.any())


def macro_over_defined(score, logits, truth):
    usable = [k for k in range(truth.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
    return np.mean([score(truth[:, k], logits[:, k]) for k in usable])


def f1(average):
    return lambda x, y: sk.f1_score(y, x > 0 if y.ndim == 2 else x.argmax(1), average=average, zero_division=np.nan)


REFERENCE = {
    "single": {
        "accuracy": lambda x, y: sk.accuracy_score(y, x.argmax(1)),
        "macro_f1": f1("macro"),
        "weighted_f1": f1("weighted"),
        "mcc": lambda x, y: sk.matthews_corrcoef(y, x.argmax(1)),
        "log_loss": lambda x, y: -np.log(softmax(x)[range(len(y)), y]).mean(),
        "calibration_error": ece,
    },
    "multi": {
        "micro_f1": f1("micro"),
        "macro_f1": f1("macro"),
        "subset_accuracy": lambda x, y: ((x > 0) == y).all(1).mean(),
        "average_precision": lambda x, y: macro_over_defined(sk.average_precision_score, x, y),
        "roc_auc": lambda x, y: macro_over_defined(sk.roc_auc_score, x, y),
    },
    "regression": {
        "pearson": lambda x, y: stats.pearsonr(x.ravel(), y).statistic,
        "spearman": lambda x, y: stats.spearmanr(x.ravel(), y).statistic,
        "mse": lambda x, y: np.mean((x.ravel() - y) ** 2),
        "mae": lambda x, y: np.mean(np.abs(x.ravel() - y)),
    },
}
DATA = {"single": single(), "multi": multi(), "regression": regression()}
CASES = [(problem, name) for problem, scores in REFERENCE.items() for name in scores]


@pytest.mark.parametrize("problem, name", CASES)
def test_values_are_those_of_scikit_learn(problem, name):
    logits, truth = DATA[problem]
    result = scores_with_intervals(problem, logits, truth, samples=200)[name]
    assert result["value"] == pytest.approx(REFERENCE[problem][name](np.float64(logits), truth), abs=1e-9)
    assert result["low"] < result["value"] < result["high"]


@pytest.mark.parametrize("problem, name", CASES)
def test_a_drawn_sample_scores_like_its_rows_written_out(problem, name):
    logits, truth = DATA[problem]
    score = weighted.scores(problem, np.float64(logits), truth)[0][name]
    (weights,) = draws(len(truth), 5, seed=1)
    for value, counts in zip(score(weights), weights, strict=True):
        rows = np.repeat(np.arange(len(truth)), counts.astype(int))
        assert value == pytest.approx(REFERENCE[problem][name](np.float64(logits)[rows], truth[rows]), abs=1e-9)


def test_every_score_is_checked_and_two_classes_add_roc_auc():
    for problem, (logits, truth) in DATA.items():
        found = scores_with_intervals(problem, logits, truth, samples=20)
        assert list(found) == list(REFERENCE[problem]) == list(weighted.NAMES[problem])
    logits, truth = single(classes=2)
    result = scores_with_intervals("single", logits, truth, samples=20)
    assert result["roc_auc"]["value"] == pytest.approx(sk.roc_auc_score(truth, logits[:, 1] - logits[:, 0]))


def test_the_fast_path_agrees_with_the_plain_bootstrap():
    logits, truth = single(300)
    slow = bootstrap(lambda x, y: (x.argmax(1) == y).mean(), (logits, truth), samples=1000)
    fast = mean_interval(logits.argmax(1) == truth)
    assert fast == pytest.approx(slow, abs=0.01)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    inside = 0
    for seed in range(200):
        _, low, high = mean_interval(rng.random(150) < 0.8, samples=300, seed=seed)
        inside += low <= 0.8 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_draws_have_as_many_rows_as_the_data_in_every_part(monkeypatch):
    monkeypatch.setattr("hf_tuner.evaluation.intervals.CELLS", 100)
    parts = list(draws(30, 10, seed=0))
    assert [len(p) for p in parts] == [3, 3, 3, 1]
    assert all((p.sum(axis=1) == 30).all() for p in parts)


def test_the_same_seed_gives_the_same_interval_and_another_one_not():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_a_label_without_positive_rows_is_left_out_and_said():
    logits, truth = multi()
    truth[:, 3] = 0
    result = scores_with_intervals("multi", logits, truth, samples=20)
    assert result["roc_auc"]["value"] == pytest.approx(macro_over_defined(sk.roc_auc_score, logits, truth))
    assert result["roc_auc"]["note"].startswith("1 of 5 labels")


def test_what_cannot_be_computed_is_null_with_the_reason():
    logits, truth = regression()
    constant = scores_with_intervals("regression", np.ones_like(logits), truth, samples=20)
    assert constant["pearson"]["value"] is None is constant["pearson"]["low"]
    assert constant["pearson"]["note"] == "predictions are all the same number"
    assert constant["mse"]["value"] is not None
    one_class = scores_with_intervals("single", single(classes=2)[0], np.zeros(90, int), samples=20)
    assert one_class["roc_auc"]["value"] is None
    empty = scores_with_intervals("single", np.zeros((0, 3)), np.zeros(0, int))
    assert {s["note"] for s in empty.values()} == {"no rows"}


def test_logits_that_are_not_finite_make_every_score_null():
    logits, truth = single()
    logits[4, 1] = np.nan
    result = scores_with_intervals("single", logits, truth)
    assert all(s["value"] is None and s["note"] == "logits of 1 of 90 rows are not finite" for s in result.values())


def test_a_single_row_and_perfect_answers_are_no_special_case():
    one = scores_with_intervals("single", np.array([[5.0, 0.0]]), np.array([0]), samples=20)
    assert one["accuracy"]["value"] == one["accuracy"]["high"] == 1.0
    assert one["accuracy"]["low"] == pytest.approx(1 / (1 + 1.96**2), abs=1e-3)  # Wilson's bound for 1 of 1
    perfect = scores_with_intervals("multi", 2.0 * np.eye(3) - 1, np.eye(3, dtype=int), samples=20)
    assert perfect["macro_f1"]["value"] == 1.0


@pytest.mark.parametrize(
    "problem, logits, references",
    [
        ("sngle", np.zeros((2, 2)), np.zeros(2, int)),
        ("single", np.zeros((2, 2)), np.array([0, 2])),
        ("single", np.zeros((2, 2)), np.zeros(3, int)),
        ("multi", np.zeros((2, 2)), np.zeros((2, 3))),
        ("regression", np.zeros((2, 2)), np.zeros(2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(problem, logits, references):
    with pytest.raises(ValueError, match=r"expected|must be|number"):
        scores_with_intervals(problem, logits, references)


def test_the_paired_bootstrap_sees_a_difference_the_single_intervals_hide():
    rng = np.random.default_rng(0)
    b = rng.random(400) < 0.8
    a = b | (rng.random(400) < 0.2)
    difference, low, high = paired_bootstrap(a, b)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert 0 < low < difference < high
    assert paired_bootstrap(a, a)[1:] == (0, 0)


def test_mcnemar_is_the_exact_binomial_test():
    a = np.array([True] * 8 + [False] * 2 + [True] * 5)
    b = np.array([False] * 8 + [True] * 2 + [True] * 5)
    # 8 against 2: 2 · Σ_{k≤2} C(10, k) / 2^10
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(a, a) == 1.0
    with pytest.raises(ValueError, match="same number of rows"):
        mcnemar(a, b[:3])
