"""Panoptic segmentation as a whole: truth given as found is perfect, segments share no pixel, stuff is one segment."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tasks.instance_segmentation import eomt, make_eomt, make_mask2former, mask2former
from tiny_tasks.panoptic_segmentation import write_scenes

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.intervals import measured
from hf_tuner.evaluation.loop import take
from hf_tuner.evaluation.predict import encoded
from hf_tuner.tasks._segment_loss import panoptic
from hf_tuner.tasks._segments import from_masks, known_of, packed, unpacked
from hf_tuner.tasks._vision import decoded
from hf_tuner.tasks.panoptic_segmentation import Config, PanopticSegmentation


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, PanopticSegmentation, Any, Any]:
    """Folder, rows, task, encoded rows and processor."""
    from transformers import AutoImageProcessor

    place = tmp_path_factory.mktemp("panoptic")
    write_scenes(place / "data", {"train": 12, "test": 6})
    run = Run(task="panoptic-segmentation", dataset=str(place / "data"), task_config=Config(augment="none"))
    data = load_data(run, PanopticSegmentation)
    task = PanopticSegmentation.from_data(data, run)
    processor = AutoImageProcessor.from_pretrained(make_mask2former(place / "model"))
    task.dress(processor)
    return place / "data", data, task, encoded(task, processor, data["train"], 0), processor


def size_of(row: Any) -> tuple[int, int]:
    """Height and width of a row's picture."""
    picture = decoded(row["image"])
    return picture.height, picture.width


def test_classes_and_things_come_from_the_data(setup: Any) -> None:
    folder, data, task, _, _ = setup
    assert task.names == ("bar", "disc", "ground", "sky") and task.countable == (True, True, False, False)
    assert "2 of stuff (ground, sky)" in task.note
    given = Run(task="panoptic-segmentation", dataset=str(folder), task_config=Config(things="disc"))
    assert PanopticSegmentation.from_data(data, given).countable == (False, True, False, False)
    wrong = Run(task="panoptic-segmentation", dataset=str(folder), task_config=Config(things="discs"))
    with pytest.raises(UsageError, match=r'--things: .*"discs"'):
        PanopticSegmentation.from_data(data, wrong)
    assert PanopticSegmentation.restore(json.loads(json.dumps(task.manifest()))) == task


def test_what_is_expected_given_as_found_is_perfect(setup: Any) -> None:
    _, data, task, ready, _ = setup
    kept = []
    for row in ready:
        known = known_of(row, *size_of(row), task.ids, task.stuff)
        assert known.masks.sum(axis=0).max() == 1 and not known.masks[:, :2].any(), "each pixel once, void left out"
        kept.append(packed(from_masks(known.masks, np.full(len(known.label), 0.9), known.label)))
    found = measured(task, kept, ready, data["train"])
    assert next(iter(found)) == "pq"
    for name in ("pq", "pq_things", "pq_stuff", "sq", "rq", "pq_sky", "pq_bar"):
        assert found[name]["value"] == pytest.approx(1.0) and found[name]["low"] == pytest.approx(1.0), name
    moved = [
        packed(from_masks(np.roll(one.masks(), 12, axis=(1, 2)), one.score, one.label)) for one in map(unpacked, kept)
    ]
    assert measured(task, moved, ready, data["train"])["pq_things"]["value"] < 0.2
    assert len(task.drawn(kept, ready, data["train"], None)) == 8
    answers = task.answers(kept, ready, data["train"], None)[0]["prediction"]
    assert {"ground", "sky"} <= {one["label"] for one in answers}


def test_segments_share_no_pixel_and_stuff_is_one() -> None:
    """Two queries of sky are one segment, two cars are two; unsure and hidden queries give none."""
    masks = torch.full((5, 6, 8), -9.0)
    masks[0, :, :3], masks[1, :, 3:5] = 9, 9  # sky, twice
    masks[2, :2, 5:], masks[3, 2:4, 5:] = 9, 9  # two cars
    masks[4, :, :] = 3  # a car behind everything: only two rows of it can be seen
    classes = torch.tensor([[0, 9, 0], [0, 8, 0], [9, 0, 0], [8, 0, 0], [4.0, 0, 0]])
    found, score, label = panoptic(classes, masks, lambda one: one, {1}, (0.5, 0.8))
    assert label.tolist() == [1, 0, 0] and found.sum(axis=(1, 2)).tolist() == [30, 6, 6]
    assert found.sum(axis=0).max() == 1 and score[0] == pytest.approx(float(classes[0].softmax(-1)[1]))
    assert panoptic(classes, masks, lambda one: one, {1}, (0.5, 0.1))[1].shape == (4,), (
        "what can be seen of the last car"
    )
    nothing, _, _ = panoptic(torch.tensor([[0.0, 0, 9]] * 5), masks, lambda one: one, {1}, (0.5, 0.8))
    assert nothing.shape == (0, 6, 8)


def test_outputs_of_a_model_share_no_pixel_and_have_the_pictures_size(setup: Any) -> None:
    from dataclasses import replace

    _, _, task, ready, processor = setup
    model = mask2former(num_labels=4).eval()
    low = replace(task, threshold=0.0, covered=0.0)
    rows = take(ready, range(5))
    with torch.no_grad():
        kept = [unpacked(one) for one in low.outputs(model, low.collate(processor)(rows))]
    assert sum(len(one.label) for one in kept) > 0
    for one, row in zip(kept, rows, strict=True):
        assert (one.height, one.width) == size_of(row)
        assert one.masks().sum(axis=0).max(initial=0) <= 1
        stuff = [label for label in one.label.tolist() if not task.countable[label]]
        assert len(stuff) == len(set(stuff))


@pytest.mark.parametrize("kind", ["mask2former", "eomt"])
def test_lines_of_the_card_find_segments(kind: str, setup: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from transformers import AutoImageProcessor

    _, _, task, _, processor = setup
    if kind == "eomt":
        processor = AutoImageProcessor.from_pretrained(make_eomt(tmp_path / "eomt"))
        task.dress(processor)
    model = {"mask2former": mask2former, "eomt": eomt}[kind](num_labels=4).eval()
    exec("\n".join(task.usage(0).lines), {"model": model, "processor": processor})  # noqa: S102 - ours
    assert capsys.readouterr().out.strip().endswith("found")


@pytest.mark.parametrize("what, said", [
    ("category", "annotation 1 has category_id 99 that is not among those listed"),
    ("map", "names the map gone.png; it is not in"),
    ("picture", "names the picture gone.png: it is not in"),
    ("segment", "segment 12345 has no pixel in its map"),
    ("keys", "is no COCO panoptic file: no 'file_name'"),
])  # fmt: skip
def test_what_is_wrong_in_a_folder_is_named(what: str, said: str, tmp_path: Path) -> None:
    write_scenes(tmp_path, {"train": 3, "test": 3})
    path = tmp_path / "annotations" / "panoptic_train.json"
    known = json.loads(path.read_text())
    first = known["annotations"][0]
    if what == "category":
        first["segments_info"][0]["category_id"] = 99
    elif what == "map":
        first["file_name"] = "gone.png"
    elif what == "picture":
        known["images"][0]["file_name"] = "gone.png"
    elif what == "segment":
        first["segments_info"][0]["id"] = 12345
    else:
        del known["annotations"][1]["file_name"]
    path.write_text(json.dumps(known))
    with pytest.raises(UsageError, match=said):
        load_data(Run(task="panoptic-segmentation", dataset=str(tmp_path), task_config=Config()), PanopticSegmentation)


@pytest.mark.slow
def test_twelve_pictures_can_be_learned(tmp_path: Path) -> None:
    """A small Mask2Former finds things and stuff of the pictures it was trained on."""
    import shutil

    from transformers import Mask2FormerImageProcessor

    from hf_tuner import finetune

    write_scenes(tmp_path / "data", {"train": 12})
    for path in sorted((tmp_path / "data").rglob("*train*")):
        if path.exists():
            target = Path(str(path).replace("train", "test"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, target, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, target)
    wide = {
        "feature_size": 64,
        "mask_feature_size": 64,
        "hidden_dim": 64,
        "num_attention_heads": 4,
        "train_num_points": 512,
    }
    mask2former(**wide).save_pretrained(tmp_path / "model")
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "model")
    report = finetune(
        "panoptic-segmentation", model=str(tmp_path / "model"), dataset=str(tmp_path / "data"), method="full",
        output_dir=str(tmp_path / "run"), augment="none", num_train_epochs=200, per_device_train_batch_size=6,
        learning_rate=1e-3, bf16=False, save_strategy="no", eval_strategy="no", verify=False, logging_steps=50,
    )  # fmt: skip
    assert report.metrics["test"]["pq"]["value"] >= 0.6
