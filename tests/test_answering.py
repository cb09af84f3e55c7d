"""`predict` asks the task how it answers, with settings that are changed for these answers only."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from datasets import Dataset

from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import write_predictions
from hf_tuner.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Writer(Task):
    """A task with settings of several kinds."""

    max_new_tokens: int = 20
    temperature: float = 0.0
    early: bool = False


def test_words_take_the_kind_of_the_setting():
    task = Writer().answering(max_new_tokens="40", temperature="0.5", early="True")
    assert task == Writer(max_new_tokens=40, temperature=0.5, early=True)
    assert Writer().answering() == Writer()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_token": 3}, 'did you mean "max_new_tokens"'),
        ({"max_new_tokens": "many"}, "max_new_tokens=many: expected a whole number, such as 20"),
        ({"early": "maybe"}, "expected true or false"),
    ],
)
def test_what_cannot_be_set_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Writer().answering(**settings)


def test_an_answer_stays_beside_a_given_column_of_its_name(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"tokens": [["Ann"]], "tags": [["B-person"]]})
    write_predictions(tmp_path / "out.jsonl", rows, [{"prediction": [], "tags": ["O"]}], probabilities=False)
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written["tags"] == ["B-person"] and written["predicted_tags"] == ["O"]


def test_lists_in_a_csv_are_json_that_reads_back(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"tokens": [["it", "is"]]})
    answers = [{"prediction": [{"label": "X", "start": 0}], "tags": ["O", "B-X"]}]
    write_predictions(tmp_path / "out.csv", rows, answers, probabilities=False)
    (line,) = csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8"))
    assert {name: json.loads(cell) for name, cell in line.items()} == {"tokens": ["it", "is"], **answers[0]}


def test_several_labels_stand_side_by_side(tmp_path: Path) -> None:
    rows, answers = Dataset.from_dict({"text": ["it"]}), [{"prediction": ["a", "b"], "score": None}]
    write_predictions(tmp_path / "out.csv", rows, answers, probabilities=False)
    assert (tmp_path / "out.csv").read_text() == "text,prediction,score\nit,a|b,\n"
