"""How words with tags and texts with spans are read, and what the audit says of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_tuner.config import Run
from hf_tuner.data.files import kind_of, read_file
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks.token_classification import TokenClassification


def load(folder: Path, **settings: Any) -> DatasetDict:
    return load_data(Run(dataset=str(folder), output_dir=str(folder / "run"), **settings), TokenClassification)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_text_with_spans(tmp_path: Path) -> None:
    span = {"start": 0, "end": 3, "label": "PER", "text": "Ann"}
    write(tmp_path / "train.jsonl", [{"text": f"Ann ran {i}", "entities": [span]} for i in range(4)])
    rows = load(tmp_path)["train"]
    assert rows[0] == {"text": "Ann ran 0", "tags": ["B-PER", "O", "O"]}


def test_span_that_does_not_match_its_text_is_an_error_with_its_row(tmp_path: Path) -> None:
    good = {"start": 0, "end": 3, "label": "PER"}
    rows = [{"text": "Ann ran", "spans": [{**good, "text": text}]} for text in ("Ann", "Ann", "nn ")]
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path / "train.jsonl", rows))
    assert 'train.jsonl row 3: span 0–3 (PER) says "nn ", but there stands "Ann"' in str(caught.value)


def test_class_ids_are_read_by_name(tmp_path: Path) -> None:
    kind = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-X", "I-X"]))})
    rows = {"tokens": [["a", "b", "c"]] * 6, "ner_tags": [[1, 2, 0]] * 6}
    DatasetDict({"train": Dataset.from_dict(rows, kind)}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved")["train"][0]["tags"] == ["B-X", "I-X", "O"]


@pytest.mark.parametrize(
    "row, said",
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words but 1 tags"),
        ({"tokens": [], "tags": []}, "no words; --drop-empty skips such rows"),
        ({"tokens": ["a"], "tags": [None]}, "a word without a tag"),
    ],
)
def test_row_that_cannot_be_used_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    good = {"tokens": ["a", "b"], "tags": ["B-X", "O"]}
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path / "train.jsonl", [good, row, good]))
    assert f"train.jsonl row 2: {said}" in str(caught.value)


def test_columns_that_hold_no_words_are_refused_with_what_to_say(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say which: --columns tokens="):
        load(write(tmp_path / "train.jsonl", [{"x": 1.5, "y": 2}] * 3))


def test_tags_of_a_row_that_are_text_are_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("tokens,tags\n" + "Ann ran,B-PER O\n" * 4)
    assert load(tmp_path)["train"][0] == {"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"]}


CONLL = "-DOCSTART- -X- O\n\nAnn NNP I-PER\nran VBD O\n\n# id 2\nRome NNP I-LOC\n"


def test_conll_file(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text(CONLL)
    rows = read_file(tmp_path / "train.conll")
    assert rows[:] == {"tokens": [["Ann", "ran"], ["Rome"]], "tags": [["I-PER", "O"], ["I-LOC"]]}


def test_text_file_is_conll_when_it_looks_so(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Ann\tB-PER\nran\tO\n")
    (tmp_path / "prose.txt").write_text("Ann ran\nto Rome\n")
    assert kind_of(tmp_path / "train.txt") == "conll" and kind_of(tmp_path / "prose.txt") != "conll"


def test_conll_line_without_a_tag_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.bio").write_text("Ann B-PER\nran\n")
    with pytest.raises(UsageError, match="line 2: 1 columns where the first line has 2"):
        read_file(tmp_path / "train.bio")


def test_audit_says_what_was_repaired_and_what_is_never_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train.jsonl", [{"tokens": ["a", "b", str(i)], "tags": ["O", "I-X", "B-Y"]} for i in range(4)])
    write(tmp_path / "test.jsonl", [{"tokens": ["a", "c"], "tags": ["B-Z", "O"]}])
    data = load(tmp_path)
    facts = data.tuner_notes["audit"]
    assert (facts["marking"], facts["repaired"], facts["tags"]) == ("BIO", 4, {"X": 4, "Y": 4})
    said = " ".join(data.tuner_notes["warnings"])
    assert "4 tags go on with an entity (I-) that has not begun" in said
    assert "test: 1 kinds of entities never seen in train, which cannot be found: Z (1)" in said


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no word of train has a tag but O"):
        load(write(tmp_path / "train.jsonl", [{"tokens": ["a", str(i)], "tags": ["O", "O"]} for i in range(4)]))


def test_rows_without_tags_are_refused_with_what_to_say(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column of tags or spans; name it: --columns tags=COLUMN"):
        load(write(tmp_path / "train.jsonl", [{"tokens": ["a", str(i)]} for i in range(4)]))


def test_split_without_tags_is_left_aside_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train.jsonl", [{"tokens": ["a", str(i)], "tags": ["B-X", "O"]} for i in range(10)])
    write(tmp_path / "test.jsonl", [{"tokens": ["a", "b"]}])
    assert load(tmp_path)["test"].num_rows == 2
    assert 'the test split has no column "tags", so it is not used' in capsys.readouterr().out


def test_split_without_words_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"tokens": ["a", str(i)], "tags": ["B-X", "O"]} for i in range(4)])
    write(tmp_path / "test.jsonl", [{"words": ["a", "b"], "tags": ["B-X", "O"]}])
    with pytest.raises(UsageError, match=r'test: no column "tokens" \(tokens\), as train has; found: words, tags'):
        load(tmp_path)


def test_tags_that_a_model_does_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With how often they come and what becomes of them, also where the model knows others."""
    task = TokenClassification(labels=Labels("single", ("O", "B-PER", "I-PER"), ""))
    tags = [["B-PER", "I-PER", "O", "B-GPE"], ["B-GPE", "I-GPE", "O", "LAW"], ["O", "B-PER", "O", "O"]]
    task.prepare(Dataset.from_dict({"tags": tags}))
    said = capsys.readouterr().err
    assert (
        "entities that the model does not know: GPE (2); they stay in the scores, each as one that was not found"
        in said
    )
    assert "tags that mark no entity (B-, I-): LAW (1); they are read as O" in said
    task.prepare(Dataset.from_dict({"tags": tags[2:]}))
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match=r"none of the tags of these rows \(PER\).*marks \(B-, I-\)"):
        task.prepare(Dataset.from_dict({"tags": [["PER", "O"]]}))


def test_plain_tags_that_a_model_does_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    task = TokenClassification(labels=Labels("single", ("NOUN", "VERB"), ""))
    task.prepare(Dataset.from_dict({"tags": [["NOUN", "X", "X"]]}))
    assert "tags that the model does not know: X (2)" in capsys.readouterr().err
