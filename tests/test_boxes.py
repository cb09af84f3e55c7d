"""Boxes in data: formats told by proof, faults refused or clipped, the kinds of files they come in, batches and outputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image, ImageFile

from hf_tuner.config import Run
from hf_tuner.data.box_folders import read_box_folder
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation import predict
from hf_tuner.tasks._box_audit import expected_boxes
from hf_tuner.tasks._boxes import FORMATS, infer, to_corners
from hf_tuner.tasks.object_detection import Config, ObjectDetection

SIZES = [(640, 480), (300, 500), (200, 100)]
CORNERS = [[[320, 100, 600, 470], [10, 10, 90, 400]], [[100, 300, 290, 490]], [[50, 20, 180, 90]]]


def written(name: str) -> list[list[list[float]]]:
    """The boxes of `CORNERS` in a format."""
    made = []
    for boxes, (width, height) in zip(CORNERS, SIZES, strict=True):
        scale = np.array([width, height] * 2) if name in ("yolo", "normalised") else np.ones(4)
        corners = np.array(boxes, float) / scale
        left_top, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
        kinds = {"coco": (left_top, size), "yolo": (left_top + size / 2, size)}
        made.append(np.concatenate(kinds[name], axis=1).tolist() if name in kinds else corners.tolist())
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_proved_and_boxes_come_back_as_corners(name: str) -> None:
    boxes = written(name)
    found = infer(boxes, SIZES, "auto")
    assert found.name == name and f"{name} 100.0%" in found.proof
    for given, expected, (width, height) in zip(boxes, CORNERS, SIZES, strict=True):
        np.testing.assert_allclose(to_corners(given, name, width, height), expected, atol=1e-6)


@pytest.mark.fault(39)
def test_boxes_that_fit_no_format_or_two_are_refused_with_statistics() -> None:
    with pytest.raises(UsageError, match=r"fit no format.*coco 0.0%.*go from 900 to 900.*\n.*--box-format"):
        infer([[[900, 900, 950, 990]]], [(640, 480)], "auto")
    with pytest.raises(UsageError, match=r"could be coco or xyxy.*--box-format coco"):
        infer([[[10, 10, 50, 50]]], [(640, 480)], "auto")
    assert infer([[[10, 10, 50, 50]]], [(640, 480)], "xyxy").name == "xyxy"


def folder_of(place: Path, rows: list[tuple[list[list[float]], list[str]]]) -> Path:
    """Pictures of 100 × 80 in train and test, with the same boxes."""
    for split in ("train", "test"):
        (place / split).mkdir(parents=True)
        lines = []
        for index, (boxes, labels) in enumerate(rows):
            pixels = np.random.default_rng([index, len(split)]).integers(0, 256, (80, 100, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(place / split / f"{index}.png")
            lines.append(
                json.dumps({"file_name": f"{index}.png", "objects": {"bbox": boxes, "category": labels}}) + "\n"
            )
        (place / split / "metadata.jsonl").write_text("".join(lines))
    return place


def load(folder: Path, **settings: Any) -> tuple[Any, ObjectDetection]:
    """Audited rows, and the task for them."""
    run = Run(task="object-detection", dataset=str(folder), task_config=Config(**settings))
    data = load_data(run, ObjectDetection)
    return data, ObjectDetection.from_data(data, run)


def encoded(data: Any, task: ObjectDetection, split: str = "train") -> dict[str, Any]:
    """Boxes and labels of a split as they are learned."""
    return task.encode(None, 0)({name: data[split][name][:] for name in ("boxes", "labels", "width", "height")})


GOOD = ([[60, 10, 30, 60]], ["cat"])


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    ("box", "said", "left"),
    [
        ([90.0, 10.0, 40.0, 20.0], "outside of the picture of 100 × 80", [90.0, 10.0, 100.0, 30.0]),
        ([-20.0, 10.0, 40.0, 20.0], "outside of the picture", [0.0, 10.0, 20.0, 30.0]),
        ([10.0, 10.0, 0.0, 20.0], "has no area", None),
        ([30.0, 10.0, -20.0, 20.0], "has no area", None),
    ],
)
def test_faulty_box_is_refused_or_clipped(box: list[float], said: str, left: Any, tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "data", [GOOD] * 30 + [([[60, 10, 30, 60], box], ["cat", "dog"]), ([[1, 1, 9, 9]], ["dog"])]
    )
    with pytest.raises(UsageError, match=f"row 31: box 2 .*{said}.*--bad-boxes clip"):
        load(folder, box_format="coco")
    data, task = load(folder, box_format="coco", bad_boxes="clip")
    made = encoded(data, task)
    assert made["boxes"][30] == [[60.0, 10.0, 90.0, 70.0], *([left] if left else [])]
    assert len(made["labels"][30]) == len(made["boxes"][30])
    assert any("cut to their picture" in text for text in data.tuner_notes["warnings"])


@pytest.mark.fault(59)
def test_picture_without_boxes_counts_and_unknown_label_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", [GOOD, ([], []), ([[50, 5, 40, 70]], ["dog"])])
    data, task = load(folder)
    assert task.names == ("cat", "dog") and encoded(data, task)["boxes"][1] == []
    assert task.density == pytest.approx(2 / 3)
    path = folder / "test" / "metadata.jsonl"
    path.write_text(path.read_text().replace('"dog"', '"dgo"'))
    with pytest.raises(UsageError, match=r'label "dgo" is not among.*did you mean "dog"'):
        load(folder)


EXPECTED = {
    "0": ([[60.0, 10.0, 90.0, 70.0]], ["cat"]),
    "1": ([], []),
    "2": ([[5.0, 5.0, 45.0, 75.0], [50.0, 5.0, 90.0, 75.0]], ["dog", "cat"]),
}


def coco(place: Path) -> None:
    """A COCO file beside the pictures of each split."""
    for split in ("train", "test"):
        known: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        }
        for stem, (boxes, labels) in EXPECTED.items():
            known["images"].append({"id": int(stem) + 50, "file_name": f"{stem}.png", "width": 100, "height": 80})
            for (a, b, c, d), label in zip(boxes, labels, strict=True):
                known["annotations"].append({"id": len(known["annotations"]), "image_id": int(stem) + 50,
                                             "category_id": {"cat": 7, "dog": 3}[label], "bbox": [a, b, c - a, d - b]})  # fmt: skip
        (place / split / "_annotations.coco.json").write_text(json.dumps(known))


def voc(place: Path) -> None:
    """An XML file beside each picture."""
    for split in ("train", "test"):
        for stem, (boxes, labels) in EXPECTED.items():
            objects = "".join(
                f"<object><name>{label}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
                for (a, b, c, d), label in zip(boxes, labels, strict=True)
            )
            text = f"<annotation><filename>{stem}.png</filename>{objects}</annotation>"
            (place / split / f"{stem}.xml").write_text(text)


def yolo(place: Path) -> None:
    """A text file beside each picture, in labels/, and data.yaml."""
    (place / "data.yaml").write_text("names: [cat, dog]\n")
    for split in ("train", "test"):
        (place / split / "images").mkdir()
        (place / split / "labels").mkdir()
        for stem, (boxes, labels) in EXPECTED.items():
            (place / split / f"{stem}.png").rename(place / split / "images" / f"{stem}.png")
            lines = [f"{('cat', 'dog').index(label)} {(a + c) / 200} {(b + d) / 160} {(c - a) / 100} {(d - b) / 80}\n"
                     for (a, b, c, d), label in zip(boxes, labels, strict=True)]  # fmt: skip
            if lines:
                (place / split / "labels" / f"{stem}.txt").write_text("".join(lines))


def test_crowds_are_not_learned_and_no_fault_to_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a COCO file, and in a column of objects."""
    place = folder_of(tmp_path / "data", [GOOD] * 3)
    for path in place.rglob("metadata.jsonl"):
        path.unlink()
    coco(place)
    for path in place.rglob("*.coco.json"):
        known = json.loads(path.read_text())
        first = next(one for one in known["annotations"] if one["bbox"][0] == 50)
        path.write_text(
            json.dumps({**known, "annotations": [*known["annotations"], {**first, "id": 99, "iscrowd": 1}]})
        )
    data, task = load(place)
    assert "test      3 boxes (cat 2, dog 1)" in (said := capsys.readouterr().out)
    assert "1 boxes around crowds: not learned, and no fault to find" in said
    ready = predict.encoded(task, None, data["test"], 0)
    assert sum(map(len, ready.with_format(None)["labels"][:])) == 3
    expected = np.concatenate(expected_boxes(ready))
    assert len(expected) == 4 and expected[expected[:, 5] > 0].tolist() == [[50, 5, 90, 75, 0, 1]]
    objects = {"bbox": [[5.0, 5.0, 9.0, 9.0], [9.0, 9.0, 20.0, 20.0]], "category": ["cat", "dog"], "is_crowd": [0, 1]}
    rows = Dataset.from_list([{"image": "a.png", "objects": objects}])
    row = ObjectDetection.layout(rows.features, list(rows), {}).convert(rows[0])
    assert (row["labels"], row["crowd_labels"], row["crowds"]) == (["cat"], ["dog"], [[9.0, 9.0, 20.0, 20.0]])


@pytest.mark.parametrize("write", [coco, voc, yolo])
def test_folders_of_every_kind_give_the_same_boxes(write: Any, tmp_path: Path) -> None:
    place = folder_of(tmp_path / "data", [GOOD] * 3)
    for path in place.rglob("metadata.jsonl"):
        path.unlink()
    write(place)
    data, task = load(place)
    assert task.names == ("cat", "dog") and task.box_format == "coco" and set(data) >= {"train", "test"}
    for split in ("train", "test"):
        made = encoded(data, task, split)
        for picture, boxes, labels in zip(data[split]["image"], made["boxes"], made["labels"], strict=True):
            corners, names = EXPECTED[Path(picture["path"]).stem]
            np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), np.reshape(corners, (-1, 4)), atol=1e-6)
            assert [task.names[label] for label in labels] == names


def test_voc_lists_of_a_class_are_none_of_a_split(tmp_path: Path) -> None:
    """Each picture comes once, in the split of its list; trainval.txt only counts where there is no train.txt."""
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for stem in "abc":
        Image.new("RGB", (10, 10)).save(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.xml").write_text(f"<annotation><filename>{stem}.png</filename></annotation>")
    for name, text in (("train", "a\n"), ("val", "b\nb\n"), ("trainval", "a\nb\n"), ("test", "c\n"),
                       ("cat_train", "a -1\nb 1\n"), ("cat_val", "b  1\n"), ("cat_trainval", "a -1\nb  1\n")):  # fmt: skip
        (lists / f"{name}.txt").write_text(text)

    def found() -> dict[str, list[str]]:
        read = read_box_folder(tmp_path)
        assert read
        return {split: [Path(one["path"]).stem for one in rows["image"]] for split, rows in read[0].items()}

    assert found() == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    assert found() == {"train": ["a", "b"], "test": ["c"]}


def yolo_folder(place: Path, text: str) -> Path:
    """A picture of 100 × 100 with YOLO labels."""
    for kind in ("images", "labels"):
        (place / kind).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 100)).save(place / "images" / "a.png")
    (place / "labels" / "a.txt").write_text(text)
    (place / "classes.txt").write_text("cat\ndog\n")
    return place


def test_yolo_polygons_become_the_boxes_around_them(tmp_path: Path) -> None:
    lines = (
        "0 0.5 0.5 0.6 0.5 0.6 0.6 0.5 0.6",
        "1 0.1 0.2 0.3 0.6 0.2 0.4",
        "0 0.5 0.5 0.2 0.4",
        "1 0.5 0.5 0.2 0.4 0.9",
    )
    read = read_box_folder(yolo_folder(tmp_path, "\n".join(lines)))
    assert read
    objects = read[0]["train"][0]["objects"]
    expected = [[50, 50, 10, 10], [10, 20, 20, 40], [40, 30, 20, 40], [40, 30, 20, 40]]
    np.testing.assert_allclose(objects["bbox_coco"], expected, atol=1e-9)
    assert objects["category"] == ["cat", "dog", "cat", "dog"]
    for bad in ("0 0.5 0.5 0.2", "0 0.5 0.5 0.2 0.4 0.9 0.1 0.2", "0 0.1 0.1 0.2 nan 0.3 0.3"):
        with pytest.raises(UsageError, match=r"a\.txt line 3: 0 0.* expected class x y width height, or class and x y"):
            read_box_folder(yolo_folder(tmp_path, f"0 0.5 0.5 0.2 0.4\n\n{bad}\n"))


def test_yolo_pictures_are_not_decoded_for_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = yolo_folder(tmp_path, "0 0.5 0.5 0.2 0.4")
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (200, 100)).save(place / "images" / "a.png", exif=turned)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    read = read_box_folder(place)
    assert read
    np.testing.assert_allclose(read[0]["train"][0]["objects"]["bbox_coco"], [[40, 60, 20, 80]], atol=1e-9)
    (place / "images" / "a.png").write_bytes(b"no picture")  # named by the look at all pictures
    assert read_box_folder(place)


@pytest.mark.fault(59)
def test_coco_file_with_repeated_ids_or_strange_references_is_refused(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "data", [GOOD] * 3)
    for path in place.rglob("metadata.jsonl"):
        path.unlink()
    coco(place)
    path = place / "train" / "_annotations.coco.json"
    whole = path.read_text()
    for old, new, said in (('"id": 51', '"id": 50', "repeat an image id \\(50\\)"),
                           ('"category_id": 3', '"category_id": 4', "category_id 4, which is not among the 2"),
                           ('"file_name": "1.png"', '"file_name": "one.png"', "names the picture one.png: it is not in"),
                           ('"categories"', '"kinds"', "no 'categories'; expected images")):  # fmt: skip
        path.write_text(whole.replace(old, new))
        with pytest.raises(UsageError, match=said):
            load(place)


@pytest.mark.parametrize(
    "text", ['[{"images": ["a.png"], "annotations": []}]', '{"images": ["a.png"]}', '{"a": 1}\n{"images": ["a.png"]}\n']
)
def test_rows_that_name_pictures_are_no_coco_file(text: str, tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    (tmp_path / "data.json").write_text(text)
    assert read_box_folder(tmp_path) is None
    (tmp_path / "data.json").write_text('\n{"categories": [], "images": [], "annotations": []}')
    assert read_box_folder(tmp_path) is not None


def test_other_layouts_give_the_same_rows() -> None:
    box, name = [[1.0, 2.0, 3.0, 4.0]], ["cat"]
    kinds: list[dict[str, Any]] = [
        {"image": "a.png", "objects": {"bbox": box, "category": name}},
        {"image": "a.png", "objects": [{"bbox": box[0], "label": "cat"}]},
        {"image": "a.png", "bboxes": box, "labels": name},
        {"image_path": "a.png", "annotations": [{"bbox": box[0], "category_id": "cat"}]},
    ]
    for row in kinds:
        rows = Dataset.from_list([row])
        layout = ObjectDetection.layout(rows.features, list(rows), {})
        made = layout.convert(rows[0])
        assert (made["boxes"], made["labels"]) == (box, name), layout.name


def test_augmented_boxes_stay_on_their_rectangles(tmp_path: Path) -> None:
    """The colour under every box after mirroring and cropping is the one that was there before."""
    from transformers import DetrImageProcessor

    from hf_tuner.tasks._box_batches import batches

    pixels = np.full((60, 100, 3), 128, np.uint8)
    pixels[10:30, 5:45] = (255, 0, 0)
    pixels[35:55, 60:95] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    processor = DetrImageProcessor(size={"shortest_edge": 60, "longest_edge": 100}, do_normalize=False)
    batch = batches(processor, "crop", 0, ((100, 60),))
    row = {
        "image": {"bytes": None, "path": str(tmp_path / "a.png")},
        "boxes": [[5, 10, 45, 30], [60, 35, 95, 55]],
        "labels": [0, 1],
    }
    shapes = set()
    for epoch in range(30):
        made = batch([{**row, "row": 0, "epoch": epoch}])
        height, width = made["pixel_mask"][0].sum(0).max(), made["pixel_mask"][0].sum(1).max()
        for label, share in zip(made["class_labels"][0], made["boxes"][0], strict=True):
            if label >= 0:
                x, y = int(share[0] * width), int(share[1] * height)
                assert made["pixel_values"][0, int(label), y, x] > 0.9
                shapes.add(tuple(share.tolist()))
        again = batch([{**row, "row": 0, "epoch": epoch}])
        assert all((made[name] == again[name]).all() for name in made)
    assert len(shapes) > 6, "nothing was changed"
    plain = batch([row])
    np.testing.assert_allclose(plain["boxes"][0, 0] * np.array([100, 60, 100, 60]), [25, 20, 40, 20], rtol=1e-5)
