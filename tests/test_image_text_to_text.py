"""Image-text-to-text: layouts, what is learnt, what is refused, how answers are scored, and whether anything is learnt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_tasks.image_text_to_text import SPECIAL, make_smolvlm, tokenizer_of, write_questions

from hf_tuner import finetune, predict
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import encoded
from hf_tuner.metrics import _vqa as vqa
from hf_tuner.models.foreign import processor_of
from hf_tuner.pictures import open_image
from hf_tuner.tasks import _vision
from hf_tuner.tasks._picture_talk import PICTURE, in_parts, placed, texts_of
from hf_tuner.tasks.image_text_to_text import Config, ImageTextToText

# ruff: noqa: E501 - the tables read best with one row a line

SHOWS = [{"type": "image"}, {"type": "text", "text": "what is it"}]
ANSWERS = [{"role": "assistant", "content": [{"type": "text", "text": "a square"}]}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SmolVLM."""
    return make_smolvlm(tmp_path_factory.mktemp("smolvlm"))


def write(folder: Path, rows: list[dict[str, Any]], pictures: int = 3) -> Run:
    """A run on rows of JSON Lines, and some pictures beside them."""
    for number in range(pictures):
        Image.new("RGB", (40 + 8 * number, 48), (80 * number, 100, 50)).save(folder / f"{number}.png")
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Run(task="image-text-to-text", dataset=str(folder), output_dir=str(folder / "run"), task_config=Config())


def loaded(folder: Path, rows: list[dict[str, Any]]) -> Any:
    """Canonical training rows."""
    return load_data(write(folder, rows), ImageTextToText)["train"]


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"images": ["0.png"], "messages": [{"role": "user", "content": SHOWS}, *ANSWERS]}, f"{PICTURE}what is it", "a square"),
        ({"image": "0.png", "messages": [{"role": "user", "content": "what is it"}, {"role": "assistant", "content": "a square"}]},
         "what is it", "a square"),
        ({"image": "0.png", "conversations": [{"from": "human", "value": "<image>\nwhat is it"}, {"from": "gpt", "value": "a square"}]},
         f"{PICTURE}what is it", "a square"),
        ({"images": ["0.png"], "prompt": [{"role": "user", "content": SHOWS}], "completion": ANSWERS}, f"{PICTURE}what is it", "a square"),
        ({"image": "0.png", "question": "what is it", "answer": "a square"}, "what is it", "a square"),
        ({"image": "0.png", "question": "how many", "answer": 3}, "how many", "3"),
        ({"image": "0.png", "question": "what is it", "multiple_choice_answer": "a box", "answers": [{"answer": "a square", "answer_id": 1}]},
         "what is it", "a box"),
        ({"image": "0.png", "question": "what is it", "answers": ["a box", "a square", "a square"]}, "what is it", "a square"),
        ({"image": "0.png", "caption": "a square"}, "Describe the picture.", "a square"),
        ({"image": "0.png", "text": "a square", "captions": ["a square", "a box"]}, "Describe the picture.", "a square"),
    ],
)  # fmt: skip
def test_layouts_become_one_conversation(row: dict[str, Any], question: str, answer: str, tmp_path: Path) -> None:
    read = loaded(tmp_path, [row, row])[0]
    assert [turn["content"] for turn in read["prompt"]] == [question]
    assert [turn["content"] for turn in read["completion"]] == [answer]
    assert read["tools"] == ""


def test_answers_of_people_are_kept_beside_the_one_that_is_learnt(tmp_path: Path) -> None:
    people = [{"answer": "red", "answer_id": 1}, {"answer": "dark red", "answer_id": 2}]
    row = loaded(tmp_path, [{"image": "0.png", "question": "what colour", "answers": people}] * 2)[0]
    assert row["references"] == ["red", "dark red"]
    assert texts_of({"text": ["a", ""], "answer_start": [1, 2]}) == ["a"] and texts_of(None) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"images": ["0.png"], "messages": [{"role": "user", "content": [*SHOWS, {"type": "image"}]}, *ANSWERS]},
         "row 1: its messages show 2 pictures, the row has 1"),
        ({"images": ["0.png"], "messages": [{"role": "user", "content": [{"type": "image", "path": "0.png"}]}, *ANSWERS]},
         'a message holds its picture itself; put pictures into a column "images"'),
        ({"images": ["0.png"], "messages": [{"role": "user", "content": [{"type": "audio"}]}, *ANSWERS]}, "a part of type audio"),
        ({"images": ["0.png"], "messages": [{"role": "user", "content": SHOWS}, {"role": "assistant", "content": [{"type": "image"}]}]},
         "the assistant shows a picture"),
        ({"images": ["0.png", "none.png"], "messages": [{"role": "user", "content": "both"}, *ANSWERS]}, r"none\.png \(cannot be read"),
        ({"image": "0.png", "question": "", "answer": "red"}, '"question" is empty'),
        ({"image": "0.png", "question": "what colour", "answer": ""}, '"answer" is empty'),
        ({"picture_of": "0.png", "question": "what colour", "answer": "red"}, "--columns images=COLUMN"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_refused_with_the_reason(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        loaded(tmp_path, [row, row])


def test_pictures_that_nothing_marks_come_first() -> None:
    asked = {"role": "user", "content": "and?", "more": ""}
    system = {"role": "system", "content": "short", "more": ""}
    made = in_parts(placed([system, asked], 2))
    assert made[0]["content"] == [{"type": "text", "text": "short"}]
    assert made[1]["content"] == [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "and?"}]
    with pytest.raises(UsageError, match="show 1 picture, the row has 2"):
        placed([{**asked, "content": f"{PICTURE}and?"}], 2)


def test_only_what_the_assistant_says_is_learnt_and_pictures_never(model: Path, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": SHOWS}, *ANSWERS,
        {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "green"}]},
    ]  # fmt: skip
    rows = loaded(tmp_path, [{"images": ["0.png", "1.png"], "messages": turns}] * 2)
    processor = processor_of("AutoProcessor", str(model))
    task = ImageTextToText(score="likelihood")
    task.dress(processor)
    ready = encoded(task, processor, rows, 128, "train")
    row = ready.with_format(None)[0]
    said = processor.tokenizer.decode([label for label in row["labels"] if label != -100])
    assert said == " a square<end_of_utterance> green<end_of_utterance>"
    assert row["ends"] == row["turns"] == 2 and row["input_ids"].count(processor.image_token_id) == 8
    assert all(passed for _, passed, _ in task.masks(ready))
    batch = task.collate(processor)([{**one, "epoch": 0, "row": 0} for one in ready])
    assert batch["input_ids"][0].tolist() == row["input_ids"] and batch["labels"].shape == batch["input_ids"].shape
    assert batch["pixel_values"].shape[:2] == (2, 2)
    last = ImageTextToText(score="likelihood", loss_on="completion")
    only = encoded(last, processor, rows, 128, "train").with_format(None)[0]["labels"]
    assert processor.tokenizer.decode([label for label in only if label != -100]) == " green<end_of_utterance>"


def test_a_picture_that_is_learnt_and_asked_about_is_opened_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = loaded(tmp_path, [{"image": "0.png", "question": "what is it", "answer": "a square"}] * 2)
    processor, task = processor_of("AutoProcessor", str(model)), ImageTextToText(score="answers")
    task.dress(processor)
    ready, opened = encoded(task, processor, rows, 128, "test"), []
    monkeypatch.setattr(_vision, "open_image", lambda file, **how: opened.append(file) or open_image(file, **how))
    batch = task.collate(processor)(list(ready))
    assert torch.equal(batch["pixel_values"], batch["ask.pixel_values"]) and len(opened) == 2


def test_what_does_not_fit_is_left_out_or_refused(model: Path, tmp_path: Path) -> None:
    long = {"image": "0.png", "question": "what " * 60, "answer": "red"}
    rows = loaded(tmp_path, [long, {"image": "1.png", "question": "what colour", "answer": "red"}])
    processor = processor_of("AutoProcessor", str(model))
    task = ImageTextToText(score="answers", max_new_tokens=4)
    task.dress(processor)
    assert len(encoded(task, processor, rows, 64, "train")) == 1
    with pytest.raises(UsageError, match=r"test: 1 rows do not fit in 64 tokens with their pictures \(row 1"):
        encoded(task, processor, rows, 64, "test")
    with pytest.raises(UsageError, match="no conversation reaches an answer within 12 tokens"):
        encoded(task, processor, rows, 12, "train")


def test_processors_that_do_not_chat_are_refused_with_what_to_do(model: Path) -> None:
    processor = processor_of("AutoProcessor", str(model))
    template = processor.chat_template
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(UsageError, match=r"comes without a chat template.*--chat-template FILE.*image-to-text"):
        ImageTextToText().dress(processor)
    assert "as given" in ImageTextToText(chat_template=template).dress(processor)
    blind = template.replace("<image>", "")
    with pytest.raises(UsageError, match="writes 0 times <image> for one picture"):
        ImageTextToText(chat_template=blind).dress(processor)
    with pytest.raises(UsageError, match="no token that stands for a picture"):
        ImageTextToText().dress(type("BlipLike", (), {"tokenizer": processor.tokenizer})())


def test_llava_without_an_end_in_its_template_learns_to_end(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, LlavaProcessor

    template = (
        "{% for m in messages %}{{ m.role.upper() }}: {% for part in m.content %}{% if part.type == 'image' %}<image>\n"
        "{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    size = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size), tokenizer_of(SPECIAL), patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template,
    ).save_pretrained(tmp_path)  # fmt: skip
    rows = loaded(tmp_path, [{"image": "0.png", "question": "what colour", "answer": "red"}] * 2)
    processor = processor_of("AutoProcessor", str(tmp_path))
    task = ImageTextToText(score="answers", max_new_tokens=4)
    task.dress(processor)
    row = encoded(task, processor, rows, 128, "train").with_format(None)[0]
    assert processor.tokenizer.decode([label for label in row["labels"] if label != -100]) == " red</s>"
    assert row["input_ids"].count(processor.image_token_id) == 16 and row["asked"].endswith("ASSISTANT:")
    task.collate(processor)(list(encoded(task, processor, rows, 128, "train")))


@pytest.mark.parametrize(
    ("answer", "known", "expected"),
    [
        ("red", ["red"] * 10, 1.0),
        ("red", ["red"] * 3 + ["blue"] * 7, 0.9),  # 7 of 10 ways leave three, 3 leave two: (7 + 3 · 2/3) / 10
        ("red", ["red"] + ["blue"] * 9, 0.3),
        ("Two!", ["2"] * 4 + ["3"] * 6, 1.0),
        ("the dont", ["don't"] * 10, 1.0),
        ("green", ["red"] * 10, 0.0),
        ("red", ["red", "red", "blue"], 2 / 3),
    ],
)
def test_accuracy_is_that_of_the_vqa_challenge(answer: str, known: list[str], expected: float) -> None:
    assert vqa.accuracy(answer, known) == pytest.approx(expected)


def test_answers_are_compared_without_what_does_not_matter() -> None:
    assert vqa.exact("A  Red-ish square.", ["red-ish square"]) == 1.0
    assert vqa.normalised("1,000 dogs at 2.5 p.m.") == "1000 dogs at 2.5 pm"
    assert vqa.overlap("a big red square", ["red square"]) == pytest.approx(0.8)


def test_score_fits_the_data(tmp_path: Path) -> None:
    for name, row, score in (
        ("short", {"image": "0.png", "question": "what colour", "answer": "red"}, "answers"),
        ("long", {"image": "0.png", "caption": "a red square on a wide grey ground"}, "texts"),
        ("chat", {"images": ["0.png"], "messages": [{"role": "user", "content": SHOWS}, *ANSWERS]}, "likelihood"),
    ):
        (tmp_path / name).mkdir()
        run = write(tmp_path / name, [row] * 4)
        assert ImageTextToText.from_data(load_data(run, ImageTextToText), run).score == score


@pytest.mark.parametrize("score", ["texts", "likelihood"])
def test_captions_and_chats_are_measured_and_answered(score: str, model: Path, tmp_path: Path) -> None:
    chat = {
        "images": ["0.png", "2.png"],
        "messages": [{"role": "user", "content": [*SHOWS, {"type": "image"}]}, *ANSWERS],
    }
    plain = {"images": [], "messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "a box"}]}
    caption = {"image": "1.png", "caption": "a red square on a wide green ground"}
    rows = [chat, plain, chat, plain] if score == "likelihood" else [caption] * 4
    write(tmp_path, rows)
    report = finetune("image-text-to-text", model=str(model), dataset=str(tmp_path), method="lora", max_steps=2,
                      output_dir=str(tmp_path / "run"), max_length=96, save_strategy="no", verify=False)  # fmt: skip
    expected = {"texts": {"rouge_l", "bleu", "exact_match"}, "likelihood": {"perplexity", "loss", "accuracy"}}
    assert set(report.metrics["test"]) == expected[score]
    given = [{**{k: v for k, v in rows[0].items() if k != "caption"}}]
    key = "images" if score == "likelihood" else "image"
    given[0][key] = [str(tmp_path / p) for p in given[0][key]] if key == "images" else str(tmp_path / given[0][key])
    answer = predict(tmp_path / "run", given, max_new_tokens=3)[0]
    assert set(answer) == {"prediction", "finished"} and isinstance(answer["prediction"], str)


@pytest.mark.parametrize(("where", "part"), [("language", "text_model"), ("vision", "vision_model"), ("both", "")])
def test_adapters_go_where_they_are_told(where: str, part: str, model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_questions(tmp_path / "data", {"train": 3, "test": 1})
    finetune("image-text-to-text", model=str(model), dataset=str(tmp_path / "data"), method="lora", max_steps=2, warmup_steps=0,
             target_modules=where, output_dir=str(tmp_path / "run"), max_length=96, save_strategy="no", verify=False)  # fmt: skip
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    names = {name for name, value in weights.items() if "lora_B" in name and np.abs(value).max() > 0}
    assert names and all(part in name for name in names) and not [name for name in names if "connector" in name]
    if where == "both":
        assert {"text_model" in name for name in names} == {True, False}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_questions_about_shapes_are_learnt_by_heart(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", {"train": 4}, colours=2)
    (folder / "test.jsonl").write_text((folder / "train.jsonl").read_text())
    model = make_smolvlm(tmp_path / "model", width=64)
    report = finetune("image-text-to-text", model=str(model), dataset=str(folder), method="full", num_train_epochs=150,
                      per_device_train_batch_size=6, learning_rate=2e-3, output_dir=str(tmp_path / "run"), max_length=96,
                      save_strategy="no", eval_strategy="no", seed=0, warmup_steps=20)  # fmt: skip
    assert (
        report.metrics["test"]["exact_match"]["value"]
        == 1.0
        > 2 * report.baselines["majority"]["test"]["exact_match"]["value"]
    )
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    asked = [{"image": str(folder / row["image"]), "question": row["question"]} for row in rows]
    assert [one["prediction"] for one in predict(tmp_path / "run", asked)] == [row["answer"] for row in rows]


def test_a_json_file_of_conversations_beside_its_pictures(tmp_path: Path) -> None:
    """Rows of `messages` and `images`, the layout that chat data of pictures mostly have, are no COCO file."""
    (tmp_path / "pics").mkdir()
    rows = []
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pics" / f"{number}.png")
        rows.append({"messages": [{"role": "user", "content": SHOWS}, *ANSWERS], "images": [f"pics/{number}.png"]})
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    run = Run(task="image-text-to-text", dataset=str(tmp_path), output_dir=str(tmp_path / "run"), task_config=Config())
    data = load_data(run, ImageTextToText)
    assert data["train"].num_rows == 8 and data["train"][0]["prompt"][0]["content"] == f"{PICTURE}what is it"
