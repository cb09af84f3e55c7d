"""Pictures become the same pixels everywhere; convolutions take adapters; batch norms do as they are told."""

import csv
import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_cases import data as data_of
from image_cases import picture
from PIL import Image
from task_runs import QUICK, held, weights
from tiny_tasks import image_classification as pictures
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2ImageProcessor,
    pipeline,
    set_seed,
)

from hf_tuner import catalog, finetune
from hf_tuner.cli.main import main
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import encoded, kept_of, predict
from hf_tuner.hub.card import read_facts
from hf_tuner.hub.usage import plain_code
from hf_tuner.models.convnets import settle_norms
from hf_tuner.models.load import load_model
from hf_tuner.models.processors import load_processor
from hf_tuner.models.restore import restore
from hf_tuner.pictures import open_image
from hf_tuner.tasks._vision import augmenter, input_size, inputs_of
from hf_tuner.tasks.image_classification import Config, ImageClassification


@pytest.fixture(scope="module")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MobileNetV2 that pads as TensorFlow does, as the real ones do."""
    folder = tmp_path_factory.mktemp("mobilenet")
    set_seed(0)
    config = MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=2, tf_padding=True)
    MobileNetV2ForImageClassification(config).save_pretrained(folder)
    size = {"shortest_edge": 36}
    MobileNetV2ImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def train(model: Path, data: Path, folder: Path, method: str, **settings: Any) -> Any:
    """The report of a short run."""
    words = {**QUICK, "probe_rows": 0, "way_in": "random", **settings}
    return finetune(
        "image-classification", model=str(model), dataset=str(data), method=method, output_dir=str(folder), **words
    )


def test_lora_on_convolutions_is_reloaded_and_merged(convnet: Path, tiny: Any, tmp_path: Path) -> None:
    report = train(convnet, tiny("image-classification").data, tmp_path / "run", "lora")
    assert next(p for p in report.proofs if p["name"] == "saved = measured")["passed"]
    assert "modules adapted" in next(p for p in report.proofs if p["name"] == "targets matched")["detail"]
    main(["merge", str(tmp_path / "run"), "--output", str(tmp_path / "merged")])
    rows = held(tmp_path / "run")
    left, right = (np.stack(kept_of(restore(tmp_path / name), rows)[0]) for name in ("run", "merged"))
    assert np.allclose(left, right, atol=1e-4)


def test_kernels_lie_with_their_channels_last_in_training_and_after_it(
    convnet: Path, tiny: Any, tmp_path: Path
) -> None:
    data = tiny("image-classification").data
    run = Run(model=str(convnet), dataset=str(data), method="lora", output_dir=str(tmp_path / "run"))
    run = replace(run, method_config=catalog.load("methods", "lora").Config())
    task = ImageClassification.from_data(load_data(run, ImageClassification), run)
    train(convnet, data, tmp_path / "run", "lora", verify=False)
    for model in (load_model(run, task), restore(tmp_path / "run").model):
        kernels = [one for one in model.parameters() if one.ndim == 4 and one.shape[1] > 1 and one.shape[2] > 1]
        assert kernels and all(one.is_contiguous(memory_format=torch.channels_last) for one in kernels)


@pytest.mark.parametrize(
    "policy, moves, trains", [("train", True, True), ("eval", False, True), ("frozen", False, False)]
)
def test_batch_norms_follow_the_policy(
    convnet: Path, tiny: Any, tmp_path: Path, policy: str, moves: bool, trains: bool
) -> None:
    train(convnet, tiny("image-classification").data, tmp_path / "run", "full", batch_norm=policy, learning_rate=1e-2)
    before, after = weights(convnet), weights(tmp_path / "run")
    statistics = [key for key in before if key.endswith("running_mean")]
    scales = [key.replace("running_mean", "weight") for key in statistics]
    assert statistics and any(not torch.equal(before[k], after[k]) for k in statistics) is moves
    assert any(not torch.equal(before[k], after[k]) for k in scales) is trains


def test_norms_that_never_saw_a_batch_follow_and_others_keep_their_statistics(convnet: Path) -> None:
    model = MobileNetV2ForImageClassification.from_pretrained(convnet)
    norms = [one for one in model.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    norms[-1].running_mean.fill_(0.5)
    before = [norm.running_mean.clone() for norm in norms]
    assert settle_norms(model, "auto", ImageClassification.batch_norm, "model", True) == "eval"
    model.train()(pixel_values=torch.randn(4, 3, 32, 32))
    stayed = [torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True)]
    assert stayed == [False] * (len(norms) - 1) + [True]


def test_norms_that_follow_begin_with_the_statistics_of_the_rows(convnet: Path, tiny: Any, tmp_path: Path) -> None:
    settings = {"batch_norm": "train", "learning_rate": 0.0, "max_steps": 1}
    train(convnet, tiny("image-classification").data, tmp_path / "run", "full", **settings)
    variances = [v for k, v in weights(tmp_path / "run").items() if k.endswith("running_var")]
    # One update in steps of 0.1 leaves at least 0.9 of the 1 that they were born with.
    assert sum(float(v.median()) < 0.8 for v in variances) > len(variances) / 2


def test_code_of_the_card_runs_for_an_adapter_on_convolutions(
    convnet: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(convnet, tiny("image-classification").data, tmp_path / "run", "lora", verify=False)
    code = "\n".join(plain_code(read_facts(tmp_path / "run")))
    code = code.replace('"FOLDER"', repr(str(tmp_path / "run"))).replace('"BASE"', repr(str(convnet)))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "teal").save("picture.jpg")
    Path("pasted.py").write_text(code)
    theirs = runpy.run_path("pasted.py")["classify"]("picture.jpg")[0]
    ours = predict(tmp_path / "run", ["picture.jpg"])[0]
    assert theirs["label"] == ours["prediction"] and theirs["score"] == pytest.approx(ours["score"], abs=1e-5)


def test_adapters_refuse_statistics_that_they_cannot_save(convnet: Path, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an adapter's files hold no running statistics"):
        train(convnet, tiny("image-classification").data, tmp_path / "run", "lora", batch_norm="train")


def prepared(tiny: Any, augment: str) -> tuple[ImageClassification, Any, Any]:
    """Task, processor and rows of the tiny set-up."""
    made = tiny("image-classification")
    run = Run(task="image-classification", model=str(made.model), dataset=str(made.data), output_dir="unused",
              task_config=Config(augment=augment))  # fmt: skip
    data = load_data(run, ImageClassification)
    task = ImageClassification.from_data(data, run)
    return task, load_processor(run, task), data


@pytest.mark.fault(2)
@pytest.mark.parametrize("augment", ["crop", "trivial"])
def test_augmentation_depends_on_seed_epoch_and_row_alone(tiny: Any, augment: str) -> None:
    task, processor, data = prepared(tiny, augment)
    ready, collate = encoded(task, processor, data["train"], 0, "train"), task.collate(processor)
    rows = [{**ready[i], "row": i, "epoch": 3} for i in range(4)]
    together = collate(rows)["pixel_values"]
    torch.manual_seed(7)
    alone = torch.cat([collate([row])["pixel_values"] for row in reversed(rows)]).flip(0)
    assert torch.equal(together, alone)
    assert not torch.equal(together, collate([{**row, "epoch": 4} for row in rows])["pixel_values"])
    assert not torch.equal(together, collate([ready[i] for i in range(4)])["pixel_values"])


def test_crops_for_training_and_nothing_else_come_from_a_smaller_decoding(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crop of a large JPEG shows what the model can read; what is measured is decoded whole, as pipelines do."""
    _, processor, _ = prepared(tiny, "crop")
    seen, change = [], augmenter("crop", input_size(processor), 0)

    def noted(one: Any, row: Any) -> Any:
        seen.append(one.size)
        return change(one, row)

    size = max(input_size(processor))
    row = {"image": {"bytes": data_of(picture((16 * size, 12 * size))), "path": None}, "row": 0, "epoch": 0}
    inputs = inputs_of(processor, noted)
    assert inputs([row])["pixel_values"].shape[-1] == size and seen == [(4 * size, 3 * size)]
    del row["epoch"]
    whole = processor(open_image(row["image"]["bytes"]), return_tensors="pt")["pixel_values"]
    assert torch.equal(inputs([row])["pixel_values"], whole)


@pytest.mark.fault(2)
def test_two_data_workers_train_the_same_weights(tiny: Any, tmp_path: Path) -> None:
    made = tiny("image-classification")
    for workers in (0, 2):
        train(made.model, made.data, tmp_path / str(workers), "full", dataloader_num_workers=workers, verify=False)
    first, second = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert first and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.fault(40)
def test_evaluation_predict_and_the_pipeline_see_the_same_pixels(tiny: Any, finished: Any) -> None:
    folder = finished("image-classification", "full")
    task, processor, data = prepared(tiny, "none")
    path = data["test"][0]["image"]["path"]
    direct = processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
    ready = encoded(task, processor, data["test"].select([0]), 0)
    assert torch.equal(direct, task.collate(processor)([ready[0]])["pixel_values"])
    ours = predict(folder, [path])[0]
    theirs = pipeline("image-classification", model=str(folder))(path)[0]
    assert theirs["label"] == ours["prediction"] and theirs["score"] == pytest.approx(ours["score"], abs=1e-5)


@pytest.mark.parametrize("cell, said, flag", [
    (("", "red"), r"1 of \d+ pictures cannot be used: rows.csv row 7 \(no picture\); --skip-bad leaves", "skip_bad"),
    (("0.png", ""), r"^rows.csv row 7: label is empty; --drop-empty skips such rows$", "drop_empty"),
])  # fmt: skip
def test_rows_without_a_picture_or_a_label_are_named_and_can_be_dropped(
    cell: tuple[str, str], said: str, flag: str, tmp_path: Path
) -> None:
    lines = ["image,label"]
    for number in range(12):
        Image.new("RGB", (20, 20), (20 * number, 90, 40)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{('red', 'green')[number % 2]}")
    lines.insert(6, ",".join(cell))
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    run = Run(task="image-classification", dataset=str(tmp_path / "rows.csv"), output_dir="unused")
    with pytest.raises(UsageError, match=said):
        load_data(run, ImageClassification)
    data = load_data(replace(run, **{flag: True}), ImageClassification)
    assert sum(rows.num_rows for rows in data.values()) == 12


@pytest.mark.fault(54)
def test_pictures_that_cannot_be_used_are_named_before_the_model_is_loaded(tiny: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(6):
                pictures.write_picture(
                    tmp_path / split / name / f"{index}.png", (200, 9 * index, 30 * len(split)), random
                )
    whole = (tmp_path / "train" / "a" / "0.png").read_bytes()
    (tmp_path / "train" / "a" / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "b" / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    run = {"task": "image-classification", "model": "none", "dataset": str(tmp_path), "output_dir": "unused"}
    with pytest.raises(UsageError, match=r"half.png \(cut short\).*page.jpg \(a web page"):
        load_data(Run(**run), ImageClassification)
    data = load_data(Run(**run, skip_bad=True), ImageClassification)
    assert data["train"].num_rows == 12


def test_a_picture_in_two_splits_is_said_and_can_be_dropped(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for index in range(12):
        pictures.write_picture(tmp_path / f"{index}.png", (20 * index, 90, 40), random)
        rows.append({"image": f"{index}.png", "label": "even" if index % 2 == 0 else "odd"})
    Image.open(tmp_path / "3.png").save(tmp_path / "again.bmp")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = [{"image": "again.bmp", "label": "odd"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    run = {"task": "image-classification", "model": "none", "dataset": str(tmp_path / "train.jsonl"), "output_dir": "unused",
           "eval_dataset": str(tmp_path / "test.jsonl")}  # fmt: skip
    data = load_data(Run(**run), ImageClassification)
    assert any("look the same" in text and "again.bmp = 3.png" in text for text in data.tuner_notes["warnings"])
    assert load_data(Run(**run, drop_leaked=True), ImageClassification)["train"].num_rows == 11


def test_a_folder_without_classes_can_be_predicted_and_not_trained_on(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "flat").mkdir()
    for index in range(3):
        pictures.write_picture(tmp_path / "flat" / f"{index}.png", (200, 40, 40), random)
    folder = finished("image-classification", "full")
    main(["predict", str(folder), "--input", str(tmp_path / "flat"), "--output", str(tmp_path / "out.csv")])
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    opened = [Image.open(tmp_path / "flat" / f"{index}.png") for index in range(3)]
    assert [row["prediction"] for row in rows] == [one["prediction"] for one in predict(folder, opened)]
    main(["predict", str(folder), "--input", str(tmp_path / "flat" / "1.png"), "--output", str(tmp_path / "one.csv")])
    with (tmp_path / "one.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [rows[1]]
    damaged = shutil.copytree(tmp_path / "flat", tmp_path / "damaged")
    (damaged / "0.png").write_bytes(b"\x89PNG")
    (damaged / "2.png").write_bytes(b"")
    words = ["predict", str(folder), "--input", str(damaged), "--output", str(tmp_path / "left.csv")]
    with pytest.raises(SystemExit):
        main(words)
    assert re.search(r"2 of 3 pictures cannot be used: 0.png .*, 2.png \(empty.*--skip-bad", capsys.readouterr().err)
    main([*words, "--skip-bad"])
    with (tmp_path / "left.csv").open(newline="") as file:
        assert [row["score"] for row in csv.DictReader(file)] == [rows[1]["score"]]
    (damaged / "1.png").unlink()
    with pytest.raises(SystemExit):
        main([*words, "--skip-bad"])
    assert "error: none of 2 pictures can be used" in capsys.readouterr().err
    run = Run(task="image-classification", model="none", dataset=str(tmp_path / "flat"), output_dir="unused")
    with pytest.raises(UsageError, match="no column for label; found: image; name it"):
        load_data(run, ImageClassification)


@pytest.mark.fault(58)
def test_class_folders_that_hardly_differ_are_said_when_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    random = np.random.default_rng(0)
    for number, name in enumerate(("Red", "red", "blue")):
        (tmp_path / name).mkdir()
        for index in range(4):
            pictures.write_picture(tmp_path / name / f"{index}.png", (200, 60 * number, 20 * index), random)
    (tmp_path / "none").mkdir()
    run = Run(task="image-classification", model="none", dataset=str(tmp_path), output_dir="unused")
    load_data(run, ImageClassification)
    said = "".join(capsys.readouterr())
    assert '"Red" / "red"' in said and "1 class folder without an image that can be used: none" in said


def test_the_surest_wrong_answers_are_drawn(tiny: Any) -> None:
    task, processor, data = prepared(tiny, "none")
    ready = encoded(task, processor, data["test"], 0)
    right = ready["labels"][:]
    wrong = [np.eye(3)[(label + (row < 2)) % 3] * 5 for row, label in enumerate(right)]
    (found,) = task.drawn(wrong, ready, data["test"], processor)
    assert "2 of 2 pictures" in found.text and np.asarray(found.image).min() < 100
    assert not task.drawn([np.eye(3)[label] for label in right], ready, data["test"], processor)
