"""Pictures and captions: what rows hold, what is no wrong answer, classes by name, and what trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command
from PIL import Image
from task_runs import QUICK, flags, train, weights
from test_task_invariants import SGD
from tiny_tasks import Tiny
from tiny_tasks.contrastive_image_text import LENGTH, make_clip, make_joined, make_siglip, write_pictures

from hf_tuner import predict
from hf_tuner.cli.main import main
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.models.processors import load_processor
from hf_tuner.models.restore import restore
from hf_tuner.tasks import _caption_rows as rows_of
from hf_tuner.tasks._task import EmptyRow, RowError
from hf_tuner.tasks._two_towers import belonging, contrastive
from hf_tuner.tasks.contrastive_image_text import ContrastiveImageText

TASK = "contrastive-image-text"
FEATURES: dict[str, Any] = {"image": None}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 training and 8 test pictures."""
    return write_pictures(tmp_path_factory.mktemp("pairs") / "data", {"train": 18, "test": 8})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_siglip(tmp_path_factory.mktemp("siglip"))


def read(model: Path, data: Path, **settings: Any) -> tuple[ContrastiveImageText, Any, Any]:
    """Task, processor and encoded training rows, as a run has them."""
    run = Run(task=TASK, model=str(model), dataset=str(data), output_dir="unused", **settings)
    rows = load_data(run, ContrastiveImageText)["train"]
    processor = load_processor(run, ContrastiveImageText())
    task = ContrastiveImageText(padded=LENGTH if "siglip" in model.name else 0)
    encoded = task.encode(processor, LENGTH)({"text": rows["text"][:]})
    ready = [{"image": row["image"], **{k: v[i] for k, v in encoded.items()}} for i, row in enumerate(rows)]
    return task, processor, ready


def dealt(ready: list[Any], epoch: int = 0) -> list[Any]:
    """Encoded rows as they come in training."""
    return [{**row, "row": number, "epoch": epoch} for number, row in enumerate(ready)]


# --- rows


@pytest.mark.parametrize(
    "row, captions",
    [
        ({"caption": "a dog"}, ["a dog"]),
        ({"text": "a dog", "captions": ["a dog", "two", "two", " "]}, ["a dog", "two"]),
        ({"caption_0": "a dog", "caption_1": None, "caption_2": "two"}, ["a dog", "two"]),
        ({"sentences": [{"raw": "a dog", "tokens": ["a"]}, {"raw": "two"}]}, ["a dog", "two"]),
        ({"ALT_TEXT": "a dog"}, ["a dog"]),
    ],
)
def test_captions_are_found(row: dict[str, Any], captions: list[str]) -> None:
    found = rows_of.layout({**FEATURES, **dict.fromkeys(row)}, [row], {})
    assert found.convert(row) == {"text": captions}


def test_rows_without_captions_are_told_by_their_column() -> None:
    found = rows_of.layout({**FEATURES, "caption": None}, [{"caption": "a"}], {})
    with pytest.raises(EmptyRow, match='column "caption" is empty'):
        found.convert({"caption": " "})
    with pytest.raises(RowError, match="holds '7', expected a text or a list of texts"):
        found.convert({"caption": 7})
    assert rows_of.layout(FEATURES, [], {}).convert({}) == {}


def test_data_that_teach_nothing_are_refused(pictures: Path, tmp_path: Path) -> None:
    for name, text, said in (
        ("none", {}, "no column with captions"),
        ("same", {"caption": "a dog"}, 'every picture has the same caption ("a dog")'),
    ):
        folder = tmp_path / name
        folder.mkdir()
        lines = [{"image": str(path), **text} for path in sorted((pictures / "train").glob("*.png"))]
        (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)")):
            load_data(Run(task=TASK, dataset=str(folder), output_dir="unused"), ContrastiveImageText)


def test_a_micro_batch_of_one_row_is_refused() -> None:
    with pytest.raises(UsageError, match="the other rows of a micro-batch are a row's wrong answers"):
        ContrastiveImageText.from_data({}, Run(output_dir=".", training={"per_device_train_batch_size": 1}))


# --- batches


def test_one_caption_a_row_is_dealt_by_row_and_epoch(clip: Path, pictures: Path) -> None:
    task, processor, ready = read(clip, pictures)
    collate = task.collate(processor)

    def texts(rows: list[Any]) -> list[list[int]]:
        return [[token for token in one if token] for one in collate(rows)["input_ids"].tolist()]

    epochs = [texts(dealt(ready, epoch)) for epoch in range(4)]
    assert len({str(one) for one in epochs}) == 4, "every epoch deals the same captions"
    assert len({str(one[0]) for one in epochs}) == 1, "the first row has one caption only"
    assert texts(dealt(ready, 2)[5:8]) == epochs[2][5:8], "what is dealt depends on the batch"


def test_siglip_reads_texts_padded_to_its_whole_length_without_a_mask(siglip: Path, clip: Path, pictures: Path) -> None:
    task, processor, ready = read(siglip, pictures)
    task = ContrastiveImageText(padded=LENGTH)
    batch = task.collate(processor)(dealt(ready))
    assert batch["input_ids"].shape == (18, LENGTH) and "attention_mask" not in batch
    task, processor, ready = read(clip, pictures)
    batch = task.collate(processor)(dealt(ready))
    assert batch["input_ids"].shape[1] < LENGTH and "attention_mask" in batch


def test_what_is_right_as_well_belongs() -> None:
    # Rows 0 and 2 show the same picture; row 1 has the caption of row 3 among its own, but another one is dealt.
    known = [["a"], ["b", "c"], ["d"], ["c"], ["a"]]
    found = belonging(["p", "q", "p", "r", "s"], known, ["a", "b", "d", "c", "a"]).int().tolist()
    assert found == [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 0, 1, 0], [1, 0, 0, 0, 1]]


@pytest.mark.parametrize("pairwise", [False, True])
def test_what_is_right_as_well_is_no_wrong_answer(pairwise: bool) -> None:
    scores = torch.tensor([[2.0, 9.0, 0.5], [1.0, 3.0, -1.0], [0.0, 0.2, 1.0]])
    belongs = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()
    found = contrastive(scores, belongs, pairwise).item()
    s = scores.numpy()
    if pairwise:
        signs = [(i, j, 1 if i == j else -1) for i in range(3) for j in range(3) if (i, j) != (0, 1)]
        assert found == pytest.approx(sum(np.log1p(np.exp(-sign * s[i, j])) for i, j, sign in signs))
        return
    rows = [[s[0, 0], s[0, 2]], [s[1, 1], s[1, 0], s[1, 2]], [s[2, 2], s[2, 0], s[2, 1]]]
    columns = [[s[0, 0], s[1, 0], s[2, 0]], [s[1, 1], s[2, 1]], [s[2, 2], s[0, 2], s[1, 2]]]
    expected = sum(np.log(np.exp(one).sum()) - one[0] for one in [*rows, *columns]) / 2
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pairwise", [False, True])
def test_filler_counts_for_nothing(pairwise: bool, clip: Path, siglip: Path, pictures: Path) -> None:
    from transformers import AutoModel

    where = siglip if pairwise else clip
    task, processor, ready = read(where, pictures)
    task = ContrastiveImageText(pairwise=pairwise, padded=LENGTH)
    model, collate, rows = AutoModel.from_pretrained(where).eval(), task.collate(processor), dealt(ready)
    alone, filled = collate(rows[:3]), collate([*rows[:3], {**rows[9], "labels": -100, "row": -1}])
    assert task.items(alone) == task.items(filled) == 3
    torch.testing.assert_close(task.loss(model, dict(filled)), task.loss(model, dict(alone)))
    nothing = task.loss(model, collate([{**rows[9], "labels": -100, "row": -1}]))
    nothing.backward()
    assert nothing.item() == 0 and model.logit_scale.grad is not None, "a process with filler alone must take part"


# --- runs


@pytest.fixture(scope="module")
def whole(clip: Path, siglip: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished CLIP and a finished SigLIP."""
    place = tmp_path_factory.mktemp("whole")
    for name, model in (("clip", clip), ("siglip", siglip)):
        train(TASK, "full", Tiny(model, pictures), place / name, **QUICK, learning_rate=1e-3, verify=False)
    return {name: place / name for name in ("clip", "siglip")}


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_classes_by_name_are_those_of_the_pipeline(name: str, whole: dict[str, Path], pictures: Path) -> None:
    from transformers import pipeline

    files = [str(path) for path in sorted((pictures / "test").glob("*.png"))]
    labels = ["red square", "blue square", "dog"]
    ours = predict(whole[name], files, labels=labels)
    classify = pipeline("zero-shot-image-classification", model=str(whole[name]), device="cpu")
    for file, answer in zip(files, ours, strict=True):
        theirs = classify(file, candidate_labels=labels)
        assert {one["label"]: one["score"] for one in theirs} == pytest.approx(answer["probabilities"], abs=1e-5)
        assert answer["prediction"] == theirs[0]["label"]
    assert (sum(ours[0]["probabilities"].values()) == pytest.approx(1.0)) == (name == "clip")


def test_predict_gives_embeddings_similarities_the_best_text_or_a_class(
    whole: dict[str, Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = whole["clip"], str(pictures / "test" / "0.png")
    (alone,) = predict(run, [file])
    (both,) = predict(run, [{"image": file, "text": "a red square"}])
    (several,) = predict(run, [{"image": file, "text": ["a red square", "a dog"]}])
    assert len(alone["prediction"]) == 24 and np.linalg.norm(alone["prediction"]) == pytest.approx(1.0, abs=1e-5)
    assert both["prediction"] == pytest.approx(several["scores"][0], abs=1e-6)
    assert several["prediction"] == ["a red square", "a dog"][int(np.argmax(several["scores"]))]
    saved = restore(run)
    batch = saved.processor(images=Image.open(file).convert("RGB"), text="a red square", return_tensors="pt")
    with torch.inference_mode():
        expected = saved.model(**batch).image_embeds[0].tolist()
    assert alone["prediction"] == pytest.approx(expected, abs=1e-5)
    monkeypatch.chdir(tmp_path)
    words = ["--set", "labels=red square|dog,template=a {}", "--probabilities"]
    main(["predict", str(run), "--input", str(pictures / "test"), "--output", "out.jsonl", *words])
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert line["prediction"] in ("red square", "dog") and {"red square", "dog", "score"} <= set(line)
    with pytest.raises(UsageError, match="expected two or more different classes"):
        predict(run, [file], labels="dog")


def test_a_template_has_a_place_for_a_class_and_may_hold_other_braces(clip: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match=r"template=a photo: expected \{\} where a class is put in"):
        ContrastiveImageText().answering(labels="dog|cat", template="a photo")
    _, processor, ready = read(clip, pictures)
    task = ContrastiveImageText().answering(labels="red square|dog", template="a {kind} of {}")
    ids = task.collate(processor)([{"image": ready[0]["image"]}])["input_ids"]
    assert len(ids) == 2 and ids[0].tolist() != ids[1].tolist()


def test_an_augmentation_needs_a_size(clip: Path, pictures: Path) -> None:
    task = ContrastiveImageText(augment="crop")
    processor = load_processor(Run(task=TASK, model=str(clip), output_dir="unused"), task)
    run = Run(task=TASK, model=str(clip), output_dir="unused")
    from hf_tuner.models.load import load_config

    assert task.for_model(run, load_config(run), processor, {}) is task
    processor.image_processor.crop_size, processor.image_processor.size = None, {"longest_edge": 32}
    with pytest.raises(UsageError, match="--augment crop: pictures keep their own shape"):
        task.for_model(run, load_config(run), processor, {})


def test_rows_of_one_pair_each_are_measured_by_picture(whole: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    from hf_tuner.evaluation.evaluate import evaluate

    lines = [json.loads(line) for line in (pictures / "test" / "metadata.jsonl").read_text().splitlines()]
    pairs = [
        {"image": str(pictures / "test" / one["file_name"]), "caption": text}
        for one in lines
        for text in one["captions"]
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    _, rows, by_pair = evaluate(whole["clip"], dataset=str(tmp_path / "test.jsonl"))
    _, few, by_row = evaluate(whole["clip"], split="test")
    assert rows == len(pairs) > few == 8
    assert {k: v["value"] for k, v in by_pair.items()} == pytest.approx({k: v["value"] for k, v in by_row.items()})


def test_two_processes_are_two_micro_batches(clip: Path, pictures: Path, tmp_path: Path) -> None:
    """The last update has two rows: one of the processes has filler alone."""
    setup = Tiny(clip, pictures)
    settings = {**SGD, "per_device_train_batch_size": 4}
    train(TASK, "full", setup, tmp_path / "cut", **settings, gradient_accumulation_steps=2)
    where = ["--model", clip, "--dataset", pictures, "--output-dir", tmp_path / "two"]
    done = command("full", "--task", TASK, *where, *flags(settings), "--num-processes", 2)
    assert done.returncode == 0, done.stderr + done.stdout
    cut, two = weights(tmp_path / "cut"), weights(tmp_path / "two")
    assert cut.keys() == two.keys()
    for key, value in cut.items():
        np.testing.assert_allclose(two[key], value, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.slow
def test_projections_between_joined_encoders_are_all_that_head_only_trains(pictures: Path, tmp_path: Path) -> None:
    model = make_joined(tmp_path / "joined")
    report = train(TASK, "head-only", Tiny(model, pictures), tmp_path / "run", **QUICK)
    saved = weights(tmp_path / "run")
    assert {key.split(".")[-2] for key in saved} == {"visual_projection", "text_projection"}
    assert report.parameters["trainable"] == 2 * 24 * 32 and all(p["passed"] for p in report.proofs)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["qlora", "lora", "head-only"])
def test_adapters_on_siglip_reload_to_the_same_bits_and_it_has_no_projections(
    method: str, siglip: Path, pictures: Path, tmp_path: Path
) -> None:
    if method == "head-only":
        with pytest.raises(UsageError, match="SiglipModel has no head to train"):
            train(TASK, method, Tiny(siglip, pictures), tmp_path / "run", **QUICK)
        return
    report = train(TASK, method, Tiny(siglip, pictures), tmp_path / "run", **QUICK)
    assert {p["name"]: p["passed"] for p in report.proofs}["saved = measured"]
    towers = {key.split(".")[2] for key in weights(tmp_path / "run")}
    assert towers == {"text_model", "vision_model"}


@pytest.mark.slow
def test_made_pictures_are_learned(clip: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", {"train": 24})
    (data / "test").mkdir()
    for file in (data / "train").iterdir():
        (data / "test" / file.name).write_bytes(file.read_bytes())
    settings = {**QUICK, "max_steps": 400, "per_device_train_batch_size": 24, "learning_rate": 3e-3, "verify": False}
    report = train(TASK, "full", Tiny(clip, data), tmp_path / "run", **settings)
    found = {name: score["value"] for name, score in report.metrics["test"].items()}
    assert found["image_to_text_recall_at_5"] > 0.9 and found["text_to_image_recall_at_5"] > 0.8
    assert found["mean_recall"] > 0.75 > 2 * report.baselines["before"]["test"]["mean_recall"]["value"]
    assert report.baselines["chance"]["test"]["text_to_image_recall_at_1"]["value"] < 0.1


def test_the_report_sets_scores_beside_chance_and_the_model_before(whole: dict[str, Path]) -> None:
    report = json.loads((whole["siglip"] / "report.json").read_text())
    scores = report["metrics"]["test"]
    assert len(scores) == 9 and all(0 <= one["value"] <= 1 for one in scores.values())
    assert {"before", "chance"} <= set(report["baselines"])
