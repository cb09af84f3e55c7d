"""multiple-choice: layouts of SWAG, CommonsenseQA and their kin; rows with fewer choices than their neighbours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from datasets import Dataset
from transformers import AutoModelForMultipleChoice, AutoTokenizer, set_seed

from hf_tuner.config import Run
from hf_tuner.data.layouts import arranged
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import at_one
from hf_tuner.tasks.multiple_choice import MultipleChoice

SWAG = {"sent1": "He stood up.", "sent2": "Then he", "ending0": "sang.", "ending1": "slept.", "ending2": "", "label": 1}
CODAH = {"question_category": "o", "sent1": "He was hungry. He", "ending0": "slept.", "ending1": "ate.", "label": 1}
CSQA = {"id": "x", "question": "Where is the milk?", "choices": {"label": ["A", "B", "C"], "text": ["sky", "fridge", "sun"]},
        "answerKey": "B"}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "text", "choices", "label"),
    [
        (SWAG, "He stood up.", ["Then he sang.", "Then he slept."], 1),
        (CODAH, "He was hungry. He", ["slept.", "ate."], 1),
        (CSQA, "Where is the milk?", ["sky", "fridge", "sun"], 1),
        ({"question": "Milk?", "choices": {"label": ["1", "2"], "text": ["a", "b"]}, "answerKey": "2"}, "Milk?", ["a", "b"], 1),
        ({"ctx": "A man", "endings": ["sits", "flies"], "label": "0"}, "A man", ["sits", "flies"], 0),
        ({"question": "2 + 2?", "choices": ["3", "4"], "answer": 0}, "2 + 2?", ["3", "4"], 0),
        ({"article": "It is.", "question": "Cold?", "options": ["No", "Yes"], "answer": "B"}, "It is. Cold?", ["No", "Yes"], 1),
        ({"goal": "Open it", "sol1": "pull", "sol2": "eat", "label": 0}, "Open it", ["pull", "eat"], 0),
        ({"question": "Cold?", "choices": ["No", "Yes"], "answer": "Yes"}, "Cold?", ["No", "Yes"], 1),
        ({"sentence": "The _ fell.", "option1": "cup", "option2": "sky", "answer": "2"}, "The _ fell.", ["cup", "sky"], 1),
        ({"query": "Q", "choices": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "answer": "y"}, "Q", ["a", "b"], 1),
    ],
)  # fmt: skip
def test_layouts_are_recognised(row: dict[str, Any], text: str, choices: list[str], label: int) -> None:
    assert (
        arranged(Dataset.from_list([row] * 2), MultipleChoice(), None).to_list()
        == [{"text": text, "choices": choices, "label": label}] * 2
    )


def test_labels_that_run_from_one_are_told_from_those_that_run_from_zero() -> None:
    rows = [{"question": "Q", "option1": "a", "option2": "b", "answer": n} for n in (1, 2, 1)]
    assert arranged(Dataset.from_list(rows), MultipleChoice(), None)["label"][:] == [0, 1, 0]
    rows = [{**row, "answer": row["answer"] - 1} for row in rows]
    assert arranged(Dataset.from_list(rows), MultipleChoice(), None)["label"][:] == [0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([CODAH, {**CODAH, "label": 7}], r'row 2: column "label" is "7", which names none of the 2 choices \(0 to 1\)'),
        ([{**CSQA, "answerKey": "Z"}], r'"Z", which names none of the 3 choices \(A, B, C\)'),
        ([{**CODAH, "ending1": ""}], "1 choice; expected at least 2"),
        ([{"sent1": "x", "label": 1}], "no choices: expected columns such as ending0"),
        ([{"ending0": "x", "ending1": "y", "label": 1}], "no prompt: expected a column such as sent1"),
        ([{**CODAH, "sent1": " "}], 'column "sent1" is empty'),
    ],
)
def test_what_cannot_be_read_is_named(rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arranged(Dataset.from_list(rows), MultipleChoice(), None)


def test_columns_may_be_named_and_answers_left_out() -> None:
    rows = Dataset.from_list([{"q": "Q", "all": ["a", "b"], "right": 1, "label": "x"}])
    made = arranged(rows, MultipleChoice(), "text=q,choices=all,label=right")
    assert made.to_list() == [{"text": "Q", "choices": ["a", "b"], "label": 1}]
    assert arranged(
        rows.remove_columns(["right", "label"]), MultipleChoice(), "text=q,choices=all", answers=False
    ).column_names == [
        "text",
        "choices",
    ]


def test_rows_that_do_not_say_what_is_right_are_refused_for_training(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        "".join(
            Dataset.from_list([CODAH, {**CODAH, "sent1": "Other", "label": -1}] * 6).to_json(tmp_path / "x.jsonl")
            and ""
        )
        + (tmp_path / "x.jsonl").read_text()
    )
    (tmp_path / "x.jsonl").unlink()
    run = Run(task="multiple-choice", dataset=str(tmp_path), output_dir=str(tmp_path / "o"), test_split="train")
    with pytest.raises(UsageError, match=r"train\.jsonl row 2: it does not say which choice is right"):
        load_data(run, MultipleChoice)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny model and its tokenizer."""
    folder = make_tiny_model(tmp_path_factory.mktemp("mc"))
    set_seed(2)
    return AutoModelForMultipleChoice.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


ROWS = [
    {"text": "it was rain", "choices": ["sun", "bread and soup with cheese"], "label": 1},
    {"text": "my team", "choices": ["goal", "rice", "snow", "the wind"], "label": 2},
    {"text": "soup", "choices": ["bean", "ball", "sky"], "label": 0},
]


def ready(tokenizer: Any) -> Dataset:
    """The rows above, encoded."""
    rows = Dataset.from_list(ROWS)
    return rows.map(MultipleChoice().encode(tokenizer, 64), batched=True, remove_columns=rows.column_names)


def test_rows_of_several_sizes_give_what_each_gives_alone(loaded: Any) -> None:
    model, tokenizer = loaded
    task, rows = MultipleChoice(), ready(tokenizer).to_list()
    collate = task.collate(tokenizer)
    with torch.inference_mode():
        together = task.outputs(model, collate(rows))
        alone = [task.outputs(model, collate([row]))[0] for row in rows]
        total = float(task.loss(model, collate(rows)))
        plain = 0.0
        for row in ROWS:
            batch = tokenizer([row["text"]] * len(row["choices"]), row["choices"], padding=True, return_tensors="pt")
            logits = model(**{name: values[None] for name, values in batch.items()}).logits
            plain += float(torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"]])))
    assert [len(row) for row in together] == [2, 4, 3]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert total == pytest.approx(plain, rel=1e-5)


def test_masked_rows_count_for_nothing_and_gradients_stay_finite(loaded: Any) -> None:
    model, tokenizer = loaded
    task, rows = MultipleChoice(), ready(tokenizer).to_list()
    batch = task.collate(tokenizer)([rows[0], {**rows[1], "labels": -100}])
    assert int(task.items(batch)) == 1
    loss = task.loss(model, dict(batch))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_scores_answers_and_baseline(loaded: Any) -> None:
    _, tokenizer = loaded
    task, encoded = MultipleChoice(), ready(tokenizer)
    kept = [np.array([0.0, 2.0]), np.array([0.0, 1.0, 0.0, 0.0]), np.array([3.0, 0.0, 0.0])]
    scores = at_one(task.measure(kept, encoded, None))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    expected = [np.log(1 + np.exp(-2)), np.log(3 + np.e), np.log(1 + 2 * np.exp(-3))]
    assert scores["log_loss"] == pytest.approx(np.mean(expected))
    answer = task.answers(kept, encoded, Dataset.from_list(ROWS), tokenizer)[1]
    assert answer["prediction"] == "rice" and answer["index"] == 1
    assert answer["score"] == max(answer["scores"]) and sum(answer["scores"]) == pytest.approx(1)
    wrong = task.worst(kept, encoded, Dataset.from_list(ROWS), tokenizer)
    assert [(w["expected"], w["predicted"]) for w in wrong] == [("snow", "rice")]
    always = task.baselines(encoded, encoded, None)["majority"]
    assert [len(row) for row in always] == [2, 4, 3]
