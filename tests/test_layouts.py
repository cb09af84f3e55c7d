"""Rows of tasks that recognise layouts: what is read as what, which splits can measure, and what is refused before training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.data.texts import as_read, as_strings
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import Measures, Task

CHOICES = {"question": "which?", "choices": ["one", "two"], "label": 1}


def write(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """A folder with a JSON Lines file for each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def loaded(task: str, data: Path, **settings: Any) -> Any:
    kind = catalog.task_class(task)
    config = getattr(catalog.load("tasks", task), "Config", None)
    run = Run(task=task, dataset=str(data), output_dir="x", task_config=config() if config else None, **settings)
    return load_data(run, kind)


def numbered(row: dict[str, Any], count: int = 12, **more: Any) -> list[dict[str, Any]]:
    """Rows that differ in their first text."""
    first = next(iter(row))
    return [{**row, first: f"{row[first]} {i}", **more} for i in range(count)]


def test_numbered_negatives_are_one_column(tmp_path: Path) -> None:
    rows = numbered({"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": "d"})
    data = loaded("sentence-similarity", write(tmp_path, train=rows, test=rows[:3]))
    assert list(data["train"]["negative"][0]) == ["c", "d"] and set(data) == {"train", "test"}


@pytest.mark.parametrize("hidden", [-1, "", None])
def test_a_test_split_whose_answers_are_kept_back_is_left_aside(hidden: Any, tmp_path: Path) -> None:
    folder = write(
        tmp_path, train=numbered(CHOICES), validation=numbered(CHOICES, 4), test=numbered(CHOICES, 4, label=hidden)
    )
    assert set(loaded("multiple-choice", folder)) == {"train", "validation"}


def test_rows_to_measure_without_answers_are_refused_before_training(tmp_path: Path) -> None:
    row = {"question": "where?", "context": "at home"}
    answered = {**row, "answers": {"text": ["home"], "answer_start": [3]}}
    folder = write(tmp_path / "a", train=numbered(answered))
    other = write(tmp_path / "b", test=numbered(row, 3))
    with pytest.raises(UsageError, match="no column for answers; to measure, it is needed"):
        loaded("question-answering", folder, eval_dataset=str(other))


def test_what_trains_does_not_measure(tmp_path: Path) -> None:
    folder = write(tmp_path, train=numbered(CHOICES), validation=numbered({**CHOICES, "question": "what?"}, 4))
    data = loaded("multiple-choice", folder, train_split="train+validation")
    assert "validation" not in data


@pytest.mark.parametrize("task", ["sentence-similarity", "reranking"])
def test_an_empty_score_does_not_make_another_layout_of_the_file(task: str, tmp_path: Path) -> None:
    names = ("query", "passage", "label") if task == "reranking" else ("sentence1", "sentence2", "score")
    lines = [f"text {i},text {i + 1},{i % 2}" for i in range(12)]
    (tmp_path / "train.csv").write_text("\n".join([",".join(names), *lines, "one,two,"]) + "\n")
    with pytest.raises(UsageError, match=r"train.csv row 14: .*; --drop-empty"):
        loaded(task, tmp_path / "train.csv")


def test_false_in_a_csv_is_not_impossible(tmp_path: Path) -> None:
    rows = "\n".join(f"where {i}?,at home,home,False" for i in range(12))
    (tmp_path / "train.csv").write_text(f"question,context,answer,is_impossible\n{rows}\n")
    data = loaded("question-answering", tmp_path / "train.csv")
    assert data["train"]["answers"][0]["text"] == ["home"]


def test_copa_keeps_its_premise(tmp_path: Path) -> None:
    row = {"premise": "It rained", "question": "effect", "choice1": "wet", "choice2": "dry", "label": 0}
    assert "It rained" in loaded("multiple-choice", write(tmp_path, train=numbered(row)))["train"]["text"][0]


class Odd(Task):
    """Scores of which one is undefined."""

    def measure(self, kept: Any, ready: Any, rows: Any) -> Measures:
        return Measures({"good": lambda w: w.sum(axis=1), "undefined": lambda w: np.full(len(w), np.nan)}, len(kept))


def test_a_score_that_these_rows_do_not_have_is_no_divergence() -> None:
    assert Odd().quick([np.zeros(1)] * 3, None, None) == {"good": 3.0}
    assert np.isnan(Odd().quick([np.full(1, np.nan)], None, None)["undefined"])


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (
            "question-answering",
            {"question": "where?", "context": "at home", "answers": {"text": ["abroad"], "answer_start": [3]}},
        ),
        ("multiple-choice", {"question": "which?", "choices": ["one", "two"], "label": "seven"}),
        ("token-classification", {"tokens": ["a", "b"], "tags": ["O"]}),
    ],
)
def test_predict_does_not_look_at_answers(task: str, row: dict[str, Any]) -> None:
    from datasets import Dataset

    from hf_tuner.data.rows import task_columns

    kind = catalog.task_class(task)
    made = task_columns(Dataset.from_list([row]), kind.__new__(kind), None, answers=False)
    assert made.num_rows == 1 and not set(kind.targets) & set(made.column_names)


def test_words_and_messages_are_measured_and_shown_as_they_are_read(tmp_path: Path, capsys: Any) -> None:
    """Not as Python prints a list of them."""
    words = [{"tokens": ["blue", "harbour"], "tags": ["O", "B-X"]}, {"tokens": ["a", "b"], "tags": ["O", "B-X"]}]
    talk = [{"messages": [{"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": f"say {n}"}]}
            for n in range(2)]  # fmt: skip
    for task, rows, half, shown in (("token-classification", words, 12, "blue harbour"), ("sft", talk, 10, "ask 0")):
        folder = write(tmp_path / task, train=rows, test=rows[:1])
        loaded(task, folder)
        told = capsys.readouterr()
        assert f"longest {half}" in told.out
        assert f'such a row of test is "{shown}"' in told.err


def test_rows_that_differ_in_a_role_or_a_cut_are_no_repeats() -> None:
    """What is shown alike is still told apart."""
    lists = pa.array([["a b"], ["a", "b"]])
    assert as_strings(lists, as_read).to_pylist() == ["a b", "a b"]
    assert len(set(as_strings(lists).to_pylist())) == 2
    said = [{"role": "assistant", "content": None, "more": '{"tool_calls": 1}'}, {"role": "user", "content": "yes"}]
    assert as_read(said) == '{"tool_calls": 1}\nyes'
