"""Words, tags and spans; windows; losses, scores and answers of token classification."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score
from tiny_tasks.token_classification import sentence
from transformers import AutoTokenizer

from hf_tuner import finetune, predict
from hf_tuner.config import Run
from hf_tuner.data.files import kind_of, read_file
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.losses import focal
from hf_tuner.metrics._entities import entities, per_entity, scores, tag_scores
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks._tags import bio, marking, ordered, spans_to_tags, words_of
from hf_tuner.tasks._windows import special_ids, windows, word_ids
from hf_tuner.tasks.token_classification import TokenClassification

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def task(stride: int = 8, names: tuple[str, ...] = TAGS) -> TokenClassification:
    return TokenClassification(labels=Labels("single", names), stride=stride)


def ready(rows: dict[str, list], tokenizer: Any, longest: int = 16, stride: int = 8) -> Dataset:
    return Dataset.from_dict(task(stride).encode(tokenizer, longest)(rows))


# --- words and tags


@pytest.mark.parametrize(
    "text, words",
    [
        ("Ann's 3.5 m_2, ok", ["Ann", "'", "s", "3", ".", "5", "m_2", ",", "ok"]),
        ("Zoë läuft", ["Zoë", "läuft"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("東京 Tokyo塔", ["東", "京", "Tokyo", "塔"]),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert [text[a:b] for a, b in words_of(text)] == words


@pytest.mark.parametrize(
    "tags, repaired, kind, wrong",
    [
        ("O B-A I-A B-A O", "O B-A I-A B-A O", "BIO", 0),
        ("I-A I-A B-A O I-B", "B-A I-A B-A O B-B", "IOB1", 0),
        ("B-A O I-B I-A", "B-A O B-B B-A", "BIO", 2),
        ("S-A B-A I-A E-A I-A", "B-A B-A I-A I-A B-A", "IOBES", 1),
        ("U-A B-A L-A O", "B-A B-A I-A O", "IOBES", 0),
    ],
)
def test_tags_are_read_as_bio(tags: str, repaired: str, kind: str, wrong: int) -> None:
    assert bio(tags.split()) == repaired.split()
    assert marking([tags.split()]) == (kind, wrong)


def test_tags_are_in_an_order_that_the_data_do_not_change() -> None:
    assert ordered({"I-b", "B-b", "O", "B-a"}, True) == ("O", "B-a", "B-b", "I-b")
    assert ordered({"X10", "X2"}, False) == ("X2", "X10")


def test_spans_become_tags_of_words() -> None:
    assert spans_to_tags("Ann Lee (Rome)", [("PER", 0, 8), ("LOC", 9, 13)]) == ["B-PER", "I-PER", "O", "B-LOC", "O"]


@pytest.mark.parametrize(
    "spans, said",
    [
        ([("PER", 0, 2)], 'span 0–2 ("An", PER) cuts a word'),
        ([("PER", 0, 7), ("PER", 4, 7)], 'span 4–7 ("Lee", PER) overlaps another'),
        ([("PER", 4, 70)], "span 4–70 (PER) is not inside the text of 14 characters"),
    ],
)
def test_span_that_is_not_made_of_words_is_named(spans: list, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        spans_to_tags("Ann Lee (Rome)", spans)
    assert said in str(caught.value)


# --- data


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
    with pytest.raises(UsageError, match="train.bio line 2: 1 columns where the first line has 2"):
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


# --- windows


@pytest.mark.parametrize("room, stride", [(7, 3), (5, 0), (9, 4), (100, 10)])
def test_every_word_belongs_to_one_window_where_it_has_most_around_it(room: int, stride: int) -> None:
    sizes = np.random.default_rng(room).integers(1, 4, 60).tolist()
    found = windows(sizes, room, stride)
    assert [k for w in found for k in range(w.own, w.own_end)] == list(range(60))
    until = np.cumsum([0, *sizes])
    for window in found:
        assert window.begin <= window.own <= window.own_end <= window.end
        assert until[window.end] - until[window.begin] <= room

        def around(word: int, other: Any) -> int:
            inside = other.begin <= word < other.end
            left = until[word] - until[other.begin] if other.begin else 10**6
            right = until[other.end] - until[word + 1] if other.end < 60 else 10**6
            return int(min(left, right)) if inside else -1

        for word in range(window.own, window.own_end):
            assert around(word, window) >= max(around(word, other) for other in found) - 3  # half a word


def test_rows_without_words_have_one_empty_window() -> None:
    (only,) = windows([], 5, 2)
    assert (only.begin, only.end, only.own, only.own_end) == (0, 0, 0, 0)


def test_first_token_of_each_word_carries_its_tag(tokenizer: Any) -> None:
    rows = ready({"tokens": [["rain", "unknown-word", "sun"]], "tags": [["B-PER", "I-PER", "O"]]}, tokenizer)
    assert rows[0]["input_ids"][0] == tokenizer.cls_token_id and rows[0]["input_ids"][-1] == tokenizer.sep_token_id
    labels = rows[0]["labels"]
    assert [labels[i] for i in rows[0]["heads"]] == [3, 4, 0]
    assert sum(label != -100 for label in labels) == 3


def test_long_row_is_stitched_to_one_answer_a_word(tokenizer: Any) -> None:
    given = sentence(np.random.default_rng(0), 100)
    words = len(given["tokens"])
    rows = ready({"tokens": [given["tokens"], ["sun"]], "tags": [["O"] * words, ["O"]]}, tokenizer)
    assert rows["window"][:][-2:] != [0, 0] and max(rows["length"][:]) == 16
    kept = [np.eye(5, dtype=np.float32)[np.full(len(heads), 1)] for heads in rows["heads"][:]]
    answers = task().answers(kept, rows, Dataset.from_dict({"tokens": [given["tokens"], ["sun"]]}), tokenizer)
    assert answers[0]["tags"] == ["B-LOC"] * words and answers[1]["tags"] == ["B-LOC"]


def test_word_that_the_tokenizer_drops_still_has_a_token(tokenizer: Any) -> None:
    assert word_ids(tokenizer)(["\u200b", "sun"], [False, True])[0] == [tokenizer.unk_token_id]
    assert special_ids(tokenizer) == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])


def test_byte_level_tokenizer_sees_the_space_before_a_word(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.train_from_iterator(["rain sun rain sun"] * 9, trainers.BpeTrainer(vocab_size=300, show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=raw)
    joined = [token for ids in word_ids(fast)(["rain", "sun"], [False, True]) for token in ids]
    assert joined == fast("rain sun", add_special_tokens=False)["input_ids"]


def test_mask_proof_fails_when_the_loss_covers_more(tokenizer: Any) -> None:
    rows = ready({"tokens": [["rain", "sun"]], "tags": [["O", "O"]]}, tokenizer)
    assert task().masks(rows)[0][1]
    spoilt = rows.map(lambda row: {"labels": [0] * len(row["labels"])})
    assert not task().masks(spoilt)[0][1]


# --- loss and scores


class Scores(torch.nn.Module):
    """Logits that depend on ids only, with some virtual tokens before the text."""

    def __init__(self, tags: int, before: int = 0) -> None:
        super().__init__()
        self.table, self.before = torch.nn.Embedding(200, tags), before

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.table(input_ids)
        return {"logits": torch.cat([torch.full_like(logits, 9.0)[:, : self.before], logits], dim=1)}


def test_loss_is_a_sum_over_words_whatever_the_batch_is_padded_to(tokenizer: Any) -> None:
    rows = ready(
        {"tokens": [["rain"], ["sun", "fog", "the", "a"] * 2], "tags": [["O"], ["B-PER", "O", "O", "O"] * 2]}, tokenizer
    )
    model, collate = Scores(5), task().collate(tokenizer)
    whole, parts = collate(list(rows)), [collate([row]) for row in rows]
    assert task().items(whole) == 9
    torch.testing.assert_close(task().loss(model, whole), sum(task().loss(model, part) for part in parts))


def test_loss_plug_is_given_the_words_only(tokenizer: Any) -> None:
    rows = ready({"tokens": [["rain", "sun"]], "tags": [["O", "B-PER"]]}, tokenizer)
    model, batch = Scores(5), task().collate(tokenizer)(list(rows))
    labels, logits = batch["labels"], model.table(batch["input_ids"])
    given = task().loss(
        model, dict(batch), lambda scores, right: focal.loss(scores, right, None, focal.Config(gamma=2))
    )
    each = torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100], reduction="none")
    torch.testing.assert_close(given, ((1 - torch.exp(-each)) ** 2 * each).sum())


@pytest.mark.parametrize("before", [0, 3])
def test_outputs_are_the_logits_of_the_words(before: int, tokenizer: Any) -> None:
    rows = ready({"tokens": [["rain", "sun"], ["fog"]], "tags": [["O", "O"], ["O"]]}, tokenizer)
    model = Scores(5, before)
    with torch.inference_mode():
        kept = task().outputs(model, task().collate(tokenizer)(list(rows)))
    assert [one.shape for one in kept] == [(2, 5), (1, 5)]
    np.testing.assert_allclose(kept[1][0], model.table.weight[rows[1]["input_ids"][1]].detach())


def random_tags(seed: int, marked: bool = True) -> tuple[list[list[str]], list[list[str]]]:
    random = np.random.default_rng(seed)
    names = [*TAGS, "B-ORG"] if marked else ["NN", "VB", "DT"]
    sizes = random.integers(1, 12, 40)
    return tuple([[str(t) for t in random.choice(names, n)] for n in sizes] for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_seqeval(seed: int) -> None:
    expected, predicted = random_tags(seed)
    mine = {
        name: float(score(np.ones((1, 40)))[0]) for name, score in scores(*map(repaired, (expected, predicted))).items()
    }
    theirs = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    for name, score in theirs.items():
        assert mine[name] == pytest.approx(score(expected, predicted), abs=1e-12)
    same = repaired(expected), repaired(predicted)
    assert mine["accuracy"] == pytest.approx(accuracy_score(*same), abs=1e-12)
    table = classification_report(expected, predicted, output_dict=True, zero_division=0)
    for line in per_entity(*same):
        assert (line["f1"] or 0.0) == pytest.approx(table[line["name"]]["f1-score"], abs=1e-12)
        assert line["rows"] == table[line["name"]]["support"]


def repaired(rows: list[list[str]]) -> list[list[str]]:
    return [bio(row) for row in rows]


def test_weights_count_rows_as_often_as_they_are_drawn() -> None:
    expected, predicted = random_tags(7)
    weights = np.zeros((1, 40))
    weights[0, [3, 8]] = 2, 1
    drawn = [3, 3, 8]
    again = [[rows[i] for i in drawn] for rows in (expected, predicted)]
    assert scores(*map(repaired, (expected, predicted)))["f1"](weights)[0] == pytest.approx(f1_score(*again))


def test_plain_tags_are_scored_word_by_word() -> None:
    from sklearn.metrics import accuracy_score as plain_accuracy
    from sklearn.metrics import f1_score as plain_f1

    expected, predicted = random_tags(3, marked=False)
    flat = [[tag for row in rows for tag in row] for rows in (expected, predicted)]
    mine = {name: float(score(np.ones((1, 40)))[0]) for name, score in tag_scores(expected, predicted).items()}
    assert mine["accuracy"] == pytest.approx(plain_accuracy(*flat))
    assert mine["macro_f1"] == pytest.approx(plain_f1(*flat, average="macro"))


def test_entities_that_stand_side_by_side_are_two() -> None:
    assert entities(["B-A", "B-A", "I-B"]) == [("A", 0, 1), ("A", 1, 2), ("B", 2, 3)]


# --- whole runs


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on texts with spans that learned its training rows by heart."""
    folder = tmp_path_factory.mktemp("spans")
    make_tiny_model(folder)
    texts = [("rain in ball", 8, 12), ("ball the sun", 0, 4), ("a team was ball today", 11, 15), ("fog", 0, 0)]
    rows = [{"text": text, "spans": [{"start": a, "end": b, "label": "THING"}] if b else []} for text, a, b in texts]
    (folder / "data").mkdir()
    write(folder / "data" / "train.jsonl", rows * 4)
    write(folder / "data" / "test.jsonl", rows)
    finetune("token-classification", model=str(folder), dataset=str(folder / "data"), method="full", max_steps=40,
             learning_rate=5e-3, output_dir=str(folder / "run"), save_strategy="no", verify=False)  # fmt: skip
    return folder / "run"


def test_predictions_are_spans_of_the_text(spoken: Path) -> None:
    found = predict(spoken, ["the ball!", "", {"text": "x"}["text"]])
    (span,) = found[0]["prediction"]
    assert (span["label"], span["start"], span["end"], span["text"]) == ("THING", 4, 8, "ball") and 0.5 < span[
        "score"
    ] <= 1
    assert found[1]["prediction"] == []


def test_words_are_answered_with_words(spoken: Path) -> None:
    (found,) = predict(spoken, [{"tokens": ["the", "ball"]}])
    assert found["tags"] == ["O", "B-THING"]
    assert found["prediction"][0] | {"score": 1} == {"label": "THING", "start": 1, "end": 2, "text": "ball", "score": 1}


def test_report_has_each_entity(spoken: Path) -> None:
    report = json.loads((spoken / "report.json").read_text())
    assert report["metrics"]["test"]["f1"]["value"] == 1.0
    assert "THING" in (spoken / "report.html").read_text()


def test_rows_of_other_entities_are_refused(spoken: Path, tmp_path: Path) -> None:
    from hf_tuner.evaluation.evaluate import evaluate

    write(tmp_path / "other.jsonl", [{"tokens": ["a", "b"], "tags": ["B-GPE", "O"]}])
    with pytest.raises(UsageError, match="none of the tags of these rows"):
        evaluate(spoken, dataset=str(tmp_path / "other.jsonl"))


def test_parts_of_speech(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"tokens": ["the", "sun", f"w{i}"], "pos_tags": ["DT", "NN", "X"]} for i in range(8)]
    write(tmp_path / "train.jsonl", rows)
    report = finetune("token-classification", model=str(tiny_model), dataset=str(tmp_path), method="full", max_steps=2,
                      output_dir=str(tmp_path / "run"), save_strategy="no", verify=False)  # fmt: skip
    assert list(report.metrics["test"]) == ["accuracy", "macro_f1"]
    (found,) = predict(tmp_path / "run", [{"tokens": ["the", "sun"]}])
    assert len(found["prediction"]) == 2


@pytest.mark.parametrize(
    "settings", [{"loss": "focal"}, {"class_weights": "auto"}, {"class_weights": '{"B-sport": 5}'}]
)
def test_losses_and_weights_of_classes(settings: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write(tmp_path / "train.jsonl", [sentence(random, 8) for _ in range(12)])
    report = finetune("token-classification", model=str(tiny_model), dataset=str(tmp_path), max_steps=2, verify=False,
                      output_dir=str(tmp_path / "run"), save_strategy="no", **settings)  # fmt: skip
    assert report.metrics["test"]["f1"]["value"] is not None
