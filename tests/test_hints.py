"""Hints that a newcomer missed: which task rows are meant for, which row is wrong, everything wrong with a verb's flags."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_tuner import catalog
from hf_tuner.cli._words import Words
from hf_tuner.config import Run
from hf_tuner.data import splits
from hf_tuner.data.load import load_data
from hf_tuner.data.meant import tasks_for
from hf_tuner.data.rows import read_rows
from hf_tuner.errors import UsageError

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SQUAD = {"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": [0]}}
ROWS: list[tuple[dict[str, Any], str]] = [
    ({"messages": TALK}, "sft"),
    ({"tokens": ["a"], "ner_tags": ["O"]}, "token-classification"),
    (SQUAD, "question-answering"),
    ({"question": "a", "choices": ["b", "c"], "answer": 1}, "multiple-choice"),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
    ({"instruction": "a", "output": "b"}, "sft"),
    ({"article": "a", "highlights": "b"}, "summarization"),
    ({"text": "a"}, "causal-lm or --task masked-lm"),
]


def loaded(folder: Path, rows: list[dict[str, Any]], task: str = "text-classification", **settings: Any) -> Any:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = getattr(catalog.load("tasks", task), "Config", None)
    run = Run(task=task, dataset=str(folder), output_dir="x", task_config=config() if config else None, **settings)
    return load_data(run, catalog.task_class(task))


@pytest.mark.parametrize(("row", "task"), ROWS)
def test_rows_of_another_task_name_it(row: dict[str, Any], task: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"their columns are those of --task {task}$") as caught:
        loaded(tmp_path, [row] * 12)
    assert "--columns" not in str(caught.value)


def test_other_doors_name_the_task_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"those of --task text-classification$"):
        loaded(tmp_path, [{"text": "a", "label": "b"}] * 12, "multiple-choice")
    with pytest.raises(UsageError, match="one answer each, from which --task sft learns"):
        loaded(tmp_path, [{"messages": TALK}] * 12, "preference")


def test_who_says_which_column_is_what_is_not_sent_away(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, [{"messages": "a", "other": "b"}] * 12, columns="text=messages")
    assert "--task" not in str(caught.value) and "--columns" in str(caught.value)


def test_the_signs_of_a_task_are_its_own() -> None:
    for name in catalog.names("tasks"):
        for sign in catalog.task_class(name).signs:
            assert name in tasks_for(sign), (name, sign)


@pytest.mark.parametrize(("rows", "said"), [
    ([{"messages": TALK}] * 3 + [{"messages": "hello"}], 'train.jsonl line 4: "messages" is text (hello)'),
    ([{"messages": TALK}] * 3 + [{"messages": ["hello"]}], 'train.jsonl line 4: "messages" is a list of text'),
    ([{"messages": json.dumps(TALK)}] * 3 + [{"messages": "hello"}], "train.jsonl row 4: the messages are text, and no JSON"),
    ([{"messages": 5}], "train.jsonl row 1: expected a list of messages, found 5"),
    ([{"messages": ["a", "b"]}], "train.jsonl row 1: expected a list of messages, found ['a', 'b']"),
])  # fmt: skip
def test_messages_of_a_wrong_type_are_told_by_their_row(rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, rows, "sft")
    assert said in str(caught.value) and "in these columns: ;" not in str(caught.value)


def test_a_label_that_only_held_out_rows_have_is_not_the_users_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "draw", lambda *_, **__: np.arange(8))
    rows = [{"text": f"text number {i}", "label": [f"l{i % 3}"] if i else ["rare"]} for i in range(40)]
    with pytest.raises(UsageError, match=r'"rare" \(1\); hf-tuner itself held these rows out of train'):
        loaded(tmp_path, rows)


def test_a_sample_is_of_every_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        rows = [{"text": f"{split} {i}", "label": "ab"[i % 2]} for i in range(60)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kind = catalog.task_class("text-classification")
    data = load_data(Run(dataset=f"{tmp_path}#20", output_dir="x"), kind)
    assert {split: len(part) for split, part in data.items()} == {"train": 20, "test": 20}
    assert "a sample of at most 20 rows of every split, seed 42" in capsys.readouterr().out
    name, rows_read = read_rows(f"{tmp_path}#20")
    assert (name, len(rows_read)) == ("test", 20)
    given = load_data(Run(dataset=f"{tmp_path}#20", eval_dataset=str(tmp_path / "test.jsonl"), output_dir="x"), kind)
    assert len(given["test"]) == 60, "what is named to measure on has a number of its own"


def test_all_that_is_wrong_with_a_verbs_words_is_told_together() -> None:
    parser = Words("evaluate", "text").run_folder()
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--dataset")
    with pytest.raises(UsageError) as caught:
        parser.read(["--batch-size", "many", "--datset=x.csv", "--other=1"])
    told = str(caught.value).split("\n")
    assert len(told) == 4 and "see hf-tuner evaluate --help" in told[-1]
    for part in ("--batch-size 'many': expected a whole number", "arguments are required: RUN", "unknown --datset; did you mean "
                 "--dataset?", "unknown --other"):  # fmt: skip
        assert part in str(caught.value), part
    with pytest.raises(UsageError, match=r"--batch-size: expected one argument\n.*unknown --datset"):
        parser.read(["run", "--datset", "x", "--batch-size"])
    assert parser.read(["run", "--batch-size", "3"]).batch_size == 3
