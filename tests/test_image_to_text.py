"""Image-to-text: what a picture shows, in words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from task_runs import QUICK, train, weights
from tiny_tasks import Tiny
from tiny_tasks._captioners import COLOURS, PLACES, blip, git, vit_gpt2
from tiny_tasks.image_to_text import draw, write_pictures
from transformers import AutoModelForImageTextToText

from hf_tuner import predict
from hf_tuner.config import Run
from hf_tuner.data.layouts import convert, layout_of
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.models.foreign import processor_of
from hf_tuner.models.load import load_config
from hf_tuner.models.processors import load_processor, tokenizer_in
from hf_tuner.tasks._captions import typical
from hf_tuner.tasks.image_to_text import Config, ImageToText

TASK = "image-to-text"
FAMILIES: dict[str, Callable[[Path], Path]] = {"blip": blip, "git": git, "vit_gpt2": vit_gpt2}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family."""
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Eight pictures as rows have them."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, 8)
    return [{"bytes": None, "path": str(folder / f"{i}.png")} for i in range(8)]


def made(place: Path, **settings: Any) -> tuple[ImageToText, Any]:
    """The task for a model, and its processor."""
    run = Run(task=TASK, model=str(place), dataset="none", output_dir="none", task_config=Config(**settings), seed=3)
    processor = load_processor(run, ImageToText(captions="one"))
    rows = Dataset.from_dict({"captions": [["a red square at the top ."], ["the square is blue ."]]})
    task = ImageToText.from_data({"train": rows}, run).for_model(run, load_config(run), processor, {"train": rows})
    return task, processor


def encoded(task: ImageToText, processor: Any, captions: list[list[str]], pictures: list[dict[str, Any]]) -> list[dict]:
    """Rows as `collate` gets them."""
    found = task.encode(processor, 64)({"captions": captions})
    return [{"image": pictures[i], **{name: found[name][i] for name in found}} for i in range(len(captions))]


def test_tokenizer_and_image_processor_of_two_models_become_one_processor(
    places: dict[str, Path], tmp_path: Path
) -> None:
    processor = processor_of("AutoProcessor", str(places["vit_gpt2"]))
    assert tokenizer_in(processor).eos_token_id == 2 and processor.image_processor.size["height"] == 32
    processor.save_pretrained(tmp_path / "again")
    again = processor_of("AutoProcessor", str(tmp_path / "again"))
    assert type(again) is type(processor) and again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    vit_gpt2(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises((ArtifactError, OSError), match=r"preprocessor_config\.json"):
        processor_of("AutoProcessor", str(tmp_path / "model"))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_the_likeliest_of_what_is_taught(family: str, places: dict[str, Path]) -> None:
    task, _ = made(places[family])
    model = AutoModelForImageTextToText.from_pretrained(places[family]).eval()
    colours = torch.randn((8, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        batch = {"pixel_values": 2 * colours.expand(8, 3, 32, 32)}
        written = task.outputs(model, batch)
        given = batch | task.writer.padded([[*ids.tolist(), task.end] for ids in written], [True] * len(written))
        best = task.writer.taught(model, given).argmax(dim=-1).numpy()
    assert len({tuple(ids) for ids in written}) > 1, "the pictures make no difference"
    for ids, likeliest in zip(written, best, strict=True):
        np.testing.assert_array_equal(likeliest[: len(ids)], ids)
        assert len(ids) == task.max_new_tokens or likeliest[len(ids)] == task.end
        assert task.end not in ids and min(ids, default=0) >= 0
    assert all(len(ids) <= 4 for ids in replace(task, max_new_tokens=4, num_beams=3).outputs(model, batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_a_sum_over_caption_tokens_whatever_stands_beside_a_row(
    family: str, places: dict[str, Path], pictures: list[dict[str, Any]]
) -> None:
    task, processor = made(places[family])
    model = AutoModelForImageTextToText.from_pretrained(places[family]).eval()
    rows = encoded(
        task, processor, [["a red square"], ["the square is at the bottom of the picture ."], ["blue"]], pictures
    )
    collate = task.collate(processor)
    whole, each = collate(rows), [collate([row]) for row in rows]
    assert task.items(whole) == sum(map(task.items, each)) == 4 + 11 + 2
    with torch.inference_mode():
        losses = [float(task.loss(model, one)) for one in each]
        assert float(task.loss(model, whole)) == pytest.approx(sum(losses), rel=1e-5)
        filler = collate([*rows[:2], {**rows[2], "row": -1, "epoch": 0}])
        assert float(task.loss(model, filler)) == pytest.approx(sum(losses[:2]), rel=1e-5)
        kept = np.array(task.quick_outputs(model, whole))
    np.testing.assert_allclose(kept[:, :2], np.array([losses, [4, 11, 2]]).T, rtol=1e-5)


def test_every_caption_ends_once_also_when_it_spells_the_end_or_is_cut(places: dict[str, Path]) -> None:
    task, processor = made(places["blip"])
    captions = [["a red </s> square", "blue"], ["a " * 200]]
    found = task.encode(processor, 12)({"captions": captions})
    every = [ids for row in found["targets"] for ids in row]
    assert [ids.count(task.end) for ids in every] == [1, 1, 1] and all(ids[-1] == task.end for ids in every)
    assert found["length"] == [4, 12]
    proofs = task.masks(Dataset.from_dict(found))
    assert all(passed for _, passed, _ in proofs)
    broken = [[ids[:-1] for ids in row] for row in found["targets"]]
    assert not all(passed for _, passed, _ in task.masks(Dataset.from_dict({**found, "targets": broken})))


def test_one_caption_of_several_is_drawn_by_seed_epoch_and_row(
    places: dict[str, Path], pictures: list[dict[str, Any]]
) -> None:
    task, processor = made(places["blip"])
    known = ["red", "green", "blue", "white"]
    row = encoded(task, processor, [known], pictures)[0]
    collate = task.collate(processor)

    def drawn(seed: int = 3, **about: int) -> str:
        labels = replace(task, seed=seed).collate(processor)([{**row, **about}])["labels"][0]
        return processor.tokenizer.decode(labels[labels != -100], skip_special_tokens=True)

    by_epoch = [drawn(row=0, epoch=epoch) for epoch in range(40)]
    assert set(by_epoch) == set(known) and by_epoch == [drawn(row=0, epoch=epoch) for epoch in range(40)]
    assert by_epoch != [drawn(row=1, epoch=epoch) for epoch in range(40)]
    assert by_epoch != [drawn(4, row=0, epoch=epoch) for epoch in range(40)]
    assert collate([row])["labels"][0, 0] == row["targets"][0][0], "to measure, the first counts"


def test_each_caption_becomes_a_training_row_and_no_evaluation_row(places: dict[str, Path]) -> None:
    task, processor = made(places["blip"], captions="each")
    captions = [["red", "a blue square"], ["green"]]
    ready = Dataset.from_dict({"image": ["first", "second"], **task.encode(processor, 64)({"captions": captions})})
    packed = task.pack(ready, "train", 64)
    assert packed["image"][:] == ["first", "first", "second"] and packed["length"][:] == [2, 4, 2]
    assert packed["said"][:] == [["red"], ["a blue square"], ["green"]]
    assert [len(row) for row in packed["targets"][:]] == [1, 1, 1]
    assert task.pack(ready, "test", 64) is ready
    assert replace(task, captions="one").pack(ready, "train", 64) is ready


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"captions": ["a", " b "], "text": "a"}, "captions"),
        ({"caption": "a"}, "caption"),
        ({"Text": "a"}, "Text"),
        ({"captions": '["a", "b"]'}, "captions"),
        ({"sentences": [{"raw": "a", "id": 1}, {"raw": "b", "id": 2}]}, "sentences"),
        ({"caption_10": "b", "caption_9": "a", "title": "x"}, "caption_9, caption_10"),
    ],
)
def test_captions_are_found_and_read(columns: dict[str, Any], named: str) -> None:
    rows = Dataset.from_list([{"image": "x.png", **columns}])
    layout = layout_of(rows, ImageToText, None)
    errors: list[str] = []
    found = convert(rows, layout, str, errors, carried=("image",))
    assert layout.columns == {"image": "image", "captions": named} and not errors
    assert found["captions"][0] == (["a", "b"] if len(columns) > 1 or "[" in str(columns) else ["a"])


def test_what_is_wrong_with_captions_is_named(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"file": "x.png", "captions": ["a"]}, {"file": "y.png", "captions": [" "]}])
    errors: list[str] = []
    convert(rows, layout_of(rows, ImageToText, None), lambda row: f"row {row + 1}", errors)
    assert errors == ['row 2: no caption in column "captions"; --drop-empty skips such rows']
    numbers = Dataset.from_list([{"file": "x.png", "caption": 3}])
    convert(numbers, layout_of(numbers, ImageToText, None), lambda row: f"row {row + 1}", errors)
    assert errors[1] == 'row 1: column "caption" holds int, expected a caption or a list of them'
    with pytest.raises(
        UsageError, match=r"no column for captions; found: image, size; name it: --columns captions=COLUMN"
    ):
        ImageToText.audit({"train": Dataset.from_dict({"image": ["x"], "size": [1]})}, Run(model="x", output_dir="x"))
    same = ImageToText.audit({"train": Dataset.from_dict({"captions": [["a dog"], ["a dog", "x"], ["cat"]]})}, None)
    assert same.warnings == ['train: 2 of 3 pictures have the caption "a dog": the model learns to say it always']
    assert same.lines["captions"] == "4 of 3 pictures (1.3 each); half up to 2 words, longest 2"


def test_models_that_do_not_caption_are_refused(places: dict[str, Path], tmp_path: Path) -> None:
    task, processor = made(places["blip"])
    run = Run(model="some/model", output_dir="none")
    config = load_config(Run(model=str(places["blip"]), output_dir="none"))
    rows = {"train": Dataset.from_dict({"captions": [["a"]]})}
    config.model_type = "vit"
    with pytest.raises(
        UsageError, match="--model some/model: vit does not write about pictures; take a captioner such"
    ):
        task.for_model(run, config, processor, rows)
    config.model_type = "blip"
    config.image_token_id = 5
    with pytest.raises(UsageError, match="blip reads pictures between the words of a prompt"):
        task.for_model(run, config, processor, rows)
    config.image_token_id, config.text_config.sep_token_id = None, 102
    with pytest.raises(
        UsageError, match="the token that ends a text is 102; expected one of the 20 that the model knows"
    ):
        task.for_model(run, config, processor, rows)
    processor.tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(UsageError, match="blip talks about pictures in conversations: --task image-text-to-text"):
        task.for_model(run, config, processor, rows)


def test_scores_are_of_all_captions_and_beside_the_most_typical_one(pictures: list[dict[str, Any]]) -> None:
    known = [["a red square", "the square is red"], ["a blue house"], ["a green square at the top"]]
    rows = Dataset.from_list([{"image": one, "captions": said} for one, said in zip(pictures, known, strict=False)])
    task = ImageToText(max_new_tokens=9)
    kept = [np.frombuffer(text.encode(), np.uint8) for text in ("The square is RED", "a blue house", "nothing")]
    scores = {name: float(one(np.ones((1, 3)))[0]) for name, one in task.measure(kept, rows, rows).scores.items()}
    assert list(scores) == ["cider", "bleu", "rouge_l"]
    assert scores["rouge_l"] == pytest.approx(2 / 3) and 0 < scores["bleu"] < 100 and 0 < scores["cider"] < 10
    assert task.worst(kept, rows, rows, None)[0]["predicted"] == "nothing"
    assert task.worst(kept, rows, rows, None)[0]["text"].endswith("/2.png")
    drawn = task.drawn(kept, rows, rows, None)
    assert [one.name for one in drawn] == ["worst-captions", "captions"] and drawn[0].image.width == 3 * 184
    ready = Dataset.from_dict({"said": [["a dog runs"], ["a dog sits"], ["a cat runs on grass"]]})
    given = task.baselines(ready, rows, rows)["typical caption"]
    assert [bytes(one).decode() for one in given] == ["a dog runs"] * 3


def test_typical_caption_shares_most_words_with_the_others() -> None:
    assert typical(["x y z", "a man walks", "a man runs", "a dog walks"]) == "a man walks"


@pytest.mark.parametrize(("part", "inside"), [("language", ".text_decoder."), ("vision", ".vision_model.")])
def test_adapters_stand_in_the_part_that_was_asked_for(part: str, inside: str, tiny: Any, tmp_path: Path) -> None:
    train(TASK, "lora", tiny(TASK), tmp_path / "run", **QUICK, target_modules=part, verify=False)
    names = weights(tmp_path / "run")
    assert names and all(inside in name for name in names)
    assert any(bool(tensor.any()) for name, tensor in names.items() if "lora_B" in name), "nothing has moved"


def write_told_apart(folder: Path, number: int) -> list[str]:
    """Pictures, no two alike, whose captions can be told from them; returns the captions."""
    random, said = np.random.default_rng(1), []
    folder.mkdir(parents=True)
    for index in range(number):
        colour, place = list(COLOURS)[index % 4], PLACES[index // 4 % 2]
        draw(folder / f"{index}.png", colour, place, random)
        said.append(f"a {colour} square at the {place} .")
    lines = (json.dumps({"file_name": f"{i}.png", "caption": one}) + "\n" for i, one in enumerate(said))
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return said


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_captioner_that_learned_its_pictures_gives_their_captions_back(
    family: str, places: dict[str, Path], tmp_path: Path
) -> None:
    said = write_told_apart(tmp_path / "data" / "train", 40)
    write_told_apart(tmp_path / "data" / "test", 8)
    report = train(TASK, "full", Tiny(places[family], tmp_path / "data"), tmp_path / "run", num_train_epochs=60,
                   learning_rate=3e-3, per_device_train_batch_size=8, save_strategy="no")  # fmt: skip
    assert report.metrics["test"]["cider"]["value"] > report.baselines["typical caption"]["test"]["cider"]["value"]
    given = predict(tmp_path / "run", [str(tmp_path / "data" / "train" / f"{i}.png") for i in range(40)])
    assert [one["prediction"] for one in given] == said
