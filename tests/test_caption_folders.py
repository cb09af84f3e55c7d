"""COCO's captions beside pictures: alone, beside boxes, and what is wrong with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.data.picture_rows import picture_folder
from hf_tuner.errors import UsageError
from hf_tuner.tasks.image_to_text import ImageToText
from hf_tuner.tasks.object_detection import ObjectDetection

SAID = {1: ["a red square", "red all over"], 2: ["a blue square"], 3: []}


def write(place: Path, kind: str, split: str, annotations: list[dict[str, Any]]) -> Path:
    """One of COCO's files, of the pictures in a folder called as its split."""
    far = "x" * 150_000 if kind == "captions" else ""  # as in COCO, "annotations" stands near neither end
    known = {
        "info": {"description": far},
        "images": [{"id": number, "file_name": f"{number}.png"} for number in SAID],
        "annotations": [{"pad": far if k == 0 else "", "id": k, **one} for k, one in enumerate(annotations)],
        **({} if kind == "captions" else {"categories": [{"id": 1, "name": "person"}]}),
    }
    path = place / "annotations" / f"{kind}_{split}2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(known))
    return path


def captions(place: Path, split: str) -> Path:
    return write(
        place, "captions", split, [{"image_id": k, "caption": one} for k, said in SAID.items() for one in said]
    )


def boxes(place: Path, split: str, kind: str = "instances", **more: Any) -> Path:
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10], **more}
    return write(place, kind, split, [box])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Pictures of two splits, with captions."""
    for shift, split in enumerate(("train", "val")):
        (tmp_path / f"{split}2017").mkdir()
        for number in SAID:
            Image.new("RGB", (40, 30), (80 * number, 90 * shift, 200 - 60 * number)).save(
                tmp_path / f"{split}2017" / f"{number}.png"
            )
        captions(tmp_path, split)
    return tmp_path


def run(place: Path, task: str) -> Run:
    return Run(task=task, dataset=str(place), output_dir="unused", drop_empty=True)


def test_captions_of_a_picture_are_together_and_pictures_without_are_left_out(place: Path) -> None:
    data = load_data(run(place, "image-to-text"), ImageToText)
    assert [sorted(rows["captions"][:]) for rows in (data["train"], data["validation"])] == [[SAID[2], SAID[1]]] * 2
    assert Path(data["validation"][0]["image"]["path"]).parent.name == "val2017"


def test_one_folder_serves_captions_and_boxes(place: Path) -> None:
    for split in ("train", "val"):
        boxes(place, split)
    assert len(load_data(run(place, "image-to-text"), ImageToText)["train"]) == 2
    data = load_data(run(place, "object-detection"), ObjectDetection)
    assert [len(one) for one in data["train"]["labels"][:]] == [1, 0, 0]


def test_people_with_joints_repeat_no_boxes(place: Path) -> None:
    boxes(place, "train")
    boxes(place, "train", "person_keypoints", keypoints=[0, 0, 0])
    found = picture_folder(place)
    assert found is not None and len(found[0]["train"]) == len(SAID)
    assert found[1] == ["left aside, people and their joints: person_keypoints_train2017.json",
                        "captions of validation left aside: no other rows of that split"]  # fmt: skip
    boxes(place, "val", "person_keypoints", keypoints=[0, 0, 0])  # all that this split has
    found = picture_folder(place)
    assert found is not None and set(found[0]) == {"train", "validation"} and len(found[1]) == 1


@pytest.mark.parametrize("change, said", [
    (lambda known: known["annotations"][0].update(image_id=9), "annotation 1 has image_id 9, which is not among the 3"),
    (lambda known: known["annotations"][1].update(caption=7), "annotation 2 has the caption 7, expected a text"),
    (lambda known: known["images"][0].pop("file_name"), "is no COCO caption file: no 'file_name'; expected images"),
    (lambda known: known["images"][0].update(file_name="7.png"), "names the picture 7.png: it is not in"),
])  # fmt: skip
def test_wrong_captions_are_refused_with_their_place(place: Path, change: Any, said: str) -> None:
    path = place / "annotations" / "captions_train2017.json"
    known = json.loads(path.read_text())
    change(known)
    path.write_text(json.dumps(known))
    with pytest.raises(UsageError, match=said):
        load_data(run(place, "image-to-text"), ImageToText)


def test_captions_of_several_files_are_joined_and_blank_ones_left_out(place: Path) -> None:
    write(place, "captions_more", "train", [{"image_id": 2, "caption": one} for one in ("blue", None, " ")])
    data = load_data(run(place, "image-to-text"), ImageToText)
    assert sorted(sorted(one) for one in data["train"]["captions"][:]) == sorted([sorted([*SAID[2], "blue"]), SAID[1]])


def test_masks_keep_their_place_beside_captions(place: Path) -> None:
    shutil.rmtree(place / "val2017")
    (place / "annotations" / "captions_val2017.json").unlink()
    (place / "train2017").rename(place / "images")
    (place / "masks").mkdir()
    for number in SAID:
        Image.fromarray(np.full((30, 40), number, np.uint8)).save(place / "masks" / f"{number}.png")
    found = picture_folder(place)
    assert found is not None
    assert [set(rows.column_names) for rows in found[0].values()] == [{"image", "mask", "captions"}]
