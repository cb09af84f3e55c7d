"""Where rows come from and which split they end in: names and suffixes, folders, columns, hold-outs."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_tuner.config import Run
from hf_tuner.data.columns import match_columns
from hf_tuner.data.fingerprint import fingerprints
from hf_tuner.data.load import load_data
from hf_tuner.data.sources import parse, split_of
from hf_tuner.errors import UsageError

NAMES = ["neg", "pos"]


class Task:
    """The columns of a text classifier."""

    columns: ClassVar = {
        "text": ("text", "sentence", "sentence1", "premise", "question", "review"),
        "text_pair": ("text_pair", "sentence2", "hypothesis", "answer"),
        "label": ("label", "labels", "intent", "stars", "coarse_label"),
    }
    optional: ClassVar = ("text_pair",)


def table(rows: int, start: int = 0) -> list[dict]:
    """Rows of two classes; every text is another."""
    return [{"text": f"message {i}", "label": NAMES[i % 2]} for i in range(start, start + rows)]


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the kind that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    return path


def load(dataset: Path | str, **options: object) -> DatasetDict:
    """Load with a run made by hand."""
    return load_data(Run(dataset=str(dataset), output_dir="unused", **options), Task)


def sizes(data: DatasetDict) -> dict[str, int]:
    """Rows of each split."""
    return {name: rows.num_rows for name, rows in data.items()}


# --- sources


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_kind_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    """A file's kind changes neither the rows, nor their order, nor their fingerprint."""
    data = load(write(tmp_path / f"rows.{kind}", table(40)), test_split="train[:25%]", train_split="train[25%:]")
    assert data["train"]["text"][:2] == ["message 10", "message 11"]
    plain = load(write(tmp_path / "x.csv", table(40)), test_split="train[:25%]", train_split="train[25%:]")
    assert fingerprints(data) == fingerprints(plain)


def test_the_demo_is_there(capsys: pytest.CaptureFixture) -> None:
    """The bundled messages load by their short name, with the class label of their card."""
    data = load("demo")
    assert list(data) == ["train", "validation", "test"]
    assert isinstance(data["train"].features["label"], ClassLabel)
    assert "demo (the bundled customer messages)" in capsys.readouterr().out


def test_a_folder_of_mixed_kinds_is_read_whole(tmp_path: Path) -> None:
    """CSV beside JSON Lines beside Parquet: each split from its own kind."""
    write(tmp_path / "train.csv", table(30))
    write(tmp_path / "dev.jsonl", table(6, 100))
    write(tmp_path / "test-00000-of-00001.parquet", table(8, 200))
    assert sizes(load(tmp_path)) == {"train": 30, "validation": 6, "test": 8}


def test_two_files_of_a_split_are_joined(tmp_path: Path) -> None:
    """Shards follow one another by name; other columns in one of them are an error."""
    write(tmp_path / "train-1.csv", table(20))
    write(tmp_path / "train-2.jsonl", table(10, 20))
    write(tmp_path / "test.csv", table(4, 100))
    data = load(tmp_path)
    assert data["train"]["text"][:] == [f"message {i}" for i in range(30)]
    write(tmp_path / "train-3.csv", [{"body": "a", "label": "pos"}])
    with pytest.raises(UsageError, match=r"train-3\.csv and train-1\.csv both belong to train but have different"):
        load(tmp_path)


def test_files_that_are_left_aside_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A file that belongs to no split is not read silently nor dropped silently."""
    write(tmp_path / "train.csv", table(30))
    write(tmp_path / "test.csv", table(4, 90))
    write(tmp_path / "prices.csv", table(4))
    assert sizes(load(tmp_path)) == {"train": 30, "test": 4}
    assert "prices.csv" in capsys.readouterr().out


def test_a_card_gives_files_and_class_names(tmp_path: Path) -> None:
    """`configs:` names the files, `dataset_info` the classes and their order; ids and names are both understood."""
    card = """---
configs:
- config_name: one
  default: true
  data_files: [{split: train, path: a.csv}, {split: test, path: b.csv}]
- config_name: two
  data_files: [{split: train, path: b.csv}]
dataset_info:
- config_name: one
  features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: {'0': pos, '1': neg}}}}]
---
"""
    (tmp_path / "README.md").write_text(card)
    write(tmp_path / "a.csv", table(20))
    write(tmp_path / "b.csv", [{"text": f"other {i}", "label": i % 2} for i in range(10)])
    data = load(tmp_path)
    assert data["train"].features["label"].names == ["pos", "neg"]
    assert data["train"]["label"][:2] == [1, 0]
    assert data["test"]["label"][:2] == [0, 1]
    assert sizes(load(f"{tmp_path}:two")) == {"train": 8, "test": 2}
    with pytest.raises(UsageError, match='no configuration "three"; there are: one, two'):
        load(tmp_path, dataset_config="three")
    write(tmp_path / "b.csv", [{"text": "x", "label": "odd"}])
    with pytest.raises(UsageError, match=r'b\.csv row 2: label "odd" is not among the 2 classes'):
        load(tmp_path)


@pytest.mark.fault(27)
def test_an_edited_file_of_the_same_age_is_read_anew(tmp_path: Path) -> None:
    """Nothing is cached by path, time and size."""
    import os

    path = write(tmp_path / "train.csv", table(20))
    age = path.stat()
    before = fingerprints(load(path))
    path.write_text(path.read_text().replace("message 1", "massage 1"))
    os.utime(path, ns=(age.st_atime_ns, age.st_mtime_ns))
    assert fingerprints(load(path)) != before


def test_a_saved_data_set_loads(tmp_path: Path) -> None:
    """`save_to_disk` folders, one split or several."""
    DatasetDict({"train": Dataset.from_list(table(20)), "test": Dataset.from_list(table(4, 50))}).save_to_disk(
        tmp_path / "d"
    )
    assert sizes(load(tmp_path / "d")) == {"train": 20, "test": 4}
    Dataset.from_list(table(20)).save_to_disk(tmp_path / "s")
    assert sizes(load(tmp_path / "s")) == {"train": 16, "test": 4}


def test_a_script_beside_the_data_never_runs(tmp_path: Path) -> None:
    """Code in a data folder is left alone."""
    write(tmp_path / "d" / "train.csv", table(20))
    (tmp_path / "d" / "d.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    (tmp_path / "d" / "train.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    load(tmp_path / "d")
    assert not (tmp_path / "d" / "ran").exists()


@pytest.mark.parametrize("name", ["x.pkl", "x.xlsx", "x.doc"])
def test_kinds_that_are_not_read(name: str, tmp_path: Path) -> None:
    """Other kinds are refused with those that are read."""
    (tmp_path / name).write_text("anything")
    with pytest.raises(UsageError, match=r"known: .*\.csv, .*\.json"):
        load(tmp_path / name)


def test_suffixes(tmp_path: Path) -> None:
    """Configuration, revision and sample come off the name in any order; what exists is a path as it stands."""
    source = parse("org/name:cfg@refs/pr/1#500")
    assert (source.name, source.config, source.revision, source.sample) == ("org/name", "cfg", "refs/pr/1", 500)
    odd = write(tmp_path / "a#5.csv", table(10))
    assert parse(str(odd)).path == odd
    assert parse(f"{odd}#3").sample == 3


MISSING = {
    "nearest": ("{}/trian.csv", 'did you mean ".*train.csv"'),
    "listing": ("{}/zzz.jsonl", "holds train.csv"),
    "no folder": ("{}/nowhere/train.csv", "there is no folder"),
    "no id": ("what is this", "neither an existing path nor a Hub id"),
    "empty": ("", "no data given"),
}


@pytest.mark.parametrize("name, said", MISSING.values(), ids=MISSING)
def test_a_missing_path_names_the_nearest(name: str, said: str, tmp_path: Path) -> None:
    """What looks like a path and is not there is never asked of the Hub."""
    write(tmp_path / "train.csv", table(4))
    with pytest.raises(UsageError, match=said):
        load(name.format(tmp_path))


def test_a_path_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called like an id is the folder."""
    write(tmp_path / "org" / "name" / "train.csv", table(20))
    monkeypatch.chdir(tmp_path)
    assert sizes(load("org/name")) == {"train": 16, "test": 4}


@pytest.mark.parametrize(
    "name, split",
    [
        ("train.csv", "train"),
        ("data/dev-1.tsv", "validation"),
        ("my_test.csv", "test"),
        ("en/val/0.parquet", "validation"),
        ("contest.csv", None),
        ("trainer.csv", None),
    ],
)
def test_split_names(name: str, split: str | None) -> None:
    """Whole words of the name count, then those of the folders."""
    assert split_of(Path(name)) == split


# --- splits


def test_without_any_other_split_a_fifth_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By class, seeded, in order, said; another seed draws other rows."""
    path = write(tmp_path / "rows.csv", table(100))
    data = load(path)
    assert sizes(data) == {"train": 80, "test": 20}
    assert data["test"]["label"][:].count("pos") == 10
    order = [int(text.split()[1]) for text in data["train"]["text"]]
    assert order == sorted(order)
    assert "20 rows (20 %) of train held out by class, seed 42" in capsys.readouterr().out
    assert load(path)["test"]["text"][:] == data["test"]["text"][:]
    assert load(path, seed=1)["test"]["text"][:] != data["test"]["text"][:]


def test_a_rare_class_stays_in_train(tmp_path: Path) -> None:
    """A class of one row is never held out whole: it could not be learnt."""
    rare = [{"text": f"only {i}", "label": f"rare {i}"} for i in range(5)]
    path = write(tmp_path / "rows.csv", [{"text": f"m {i}", "label": "usual"} for i in range(10)] + rare)
    data = load(path)
    assert data["test"]["label"][:] == ["usual"] * data["test"].num_rows
    assert len(set(data["train"]["label"][:])) == 6


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, {"train": 50, "test": 10}),
        ({"training": {"eval_strategy": "no"}}, {"train": 50, "test": 10}),
        ({"training": {"eval_strategy": "epoch"}}, {"train": 45, "validation": 5, "test": 10}),
        ({"training": {"load_best_model_at_end": True}}, {"train": 45, "validation": 5, "test": 10}),
        ({"eval_split": "20%"}, {"train": 40, "validation": 10, "test": 10}),
    ],
)
def test_validation_is_made_when_something_selects_on_it(options: dict, expected: dict, tmp_path: Path) -> None:
    """With a test split, rows of train are given up for validation only when they serve."""
    write(tmp_path / "train.csv", table(50))
    write(tmp_path / "test.csv", table(10, 100))
    assert sizes(load(tmp_path, **options)) == expected


def test_hidden_test_labels_are_not_measured_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """GLUE's test splits hold -1 throughout: validation is reported on instead, and it is said."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
    splits = {"train": (20, [0, 1] * 10), "validation": (4, [0, 1] * 2), "test": (6, [-1] * 6)}
    data = {
        name: Dataset.from_dict({"text": [f"{name} {i}" for i in range(n)], "label": labels}, features=features)
        for name, (n, labels) in splits.items()
    }
    DatasetDict(data).save_to_disk(tmp_path / "glue")
    assert sizes(load(tmp_path / "glue")) == {"train": 20, "validation": 4}
    assert "the test split has no labels" in capsys.readouterr().out


def test_minus_one_that_train_knows_is_a_class(tmp_path: Path) -> None:
    """A test split of the class -1 only is measured when train has that class."""
    write(tmp_path / "train.csv", [{"text": f"m {i}", "label": (-1, 1)[i % 2]} for i in range(20)])
    write(tmp_path / "test.csv", [{"text": "x", "label": -1}])
    assert sizes(load(tmp_path)) == {"train": 20, "test": 1}


def test_a_sample_keeps_order_and_shares(tmp_path: Path) -> None:
    """`name#20` draws by class, in the rows' order, from every split that has more."""
    write(tmp_path / "train.csv", table(100))
    write(tmp_path / "validation.csv", table(10, 400))
    write(tmp_path / "test.csv", table(30, 200))
    data = load(f"{tmp_path}#20")
    assert sizes(data) == {"train": 20, "validation": 10, "test": 20}
    assert data["train"]["label"][:].count("pos") == 10
    order = [int(text.split()[1]) for text in data["train"]["text"]]
    assert order == sorted(order)


def test_eval_dataset_is_the_test_split(tmp_path: Path) -> None:
    """A file of its own replaces the test split, under its own column names, with its own class numbering."""
    features = Features({"review": Value("string"), "stars": ClassLabel(names=["pos", "neg"])})
    other = Dataset.from_dict({"review": ["fine", "awful"], "stars": [0, 1]}, features=features)
    other.to_parquet(str(tmp_path / "other.parquet"))
    data = load(write(tmp_path / "train.csv", table(20)), eval_dataset=str(tmp_path / "other.parquet"))
    assert sizes(data) == {"train": 20, "test": 2}
    assert data["test"]["label"][:] == ["pos", "neg"]
    assert data["test"]["text"][:] == ["fine", "awful"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"test_split": "tset"}, 'no split "tset"; did you mean "test"'),
        ({"train_split": "train[:80"}, "is not a split such as train"),
        ({"eval_split": "0%"}, "between 0% and 100%"),
        ({"train_split": "train[:0]"}, "holds no rows"),
    ],
)
def test_wrong_splits(options: dict, said: str, tmp_path: Path) -> None:
    """Split names and slices are checked before anything is trained."""
    write(tmp_path / "train.csv", table(20))
    write(tmp_path / "test.csv", table(4, 50))
    with pytest.raises(UsageError) as caught:
        load(tmp_path, **options)
    assert said in str(caught.value)


# --- columns

COLUMNS = {
    "exact": (["id", "text", "label"], None, {"text": "text", "label": "label"}),
    "preference": (["review", "sentence", "label"], None, {"text": "sentence", "label": "label"}),
    "case": (["Text", "LABEL"], None, {"text": "Text", "label": "LABEL"}),
    "pair": (
        ["sentence1", "sentence2", "label"], None, {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    ),
    "pair of another name": (
        ["Premise", "Hypothesis", "label"],
        None,
        {"text": "Premise", "text_pair": "Hypothesis", "label": "label"},
    ),
    "no partner": (["text", "answer", "label"], None, {"text": "text", "label": "label"}),
    "word inside": (["review_body", "text_id", "rating", "label"], None, {"text": "review_body", "label": "label"}),
    "misspelt": (["sentense", "lable"], None, {"text": "sentense", "label": "lable"}),
    "given": (["a", "b", "label"], "text=b", {"text": "b", "label": "label"}),
    "given alone": (["premise", "hypothesis", "label"], "text=premise", {"text": "premise", "label": "label"}),
    "given pair": (["a", "b", "c"], "text=a, text_pair=c, label=b", {"text": "a", "text_pair": "c", "label": "b"}),
}  # fmt: skip


@pytest.mark.parametrize("available, given, expected", COLUMNS.values(), ids=COLUMNS)
def test_columns_are_found(available: list[str], given: str | None, expected: dict) -> None:
    """Exact names, then case, then likeness; what is given wins."""
    assert match_columns(available, Task, given) == expected


WRONG_COLUMNS = {
    "none": (["a", "b"], None, 'no column for "text" and "label"; found: a, b'),
    "ambiguous": (["review_title", "review_body", "label"], None, 'no column for "text"'),
    "misspelt column": (["review", "label"], "text=reviw", 'did you mean "review"? found: review, label'),
    "misspelt name": (["review", "label"], "txet=review", 'no "txet" in this task; did you mean "text"?'),
    "no equals sign": (["review", "label"], "review", "expected NAME=COLUMN"),
    "twice": (["review", "label"], "text=review,label=review", 'column "review" is given twice'),
}


@pytest.mark.parametrize("available, given, said", WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_columns_that_are_not_there(available: list[str], given: str | None, said: str) -> None:
    """The message lists what was found and how to say it."""
    with pytest.raises(UsageError) as caught:
        match_columns(available, Task, given)
    assert said in str(caught.value)


def test_other_columns_are_dropped_and_choices_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Only the task's columns are left; what might have been meant instead is printed."""
    rows = [{"id": i, "question": f"q {i}", "coarse_label": i % 2, "fine_label": i % 4} for i in range(20)]
    data = load(write(tmp_path / "rows.csv", rows))
    assert data["train"].column_names == ["text", "label"]
    shown = capsys.readouterr().out
    assert "text <- question, label <- coarse_label" in shown
    assert "label=fine_label" in shown
