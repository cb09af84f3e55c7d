"""Questions, contexts and answers: layouts, windows, candidates, thresholds, scores and whole runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from datasets import Dataset
from tiny_tasks.question_answering import question
from transformers import AutoTokenizer

from hf_tuner import finetune, predict
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.metrics._squad import best_threshold, exact_match, f1, mean_over, normalised
from hf_tuner.tasks._answers import best_spans, candidates
from hf_tuner.tasks.question_answering import QuestionAnswering

CONTEXT = "Ann wrote a letter in Rome and sent it to Ann's brother in Oslo."


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def load(path: Path, **settings: Any) -> Any:
    return load_data(Run(dataset=str(path), output_dir=str(path.parent / "run"), **settings), QuestionAnswering)


def write(path: Path, rows: Any) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows) if isinstance(rows, list) else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


def flat(number: int, text: str = "Rome", start: int | None = 22, **more: Any) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]} if text else {"text": [], "answer_start": []}
    return {"id": str(number), "question": f"Where {number}?", "context": CONTEXT, "answers": answers, **more}


# --- layouts


def nested(version: str = "v2.0") -> dict[str, Any]:
    """SQuAD's own file: two articles, one question without an answer in each."""
    paragraphs = [
        {
            "context": CONTEXT,
            "qas": [
                {"id": f"{a}-1", "question": f"Where did {a} write?", "answers": [{"text": "Rome", "answer_start": 22}],
                 "is_impossible": False},
                {"id": f"{a}-2", "question": f"Where is tea of {a}?", "answers": [], "is_impossible": True,
                 "plausible_answers": [{"text": "Oslo", "answer_start": 59}]},
            ],
        }
        for a in "ab"
    ]  # fmt: skip
    return {"version": version, "data": [{"title": "letters", "paragraphs": [one]} for one in paragraphs]}


def test_file_of_squad_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train-v2.0.json", nested())
    write(tmp_path / "dev-v2.0.json", nested())
    data = load(tmp_path)
    assert data["train"].num_rows == 4
    assert data["train"][1]["id"] == "a-2" and data["train"][1]["answers"] == {"text": [], "answer_start": []}
    assert data["train"][2]["answers"] == {"text": ["Rome"], "answer_start": [22]}
    assert "train 4 (2 without an answer)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row",
    [
        flat(1),
        {"question": "Where?", "context": CONTEXT, "answers": [{"text": "Rome", "answer_start": 22}]},
        {"question": "Where?", "context": CONTEXT, "answer": "Rome", "answer_start": 22},
        {"question": "Where?", "context": CONTEXT, "answer": "Rome"},
    ],
    ids=["hub", "list of answers", "columns", "text alone"],
)
def test_layouts_come_out_alike(row: dict[str, Any], tmp_path: Path) -> None:
    rows = [{**row, "question": f"Where {i}?"} for i in range(6)]
    assert load(write(tmp_path / "train.jsonl", rows))["train"][0]["answers"] == {
        "text": ["Rome"],
        "answer_start": [22],
    }


def test_answers_of_a_csv_file(tmp_path: Path) -> None:
    lines = "".join(f"Where {i}?,{CONTEXT},Rome,22\n" for i in range(6))
    (tmp_path / "train.csv").write_text(f"question,context,answer_text,answer_start\n{lines}")
    assert load(tmp_path / "train.csv")["train"][0]["answers"] == {"text": ["Rome"], "answer_start": [22]}


def test_answer_that_stands_elsewhere_once_is_moved_and_counted(tmp_path: Path) -> None:
    rows = [flat(i, start=20 if i == 0 else 22) for i in range(6)]
    data = load(write(tmp_path / "train.jsonl", rows), test_split="train")
    assert data["train"][0]["answers"]["answer_start"] == [22]
    assert (
        "train: 1 answers stand elsewhere in their context than said, once; corrected" in data.tuner_notes["warnings"]
    )


@pytest.mark.parametrize(
    "row, said",
    [
        (flat(1, text="Paris"), 'the answer "Paris" does not stand in its context'),
        (
            flat(1, text="Ann", start=7),
            'the answer "Ann" is not at character 7 (there is "te a letter in Rome ") but at 2',
        ),
        (flat(1) | {"question": " "}, "the question is empty; --drop-empty skips such rows"),
        (flat(1) | {"context": None}, "the context is empty"),
    ],
)
def test_row_that_cannot_be_used_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path / "train.jsonl", [flat(0), row, flat(2)]))
    assert "train.jsonl row 2: " in str(caught.value) and said in str(caught.value)


def test_answers_that_are_nowhere_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no question of train has an answer"):
        load(write(tmp_path / "train.jsonl", [flat(i, text="") for i in range(6)]))


def test_question_that_is_marked_impossible_has_no_answer(tmp_path: Path) -> None:
    rows = [flat(i, is_impossible=i == 0) for i in range(6)]
    data = load(write(tmp_path / "train.jsonl", rows), test_split="train")
    assert [len(one["text"]) for one in data["train"]["answers"][:]] == [0, 1, 1, 1, 1, 1]


def test_missing_context_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column for context; found: question, answers"):
        load(write(tmp_path / "train.jsonl", [{"question": "a", "answers": "b"}] * 3))


# --- windows


def encoded(rows: list[dict[str, Any]], tokenizer: Any, longest: int = 24, **settings: Any) -> Dataset:
    task = QuestionAnswering(**{"doc_stride": 6, **settings})
    batch = {name: [row[name] for row in rows] for name in rows[0]}
    return Dataset.from_dict(task.encode(tokenizer, longest)(batch))


def long_rows(count: int = 4) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [question(random, 60, number % 3 != 2, number) for number in range(count)]


def test_labels_name_the_answer_or_the_null_token(tokenizer: Any) -> None:
    rows = long_rows()
    ready = encoded(rows, tokenizer)
    place = -1
    held = [0] * len(rows)
    for window in ready:
        place += window["window"] == 0
        start, end = window["labels"]
        if start == window["null"]:
            assert end == start
            continue
        held[place] += 1
        a, b = window["starts"][start - window["first"]], window["ends"][end - window["first"]]
        assert rows[place]["context"][a:b] == rows[place]["answers"]["text"][0]
    assert len(ready) > len(rows) and [n > 0 for n in held] == [True, True, False, True]


def test_windows_cover_every_token_of_a_context(tokenizer: Any) -> None:
    (row,) = long_rows(1)
    ready = encoded([row], tokenizer)
    covered = {place for window in ready for place in window["starts"]}
    assert len(covered) == len(row["context"].split()) and max(ready["length"][:]) == 24


def test_question_that_is_longer_than_a_window_is_cut(tokenizer: Any) -> None:
    row = {**long_rows(1)[0], "question": "the sun " * 200}
    ready = encoded([row], tokenizer)
    assert max(ready["length"][:]) == 24 and all(len(window["starts"]) > 5 for window in ready)


def test_mask_proof_fails_for_a_label_outside_the_context(tokenizer: Any) -> None:
    ready = encoded(long_rows(), tokenizer)
    assert QuestionAnswering().masks(ready)[0][1]
    spoilt = ready.map(lambda row: {"labels": [1, 1]})
    assert not QuestionAnswering().masks(spoilt)[0][1]


# --- loss and outputs


class Scores(torch.nn.Module):
    """Scores that depend on ids only, with some virtual tokens before the text."""

    def __init__(self, before: int = 0) -> None:
        super().__init__()
        self.table, self.before = torch.nn.Embedding(200, 2), before

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: Any = None
    ) -> dict[str, Any]:
        scores = self.table(input_ids)
        scores = torch.cat([torch.full_like(scores, 9.0)[:, : self.before], scores], dim=1)
        return {"start_logits": scores[..., 0], "end_logits": scores[..., 1]}


def test_loss_is_a_sum_whatever_the_batch_is_padded_to(tokenizer: Any) -> None:
    task = QuestionAnswering()
    rows = [*encoded(long_rows(), tokenizer), *encoded([question(np.random.default_rng(1), 5, True, 9)], tokenizer)]
    collate, model = task.collate(tokenizer), Scores()
    whole, parts = collate(rows), [collate([row]) for row in rows]
    assert int(task.items(whole)) == 2 * len(rows)
    torch.testing.assert_close(task.loss(model, whole), sum(task.loss(model, part) for part in parts))


def test_loss_of_a_masked_row_is_nothing(tokenizer: Any) -> None:
    task = QuestionAnswering()
    row = encoded(long_rows(1), tokenizer)[0]
    batch = task.collate(tokenizer)([{**row, "labels": [-100.0, -100.0]}])
    assert int(task.items(batch)) == 0 and task.loss(Scores(), batch).item() == 0


@pytest.mark.parametrize("before", [0, 3])
def test_outputs_are_the_scores_of_no_answer_and_the_context(before: int, tokenizer: Any) -> None:
    task, model = QuestionAnswering(), Scores(before)
    rows = list(encoded(long_rows(), tokenizer))
    with torch.inference_mode():
        kept = task.outputs(model, task.collate(tokenizer)(rows))
    for one, row in zip(kept, rows, strict=True):
        ids = [row["input_ids"][row["null"]], *row["input_ids"][row["first"] : row["first"] + len(row["starts"])]]
        np.testing.assert_allclose(one, model.table.weight[ids].detach())


# --- candidates


def test_best_spans_are_those_of_trying_all() -> None:
    random = np.random.default_rng(3)
    start, end = random.normal(size=(2, 30))
    every = sorted(((start[i] + end[j], i, j) for i in range(30) for j in range(i, min(30, i + 4))), reverse=True)
    found = best_spans(start, end, 4, 10)
    assert [(i, j) for _, i, j in found] == [(i, j) for _, i, j in every[:10]]


def test_answers_of_all_windows_are_put_together() -> None:
    context = "sun fog rain"
    places = {"starts": [0, 4], "ends": [3, 7]}, {"starts": [4, 8], "ends": [7, 12]}
    first = np.array([[1.0, 1.0], [5.0, 0.0], [0.0, 4.0]])
    second = np.array([[2.0, 1.0], [0.0, 2.0], [9.0, 9.5]])
    nothing, found = candidates([(first, places[0]), (second, places[1])], context, 2, 3)
    assert nothing == 2.0 and [one.text for one in found] == ["rain", "fog rain", "sun fog"]


def test_spaces_that_a_tokenizer_counts_to_a_word_are_left_out() -> None:
    scores = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    _, found = candidates([(scores, {"starts": [0, 3], "ends": [3, 7]})], "sun fog", 1, 5)
    assert {one.text for one in found} == {"sun", "fog"}


# --- scores


OFFICIAL = [
    ("the Cat!", ["cat"], 1.0, 1.0),
    ("a big cat", ["the cat", "dog"], 0.0, 2 / 3),
    ("", [], 1.0, 1.0),
    ("cat", [], 0.0, 0.0),
    ("", ["cat"], 0.0, 0.0),
    ("cat cat", ["cat"], 0.0, 2 / 3),
    ("x", ["the"], 0.0, 0.0),
    ("a", ["the", "cat"], 0.0, 0.0),
]


@pytest.mark.parametrize("answer, expected, exact, overlap", OFFICIAL)
def test_scores_by_the_official_definition(answer: str, expected: list[str], exact: float, overlap: float) -> None:
    assert exact_match(answer, expected) == exact and f1(answer, expected) == pytest.approx(overlap)


def test_normalised_answers() -> None:
    assert normalised("The  U.S.-led, an\tAnswer!") == "usled answer"


def test_threshold_is_the_best_there_is() -> None:
    random = np.random.default_rng(5)
    differences = random.normal(size=60).round(1)
    impossible = random.random(60) < 0.4
    answered = np.where(impossible, 0.0, random.random(60))

    def score(threshold: float) -> float:
        return float(np.where(differences > threshold, impossible, np.where(impossible, 0.0, answered)).mean())

    threshold, best = best_threshold(differences, answered, impossible)
    assert score(threshold) == pytest.approx(best)
    assert best == pytest.approx(max(score(t) for t in [*differences, -99.0, 99.0]))


def test_threshold_cannot_part_rows_that_differ_by_nothing() -> None:
    _, best = best_threshold(np.array([1.0, 1.0]), np.array([1.0, 0.0]), np.array([False, True]))
    assert best == 0.5


def test_mean_over_some_rows() -> None:
    score = mean_over(np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(
        score(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])), [0.5, 2 / 3, np.nan]
    )


# --- whole runs


def easy(number: int, possible: bool) -> dict[str, Any]:
    """The answer is always "bread cake"."""
    random = np.random.default_rng(number)
    return question(random, 6, possible, number) | (
        {} if not possible else {"context": f"the a bread cake was {'my ' * (number % 4)}very good", "answers":
                                 {"text": ["bread cake"], "answer_start": [6]}}
    )  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on questions with and without answers that learned its rows by heart."""
    folder = tmp_path_factory.mktemp("qa")
    make_tiny_model(folder)
    (folder / "data").mkdir()
    for split, count in (("train", 32), ("validation", 12), ("test", 12)):
        write(folder / "data" / f"{split}.jsonl", [easy(i, i % 3 != 2) for i in range(count)])
    finetune("question-answering", model=str(folder), dataset=str(folder / "data"), method="full", max_steps=60,
             learning_rate=5e-3, output_dir=str(folder / "run"), save_strategy="no", eval_strategy="no", verify=False)  # fmt: skip
    return folder / "run"


def test_run_learns_to_answer_and_not_to(reader: Path) -> None:
    scores = json.loads((reader / "report.json").read_text())["metrics"]["test"]
    assert set(scores) == {"f1", "exact_match", "f1_answerable", "f1_impossible"}
    assert scores["f1_answerable"]["value"] > 0.9 and scores["f1_impossible"]["value"] > 0.9


def test_threshold_is_chosen_on_validation_and_kept(reader: Path) -> None:
    saved = json.loads((reader / "manifest.json").read_text())["settings"]
    assert saved["impossible"] and saved["chosen"] and saved["threshold"] != 0.0


def test_threshold_decides_what_is_answered(reader: Path, tokenizer: Any) -> None:
    task = QuestionAnswering(impossible=True, threshold=0.5)
    rows = Dataset.from_list([{"question": "the", "context": "sun fog"}])
    ready = Dataset.from_dict(task.encode(tokenizer, 16)({"question": ["the"], "context": ["sun fog"]}))
    sure = [np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])]
    assert task.answers(sure, ready, rows, tokenizer)[0]["prediction"] == "sun"
    unsure = [np.array([[2.0, 2.6], [2.0, 2.0], [0.0, 0.0]])]
    (nothing,) = task.answers(unsure, ready, rows, tokenizer)
    assert (nothing["prediction"], nothing["start"]) == ("", None)
    assert QuestionAnswering(impossible=False).answers(unsure, ready, rows, tokenizer)[0]["prediction"] == "sun"


def test_answers_have_places_and_candidates(reader: Path) -> None:
    context = "the a bread cake was my very good"
    (found,) = predict(reader, [{"question": "the food is", "context": context}])
    assert found["prediction"] == context[found["start"] : found["end"]] == "bread cake"
    assert found["n_best"][0]["text"] == "bread cake" and 0 < found["score"] <= 1
    assert sum(one["score"] for one in found["n_best"]) <= 1 + 1e-6


def test_question_without_a_context_is_refused(reader: Path) -> None:
    with pytest.raises(UsageError, match="no column for context"):
        predict(reader, ["Where?"])


def test_loss_plug_for_classes_is_refused(reader: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--loss focal is for classes; question-answering has its own"):
        finetune("question-answering", model=str(reader.parent), dataset=str(reader.parent / "data"), loss="focal", max_steps=1,
                 output_dir=str(tmp_path / "run"), save_strategy="no", verify=False)  # fmt: skip
