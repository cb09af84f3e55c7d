"""Metrics: values of scikit-learn, scipy and hand calculation; `evaluate.Metric` works offline and leaves no file."""

import math
import socket

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from hf_tuner import catalog
from hf_tuner.errors import UsageError

NAMES = catalog.names("metrics")
RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 4, 120)
PREDICTED = np.where(RNG.random(120) < 0.7, TRUTH, RNG.integers(0, 4, 120))
RAW = RNG.random((120, 4)) + np.eye(4)[TRUTH]
PROBABILITIES = RAW / RAW.sum(axis=1, keepdims=True)
SETS = (RNG.random((120, 5)) < 0.3).astype(int)
SET_SCORES = RNG.random((120, 5)) + 0.5 * SETS
SET_PREDICTED = (SET_SCORES > 0.8).astype(int)
NUMBERS = RNG.normal(size=120)
NEAR = NUMBERS + RNG.normal(size=120) * 0.5


def compute(name, *args, **options):
    return catalog.load("metrics", name).compute(*args, **options)


CASES = [
    ("accuracy", (PREDICTED, TRUTH), {}, sk.accuracy_score(TRUTH, PREDICTED)),
    *[
        (name, (PREDICTED, TRUTH), {"average": how}, getattr(sk, f"{name}_score")(TRUTH, PREDICTED, average=how))
        for name in ("f1", "precision", "recall")
        for how in ("macro", "micro", "weighted")
    ],
    ("f1", (SET_PREDICTED, SETS), {"average": "micro"}, sk.f1_score(SETS, SET_PREDICTED, average="micro")),
    ("matthews", (PREDICTED, TRUTH), {}, sk.matthews_corrcoef(TRUTH, PREDICTED)),
    ("roc_auc", (PROBABILITIES, TRUTH), {}, sk.roc_auc_score(TRUTH, PROBABILITIES, multi_class="ovr")),
    ("roc_auc", (SET_SCORES, SETS), {}, sk.roc_auc_score(SETS, SET_SCORES)),
    ("roc_auc", (PROBABILITIES[:, 1], TRUTH == 1), {}, sk.roc_auc_score(TRUTH == 1, PROBABILITIES[:, 1])),
    ("average_precision", (SET_SCORES, SETS), {}, sk.average_precision_score(SETS, SET_SCORES)),
    ("pearson", (NEAR, NUMBERS), {}, stats.pearsonr(NEAR, NUMBERS).statistic),
    ("spearman", (NEAR, NUMBERS), {}, stats.spearmanr(NEAR, NUMBERS).statistic),
    ("mse", (NEAR, NUMBERS), {}, np.mean((NEAR - NUMBERS) ** 2)),
    ("mae", (NEAR[:, None], NUMBERS), {}, np.mean(np.abs(NEAR - NUMBERS))),
    ("log_loss", (PROBABILITIES, TRUTH), {}, -np.log(PROBABILITIES[range(120), TRUTH]).mean()),
    ("subset_accuracy", (SET_PREDICTED, SETS), {}, (SET_PREDICTED == SETS).all(axis=1).mean()),
    ("hamming", (SET_PREDICTED, SETS), {}, (SET_PREDICTED != SETS).mean()),
    # Two rows at 0.9, one right: |0.5 − 0.9| · 2/3; one at 0.6 and right: |1 − 0.6| · 1/3.
    ("calibration_error", ([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1]), {}, 0.4),
]


@pytest.mark.parametrize("name, arrays, options, expected", CASES)
def test_a_metric_has_the_value_of_the_library(name, arrays, options, expected):
    assert compute(name.replace("_", "-"), *arrays, **options) == pytest.approx(expected, abs=1e-9)


def test_every_metric_of_the_folder_has_a_case():
    assert NAMES
    assert {name.replace("-", "_") for name in NAMES} == {case[0] for case in CASES}


def test_a_class_without_rows_on_both_sides_is_left_out_of_the_ranking_scores():
    truth, scores = SETS.copy(), SET_SCORES
    truth[:, 2], truth[:, 3] = 0, 1
    usable = [0, 1, 4]
    assert compute("roc-auc", scores, truth) == pytest.approx(sk.roc_auc_score(truth[:, usable], scores[:, usable]))
    assert math.isnan(compute("roc-auc", scores[:, :1], np.ones((120, 1), int)))
    assert math.isnan(compute("average-precision", scores, np.zeros((120, 5), int)))
    assert math.isnan(compute("pearson", np.ones(4), np.arange(4)))


def test_f1_leaves_out_labels_that_nobody_expects_or_predicts():
    truth, predicted = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[1, 1, 0], [1, 1, 0]])
    assert compute("f1", predicted, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert compute("precision", predicted, truth) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_two_columns_of_logits_rank_like_the_difference():
    logits = RNG.normal(size=(120, 2)) * 9
    truth = (TRUTH > 1).astype(int)
    assert compute("roc-auc", logits, truth) == pytest.approx(sk.roc_auc_score(truth, logits[:, 1] - logits[:, 0]))


@pytest.mark.parametrize(
    "name, arrays, options, words",
    [
        ("accuracy", ([1, 0], [1]), {}, "2 predictions for 1 reference"),
        ("accuracy", ([], []), {}, "no rows"),
        ("f1", ([1], [1]), {"average": "marco"}, 'did you mean "macro"'),
        ("log-loss", ([[2.0, -1.0]], [0]), {}, "apply softmax"),
        ("calibration-error", ([[0.5, 0.5]], [2]), {}, "class ids must be 0 … 1"),
        ("mse", ([[1.0, 2.0]], [1.0]), {}, "one number for each row"),
        ("average-precision", (np.ones((3, 2)), np.ones((3, 4))), {}, "don't fit"),
    ],
)
def test_wrong_arrays_are_refused_with_the_reason(name, arrays, options, words):
    with pytest.raises(UsageError, match=words):
        compute(name, *arrays, **options)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name, arrays, options, expected", CASES)
def test_an_evaluate_metric_works_offline_and_leaves_no_file(name, arrays, options, expected, offline, tmp_path):
    metric = catalog.load("metrics", name.replace("_", "-")).Metric(cache_dir=str(tmp_path))
    references = np.asarray(arrays[1])
    given = references.astype(int) if references.dtype == bool else references
    predictions = arrays[0].ravel() if name == "mae" else arrays[0]
    result = metric.compute(predictions=predictions, references=given, **options)
    assert list(result) == [name]
    assert result[name] == pytest.approx(expected, abs=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_combined_metrics_take_batches_and_keep_their_own_options(offline):
    import evaluate

    f1, accuracy = catalog.load("metrics", "f1"), catalog.load("metrics", "accuracy")
    both = evaluate.combine({"micro": f1.Metric(average="micro"), "macro": f1.Metric(), "exact": accuracy.Metric()})
    for part in np.array_split(np.arange(120), 3):
        both.add_batch(predictions=PREDICTED[part], references=TRUTH[part])
    assert both.compute() == {
        "micro_f1": pytest.approx(sk.f1_score(TRUTH, PREDICTED, average="micro")),
        "macro_f1": pytest.approx(sk.f1_score(TRUTH, PREDICTED, average="macro")),
        "accuracy": pytest.approx((TRUTH == PREDICTED).mean()),
    }


def test_scores_given_to_a_metric_of_labels_are_refused_not_cut():
    with pytest.raises(UsageError, match="take the argmax"):
        catalog.load("metrics", "accuracy").Metric().compute(predictions=[0.9, 0.2], references=[1, 0])


def test_class_names_work_as_labels():
    metric = catalog.load("metrics", "accuracy").Metric()
    assert metric.compute(predictions=["a", "b", "b"], references=["a", "b", "c"]) == {"accuracy": pytest.approx(2 / 3)}
