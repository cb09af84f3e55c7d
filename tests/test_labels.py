"""What labels are taken to be: every documented rule of `tasks/_labels.py`, and how values become targets."""

import pickle

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import Labels, by_name, infer, natural

INFERRED = {
    "text in natural order": (["b10", "b2", "a", "b10"], None, "single", ("a", "b2", "b10")),
    "numbers in text sort as numbers": (["10", "2", "0", "11", "1"], None, "single", ("0", "1", "2", "10", "11")),
    "a class label keeps its order": ([1, 0], ClassLabel(names=["zebra", "ant"]), "single", ("zebra", "ant")),
    "whole numbers": ([5, 1, 3], None, "single", ("1", "3", "5")),
    "negative numbers are classes": ([1, -1, 0], None, "single", ("-1", "0", "1")),
    "true and false": ([True, False], None, "single", ("false", "true")),
    "few whole decimals": ([0.0, 2.0, 1.0], None, "single", ("0", "1", "2")),
    "whole decimals in a CSV file": (["0.0", "1.0"], None, "single", ("0", "1")),
    "decimals": ([0.5, 2.0], None, "regression", ()),
    "decimals in a CSV file": (["0.5", "4"], None, "regression", ()),
    "many whole decimals": ([float(i) for i in range(30)], None, "regression", ()),
    "lists of text": ([["b"], ["a", "b"], []], None, "multi", ("a", "b")),
    "lists of numbers": ([[10], [2, 10]], None, "multi", ("2", "10")),
    "lists of a class label": ([[1], [0, 1]], List(ClassLabel(names=["x", "y"])), "multi", ("x", "y")),
    "flags": ([[0, 1, 1], [1, 0, 0]], None, "multi", ("0", "1", "2")),
    "empty values are passed over": (["a", None, "", " ", "b"], None, "single", ("a", "b")),
    "leading zeros stay": (["01", "1"], None, "single", ("01", "1")),
}


@pytest.mark.parametrize("values, feature, problem, names", INFERRED.values(), ids=INFERRED)
def test_inferred(values: list, feature: object, problem: str, names: tuple) -> None:
    """Each kind of column gets the documented problem and names, and a note that says why."""
    labels = infer(values, feature)
    assert (labels.problem, labels.names) == (problem, names)
    assert labels.note


ENCODED = {
    "text": (["b", "a"], None, "b", 1),
    "1-based": ([1, 2, 3], None, 3, 2),
    "negative": ([-1, 1], None, 1, 1),
    "the text of a number": ([1, 2, 3], None, "3", 2),
    "true": ([True, False], None, True, 1),
    "few whole decimals": ([0.0, 1.0], None, 1.0, 1),
    "decimals as text": (["0.0", "1.0"], None, "1.0", 1),
    "a position of a class label": ([0], ClassLabel(names=["3", "1", "2"]), 1, 1),
    "a name of a class label": ([0], ClassLabel(names=["3", "1", "2"]), "2", 2),
    "regression": ([0.5, 1.5], None, "1.25", 1.25),
    "names": ([["a"], ["b", "c"]], None, ["c", "a"], [1.0, 0.0, 1.0]),
    "no class at all": ([["a"], ["b", "c"]], None, [], [0.0, 0.0, 0.0]),
    "flags": ([[0, 1], [1, 0]], None, [1, 0], [1.0, 0.0]),
    "positions": ([[0, 1]], List(ClassLabel(names=["x", "y"])), [1], [0.0, 1.0]),
    "two positions are no flags": ([[0, 1]], List(ClassLabel(names=["x", "y"])), [0, 1], [1.0, 1.0]),
}


@pytest.mark.parametrize("values, feature, value, target", ENCODED.values(), ids=ENCODED)
def test_encoded(values: list, feature: object, value: object, target: object) -> None:
    """A raw value becomes the target that its kind of label means."""
    assert infer(values, feature).encode(value) == target


OVERRIDDEN = {
    "numbers to learn": ([1, 2, 3], "regression", "regression", ()),
    "decimals as classes": ([0.5, 1.0], "single", "single", ("0.5", "1")),
    "decimal text as classes": (["0.5", "1.0"], "single", "single", ("0.5", "1")),
}


@pytest.mark.parametrize("values, asked, problem, names", OVERRIDDEN.values(), ids=OVERRIDDEN)
def test_overridden(values: list, asked: str, problem: str, names: tuple) -> None:
    """`--problem` wins over the rules, and every value still encodes."""
    labels = infer(values, None, asked)
    assert (labels.problem, labels.names) == (problem, names)
    assert [labels.encode(value) for value in values]


REFUSED = {
    "words are no numbers": (["good", "1"], None, "regression", '"good" is not a number'),
    "lists are not single": ([["a"], ["b"]], None, "single", "--problem multi"),
    "lists as text": (["a|b", "c"], None, "multi", "JSON Lines"),
    "nothing": ([None, ""], None, "auto", "no values"),
    "lists of lists": ([[["a"]]], None, "auto", "lists of lists"),
}


@pytest.mark.parametrize("values, feature, problem, words", REFUSED.values(), ids=REFUSED)
def test_refused(values: list, feature: object, problem: str, words: str) -> None:
    """What cannot be a label is refused with words that help."""
    with pytest.raises(UsageError, match=words):
        infer(values, feature, problem)


def test_an_unknown_label_names_the_nearest() -> None:
    """Encoding a misspelt label says which one was meant."""
    with pytest.raises(UsageError, match='did you mean "positive"'):
        Labels("single", ("negative", "positive")).encode("positve")


def test_the_note_of_whole_decimals_offers_regression() -> None:
    """Neither choice between classes and numbers is silent."""
    assert "--problem regression" in infer([0.0, 1.0, 2.0]).note
    assert "--problem single" in infer([0.5, 1.7]).note


def test_equal_labels_pickle_alike_after_use() -> None:
    """`datasets` hashes pickles: using a value must not change its own."""
    used, fresh = Labels("single", ("a", "b")), Labels("single", ("a", "b"))
    used.encode("b")
    assert pickle.dumps(used) == pickle.dumps(fresh)
    assert pickle.loads(pickle.dumps(used)).encode("b") == 1  # noqa: S301 - made on the line above


def test_by_name_frees_labels_from_their_numbering() -> None:
    """A data set that numbers the classes differently still encodes to the saved positions."""
    saved = Labels("single", ("negative", "positive"))
    features = Features({"text": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    other = Dataset.from_dict({"text": ["good", "bad"], "label": [0, 1]}, features=features)
    assert [saved.encode(value) for value in by_name(other)["label"]] == [1, 0]


def test_natural_order() -> None:
    """Numbers inside words count as numbers."""
    assert sorted(["x10", "x9", "X2", "3", "-1", "20"], key=natural) == ["-1", "3", "20", "X2", "x9", "x10"]
