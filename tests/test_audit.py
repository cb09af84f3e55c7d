"""What the audit finds in rows that were read well: labels that cannot be learnt, leaks, oddities."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_tuner.data.audit import Audit, as_text, audit
from hf_tuner.data.fingerprint import fingerprint
from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import infer


def rows(texts: list, labels: list, **features: object) -> Dataset:
    """A split of a text and a label column."""
    kinds = Features({"text": Value("string"), "label": features["label"]}) if features else None
    return Dataset.from_dict({"text": texts, "label": labels}, features=kinds)


def check(train: Dataset, test: Dataset | None = None, **options: bool) -> Audit:
    """Audit a train and perhaps a test split."""
    data = DatasetDict({"train": train} | ({} if test is None else {"test": test}))
    return audit(data, infer(train["label"][:], train.features["label"]), **options)


def words(count: int, prefix: str = "text") -> list[str]:
    """Different texts."""
    return [f"{prefix} number {i}" for i in range(count)]


def test_clean_rows_pass_in_silence() -> None:
    """Nothing is said about data that is in order."""
    found = check(rows(words(20), ["a", "b"] * 10), rows(words(4, "other"), ["a", "b"] * 2))
    assert (found.errors, found.warnings) == ([], [])
    assert found.facts["rows"] == {"train": 20, "test": 4}
    assert found.facts["classes"] == {"a": 10, "b": 10}


ERRORS = {
    "one class": (rows(words(10), ["a"] * 10), None, ['one class only ("a", 10 rows)']),
    "label never seen": (
        rows(words(10), ["a", "b"] * 5),
        rows(words(3, "x"), ["a", "weird", "weird"]),
        ['"weird" (2)', "never seen in train"],
    ),
    "ids as labels": (rows(words(40), list(range(40))), None, ["40 classes in 40 rows", "ids"]),
    "constant number": (rows(words(5), [1.5] * 5), None, ["1.5 in every training row"]),
    "lists as text": (rows(words(20), ["['a', 'b']", "['b']"] * 10), None, ["lists written as text", "JSON Lines"]),
    "numbers and a word": (
        rows(words(4), ["0.5", "1.5", "2.5", "3.5"]),
        rows(["x"], ["great"]),
        ["not a number in 1 of 1 rows", "great"],
    ),
}


@pytest.mark.fault(45, 46)
@pytest.mark.parametrize("train, test, said", ERRORS.values(), ids=ERRORS)
def test_errors(train: Dataset, test: Dataset | None, said: list[str]) -> None:
    """What cannot train is an error that names the rows or labels."""
    errors = "\n".join(check(train, test).errors)
    assert [word for word in said if word not in errors] == []


WARNINGS = {
    "duplicates": (rows([*words(18), "Text  number 0", "TEXT number 1"], ["a", "b"] * 10), None, "2 of 20 rows repeat"),
    "leak": (rows(words(20), ["a", "b"] * 10), rows(["text NUMBER 3", "new"], ["a", "b"]), "1 of 2 rows (50.0 %)"),
    "names that differ in case": (rows(words(20), ["pos", "Pos ", "neg", "neg"] * 5), None, '"Pos " / "pos"'),
    "leading zeros": (rows(words(20), ["01", "1", "2", "3"] * 5), None, '"01" / "1"'),
    "negative ids": (rows(words(20), [-1, 0, 1, 2] * 5), None, "negative ids -1 (5 rows)"),
    "nearly constant label": (rows(words(100), ["a"] * 99 + ["b"]), None, 'nearly constant: 99.0 % of train is "a"'),
    "nearly constant text": (rows(["same"] * 15 + words(5), ["a", "b"] * 10), None, "one text fills 75.0 %"),
    "single row of a class": (rows(words(21), ["a", "b"] * 10 + ["c"]), None, "1 class with a single training row: c"),
    "NUL": (rows([*words(19), "nul \x00"], ["a", "b"] * 10), None, "1 text holds NUL"),
    "huge text": (rows([*words(19), "x" * 1_000_001], ["a", "b"] * 10), None, "over a million characters"),
    "numbers as text": (rows([str(i) for i in range(20)], ["a", "b"] * 10), None, "holds numbers only"),
    "a declared class that train lacks": (
        rows(words(20), [0, 1] * 10, label=ClassLabel(names=["a", "b", "c"])),
        rows(["x", "y"], [2, 0], label=ClassLabel(names=["a", "b", "c"])),
        '"c" (1)',
    ),
}  # fmt: skip


@pytest.mark.fault(37, 45)
@pytest.mark.parametrize("train, test, said", WARNINGS.values(), ids=WARNINGS)
def test_warnings(train: Dataset, test: Dataset | None, said: str) -> None:
    """What looks odd is said once, with its numbers, and refuses nothing."""
    found = check(train, test)
    assert found.errors == []
    assert len([warning for warning in found.warnings if said in warning]) == 1


@pytest.mark.fault(43)
def test_empty_cells_are_named_then_dropped() -> None:
    """Null, NaN, blank and hidden values are found by row; dropping leaves the rest in order."""
    train = rows([*words(6), None, " ", "last"], ["a", "b", None, "a", "", "b", "a", "b", "b"])
    found = check(train)
    assert 'train rows 7, 8: column "text" is empty (2 of 9 rows); --drop-empty skips them' in found.errors
    assert 'train rows 3, 5: column "label" is empty (2 of 9 rows); --drop-empty skips them' in found.errors
    left = check(train, drop_empty=True)
    assert left.errors == []
    assert left.data["train"]["text"][:] == [*(f"text number {i}" for i in (0, 1, 3, 5)), "last"]
    assert left.facts["dropped"] == {"train": 4}


def test_an_unlabelled_class_label_is_empty() -> None:
    """-1 of a class label and NaN of a number mean that there is no label."""
    hidden = rows(words(4), [0, -1, 1, 0], label=ClassLabel(names=["a", "b"]))
    assert "train row 2: " in check(hidden).errors[0]
    numbers = rows(words(4), [0.5, 1.5, float("nan"), 0.1])
    assert "train row 3: " in check(numbers).errors[0]


def test_lists_of_labels_are_counted_one_by_one() -> None:
    """In multi-label data every label counts, rows without any are in order."""
    kind = List(ClassLabel(names=["x", "y", "z"]))
    found = check(rows(words(4), [[0, 1], [1], [], [2]], label=kind), rows(["p"], [[2]], label=kind))
    assert found.errors == []
    assert found.facts["classes"] == {"x": 1, "y": 2, "z": 1}
    assert found.facts["unused"] == {"test": ["x", "y"]}


def test_lengths_are_those_of_both_texts() -> None:
    """Characters of a pair are added up."""
    train = Dataset.from_dict({"text": ["ab", "ä"], "text_pair": ["c", ""], "label": ["x", "y"]})
    assert check(train).facts["characters"]["max"] == 3


def test_the_audit_streams_quickly() -> None:
    """20,000 rows in about a second on a slow machine: work per row must stay small."""
    import time

    train = rows(words(20_000), ["a", "b"] * 10_000)
    start = time.perf_counter()
    check(train)
    assert time.perf_counter() - start < 3


@pytest.mark.fault(52)
@pytest.mark.parametrize("kind, values", [("int64", [1, 2]), ("bool", [True, False]), ("date32", [None, None])])
def test_other_values_become_text_with_a_note(kind: str, values: list) -> None:
    """Numbers, truth values and dates are read as text, and it is said."""
    notes: list[str] = []
    data = Dataset.from_dict({"text": values}, features=Features({"text": Value(kind)}))
    assert as_text(data, {"text": "when"}, notes).features["text"].dtype == "string"
    assert kind in notes[0]
    assert '"when"' in notes[0]


def test_lists_are_no_text() -> None:
    """A list of words is refused with what to do."""
    with pytest.raises(UsageError, match='column "tokens" holds List'):
        as_text(Dataset.from_dict({"text": [["a", "b"]]}), {"text": "tokens"}, [])


def test_fingerprint_is_that_of_the_content() -> None:
    """Chunks, index mappings and kinds of string do not matter; one changed letter does."""
    plain = rows(["a", None, "c"], [1, 2, 3])
    mapped = rows(["c", "x", None, "a"], [3, 9, 2, 1]).select([3, 2, 0])
    large = plain.cast_column("text", Value("large_string"))
    assert fingerprint(mapped) == fingerprint(plain) == fingerprint(large)
    others = [rows(["a", "", "c"], [1, 2, 3]), rows(["a", None, "d"], [1, 2, 3]), rows(["ac", None, ""], [1, 2, 3])]
    assert len({fingerprint(data) for data in [plain, *others, plain.rename_column("text", "t")]}) == 5


def test_fingerprint_sees_class_names_and_lists() -> None:
    """The same ids under other class names are other content."""
    kinds = [ClassLabel(names=["a", "b"]), ClassLabel(names=["b", "a"])]
    assert len({fingerprint(rows(["t", "u"], [0, 1], label=kind)) for kind in kinds}) == 2
    lists = [[[1], [2, 3]], [[1, 2], [3]]]
    assert len({fingerprint(rows(["t", "u"], value)) for value in lists}) == 2
    assert np.char.isalnum(fingerprint(rows(["t"], [[1]])))
