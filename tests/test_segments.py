"""Segments in data: every layout gives the same masks, what is wrong is named, masks are measured as COCO does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.loop import take
from hf_tuner.evaluation.predict import encoded
from hf_tuner.metrics._detection import Compared, scores
from hf_tuner.tasks._runs import covered, overlap, pixels, runs_of, written
from hf_tuner.tasks._segment_audit import fault
from hf_tuner.tasks._segments import as_text, known_of, segment_mask
from hf_tuner.tasks.instance_segmentation import Config, InstanceSegmentation

HEIGHT, WIDTH = 30, 40
SQUARE, CORNER = [5, 4, 15, 4, 15, 12, 5, 12], [20, 10, 38, 10, 38, 28]


def masks() -> np.ndarray:
    """A square and a triangle [2, height, width]."""
    return np.stack([segment_mask(as_text(one, 1), HEIGHT, WIDTH) for one in (SQUARE, CORNER)])


def runs(index: int, plain: bool = False) -> dict[str, Any]:
    """Runs of one of the masks as COCO writes them, compressed or not."""
    counts = runs_of(masks()[index])
    return {"size": [HEIGHT, WIDTH], "counts": counts.tolist() if plain else written(counts)}


def write_pictures(folder: Path, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Four plain pictures in a folder for each split; they differ."""
    for number, split in enumerate(splits):
        (folder / split).mkdir(parents=True)
        for index in range(4):
            values = np.random.default_rng(10 * number + index).integers(0, 255, (HEIGHT, WIDTH, 3))
            Image.fromarray(values.astype(np.uint8)).save(folder / split / f"{index}.png")


def rows_of(folder: Path, make: Any, splits: tuple[str, ...] = ("train", "test")) -> None:
    """A metadata.jsonl for each split, a row from each number."""
    write_pictures(folder, splits)
    for split in splits:
        rows = [{"file_name": f"{index}.png", **make(index)} for index in range(4)]
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_maps(folder: Path, **more: Any) -> None:
    """Maps of class and instance beside the pictures: class 3 twice (instances 1 and 2), the rest class 9, no instance."""
    write_pictures(folder)
    for split in ("train", "test"):
        rows = []
        for index in range(4):
            values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            values[..., 0] = 9
            for place, mask in enumerate(masks()):
                values[mask] = (3 + 2 * place, place + 1, 0)
            Image.fromarray(values).save(folder / split / f"map{index}.png")
            rows.append({"file_name": f"{index}.png", "mask_file_name": f"map{index}.png", **more})
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(folder: Path, **settings: Any) -> tuple[InstanceSegmentation, Any, Any]:
    """Task, rows and encoded rows of a folder."""
    run = Run(task="instance-segmentation", dataset=str(folder), task_config=Config(**settings))
    data = load_data(run, InstanceSegmentation)
    task = InstanceSegmentation.from_data(data, run)
    return task, data, encoded(task, None, data["train"], 0)


BOTH = {"category": ["cat", "dog"]}
LISTED = [{"segmentation": [SQUARE], "label": "cat"}, {"segmentation": [CORNER], "label": "dog"}]
LAYOUTS = {
    "polygons in objects": lambda: {"objects": {"segmentation": [[SQUARE], [CORNER]], **BOTH}},
    "a list of objects": lambda: {"objects": LISTED},
    "runs in objects": lambda: {"objects": {"segmentation": [runs(0), runs(1)], **BOTH}},
    "plain runs in objects": lambda: {"objects": {"segmentation": [runs(0, True), runs(1, True)], **BOTH}},
    "polygons and runs as text": lambda: {
        "segmentation": [json.dumps(SQUARE), json.dumps(runs(1))],
        "labels": ["cat", "dog"],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_masks(layout: str, tmp_path: Path) -> None:
    rows_of(tmp_path, lambda index: LAYOUTS[layout]())
    task, _, ready = read(tmp_path)
    assert task.names == ("cat", "dog") and task.density == 2.0
    known = known_of(take(ready, [1])[0], HEIGHT, WIDTH, task.ids, task.stuff)
    assert (known.masks == masks()).all() and known.label.tolist() == [0, 1]


def test_a_coco_folder_gives_the_same_masks(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    for split in ("train", "test"):
        made: dict[str, Any] = {"images": [], "annotations": []}
        made["categories"] = [{"id": 5, "name": "cat"}, {"id": 8, "name": "dog"}]
        for index in range(4):
            made["images"].append({"id": index, "file_name": f"{index}.png"})
            for category, one in ((5, [SQUARE]), (8, runs(1, True))):
                made["annotations"].append({"id": len(made["annotations"]), "image_id": index, "category_id": category,
                                            "bbox": [5, 4, 10, 8], "segmentation": one})  # fmt: skip
        crowd = {**made["annotations"][-1], "id": 99, "iscrowd": 1, "segmentation": runs(0)}
        made["annotations"].append(crowd)
        (tmp_path / split / "coco.json").write_text(json.dumps(made))
    task, _, ready = read(tmp_path)
    assert task.names == ("cat", "dog")
    known = known_of(take(ready, [0])[0], HEIGHT, WIDTH, task.ids, task.stuff)
    assert (known.masks == masks()).all() and known.label.tolist() == [0, 1]
    last = known_of(take(ready, [3])[0], HEIGHT, WIDTH, task.ids, task.stuff)
    assert last.crowd.tolist() == [False, False, True], "the crowd of the last picture is kept apart"


def test_maps_of_class_and_instance_give_the_same_masks(tmp_path: Path) -> None:
    write_maps(tmp_path / "plain")
    task, _, ready = read(tmp_path / "plain")
    assert task.names == ("class 3", "class 5") and task.numbers == (3, 5) and task.density == 2.0
    known = known_of(take(ready, [2])[0], HEIGHT, WIDTH, task.ids, task.stuff)
    assert (known.masks == masks()).all() and known.label.tolist() == [0, 1]
    write_maps(tmp_path / "named", semantic_class_to_id={"sky": 9, "cat": 3, "dog": 5})
    named, _, _ = read(tmp_path / "named")
    assert named.names == ("cat", "dog") and named.numbers == (3, 5)
    again = InstanceSegmentation.restore(json.loads(json.dumps(named.manifest())))
    assert again == named


def test_maps_with_what_they_hold_give_the_same_masks(tmp_path: Path) -> None:
    """Numbers of segments in three channels; of these, those that the data call things."""
    write_pictures(tmp_path)
    for split in ("train", "test"):
        rows = []
        for index in range(4):
            values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            values[..., 2] = 1  # 65536: the ground
            for mask, colour in zip(masks(), ((7, 1, 0), (8, 0, 2)), strict=True):
                values[mask] = colour
            Image.fromarray(values).save(folder := tmp_path / split / f"map{index}.png")
            infos = [(65536, "grass", False, 0), (7 + 256, "cat", True, 0), (8 + 131072, "dog", True, int(index == 3))]
            held = [
                {"id": number, "category": name, "isthing": thing, "iscrowd": crowd}
                for number, name, thing, crowd in infos
            ]
            rows.append({"file_name": f"{index}.png", "map_file_name": folder.name, "segments_info": held})
        (tmp_path / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, _, ready = read(tmp_path)
    assert task.names == ("cat", "dog")
    known = known_of(take(ready, [0])[0], HEIGHT, WIDTH, task.ids, task.stuff)
    assert (known.masks == masks()).all() and known.label.tolist() == [0, 1] and not known.crowd.any()
    assert known_of(take(ready, [3])[0], HEIGHT, WIDTH, task.ids, task.stuff).crowd.tolist() == [False, True]


@pytest.mark.parametrize("value, said", [
    ([5, 4, 60, 4, 60, 12], "stands out of the picture of 40 × 30"),
    ([5.1, 4.1, 5.2, 4.1, 5.2, 4.2], "covers no pixel"),
    ([[]], ""),
    ({"size": [40, 30], "counts": [1200]}, "has runs for 30 × 40 pixels, the picture has 40 × 30"),
    ({"size": [30, 40], "counts": [1200]}, "covers no pixel"),
    ({"size": [30, 40], "counts": [100, 10]}, "has runs of 110 pixels, the picture has 1,200"),
    ({"size": [30, 40], "counts": "12 3"}, "cannot be read"),
    (SQUARE, ""),
    ([5, 4, 40.6, 4, 40.6, 12], ""),
])  # fmt: skip
def test_what_is_wrong_with_a_segment_is_said(value: Any, said: str) -> None:
    if value == [[]]:
        with pytest.raises(ValueError, match=r"segment 2 is .*expected polygons"):
            as_text(value, 2)
        return
    found, _ = fault(as_text(value, 1), WIDTH, HEIGHT)
    assert (said in found) if said else not found


@pytest.mark.parametrize("bad, said", [
    ({"segmentation": [[SQUARE], [[5, 4, 60, 4, 60, 12]]], "category": ["cat", "dog"]}, "segment 2 stands out of the picture"),
    ({"segmentation": [[SQUARE], [[1, 2, 3]]], "category": ["cat", "dog"]}, "segment 2 is"),
    ({"segmentation": [[SQUARE]], "category": ["cat", "dog"]}, "1 segments and 2 labels"),
    ({"segmentation": [[SQUARE], [CORNER]], "category": ["cat", None]}, "segment 2 has no label"),
])  # fmt: skip
def test_a_bad_row_is_named(bad: Any, said: str, tmp_path: Path) -> None:
    good = {"segmentation": [[SQUARE], [CORNER]], "category": ["cat", "dog"]}
    rows_of(tmp_path, lambda index: {"objects": bad if index == 2 else good})
    with pytest.raises(UsageError, match=said) as error:
        read(tmp_path)
    assert "train row 3" in str(error.value)


@pytest.mark.parametrize("names", ["oops", ["wall"], {"1": "wall"}, [["wall", "1"]], [{"name": "wall"}], [1]])
def test_names_of_classes_that_are_none_are_refused_with_the_form(names: Any, tmp_path: Path) -> None:
    write_maps(tmp_path, semantic_class_to_id=json.dumps(names) if names != "oops" else names)
    with pytest.raises(UsageError, match=r'semantic_class_to_id" holds .*; expected names .* \{"wall": 1, "sky": 2\}'):
        read(tmp_path)


@pytest.mark.parametrize("names", [{"cat": 3, "dog": 5}, [["cat", 3], ["dog", 5]],
                                   [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]])  # fmt: skip
def test_names_of_classes_come_as_a_mapping_or_pairs(names: Any, tmp_path: Path) -> None:
    write_maps(tmp_path / "text", semantic_class_to_id=json.dumps(names))
    assert read(tmp_path / "text")[0].names == ("cat", "dog")


def test_segments_are_cut_to_the_picture_where_asked(tmp_path: Path) -> None:
    wide = {"segmentation": [[[30, 4, 60, 4, 60, 12, 30, 12]], [[50, 4, 60, 4, 60, 12]]], "category": ["cat", "dog"]}
    rows_of(tmp_path, lambda index: {"objects": wide})
    task, data, ready = read(tmp_path, bad_segments="clip")
    assert any("8 of 8 segments are cut" in text for text in data.tuner_notes["warnings"])
    known = known_of(take(ready, [0])[0], HEIGHT, WIDTH, task.ids, task.stuff)
    assert known.label.tolist() == [0] and known.masks[0][4:12, 30:].all() and known.masks.sum() == 80


def test_a_label_that_training_never_sees_is_refused(tmp_path: Path) -> None:
    rows_of(tmp_path, lambda index: {"objects": {"segmentation": [[SQUARE]], "category": ["cat"]}})
    path = tmp_path / "test" / "metadata.jsonl"
    path.write_text(path.read_text().replace('"cat"', '"cats"', 1))
    with pytest.raises(UsageError, match='label "cats" is not among those of the training rows; did you mean "cat"'):
        read(tmp_path)


@pytest.mark.parametrize("value, said", [
    (np.zeros((WIDTH, HEIGHT, 3)), "the map has 30 × 40 pixels, its picture 40 × 30"),
    (None, "a map as JPEG"),
])  # fmt: skip
def test_a_bad_map_is_named(value: Any, said: str, tmp_path: Path) -> None:
    write_maps(tmp_path)
    path = tmp_path / "train" / "map1.png"
    if value is None:
        Image.new("RGB", (WIDTH, HEIGHT)).save(path, "JPEG")
    else:
        Image.fromarray(value.astype(np.uint8)).save(path)
    with pytest.raises(UsageError, match=said) as error:
        read(tmp_path)
    assert "row 2" in str(error.value)


def test_without_segments_there_is_nothing_to_learn(tmp_path: Path) -> None:
    rows_of(tmp_path / "none", lambda index: {"note": "x"})
    with pytest.raises(UsageError, match="no segments in the training rows; found: image"):
        read(tmp_path / "none")
    rows_of(tmp_path / "empty", lambda index: {"segmentation": [], "labels": []})
    with pytest.raises(UsageError, match="no picture has a segment"):
        read(tmp_path / "empty")


# --- measured as COCO measures

NAMES = ("a", "b", "c")


def blobs(seed: int, number: int = 10) -> list[tuple[Any, Any, Any, Any, Any]]:
    """Pictures of (height, width), expected masks and classes, found masks, scores and classes: near, beside, of other classes."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        height, width = (int(n) for n in random.integers(60, 300, 2))
        y, x = np.mgrid[:height, :width]

        def blob(cx: float, cy: float, r: float, y: Any = y, x: Any = x) -> Any:
            return ((x - cx) / r) ** 2 + ((y - cy) / (0.7 * r)) ** 2 < 1

        places = [(random.random() * width, random.random() * height, np.exp(random.uniform(1.5, 4.5)))
                  for _ in range(int(random.integers(0, 6)))]  # fmt: skip
        places = [p for p in places if blob(*p).any()]
        known = np.array([blob(*p) for p in places], bool).reshape(-1, height, width)
        label = random.integers(0, 3, len(places))
        found, said = [], []
        for _ in range(10 if places else 2):
            at = int(random.integers(0, len(places))) if places else -1
            cx, cy, r = places[at] if places else (width / 2, height / 2, 20)
            mask = blob(cx + random.normal(0, 0.1) * r, cy + random.normal(0, 0.1) * r, r * random.uniform(0.8, 1.2))
            if mask.any():
                found.append(mask)
                said.append(label[at] if places and random.random() < 0.8 else int(random.integers(0, 3)))
        hit = np.array(found, bool).reshape(-1, height, width)
        made.append(((height, width), (known, label), hit, random.random(len(said)).round(3), np.array(said, int)))
    return made


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_mask_scores_are_those_of_cocoeval(seed: int, crowds: bool) -> None:
    coco = pytest.importorskip("faster_coco_eval")
    truth: dict[str, Any] = {"images": [], "annotations": []}
    truth["categories"] = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    said, ours = [], []
    for number, ((height, width), (known, label), found, score, kind) in enumerate(blobs(seed), 1):
        truth["images"].append({"id": number, "height": height, "width": width})

        def coded(mask: Any, size: tuple[int, int] = (height, width)) -> dict[str, Any]:
            return {"size": list(size), "counts": written(runs_of(mask))}

        for mask, one in zip(known, label, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            place = len(truth["annotations"]) + 1
            plain = {"id": place, "image_id": number, "category_id": int(one), "bbox": box, "area": int(mask.sum())}
            crowd = int(crowds and place % 3 == 0)
            truth["annotations"].append({**plain, "iscrowd": crowd, "segmentation": coded(mask)})
        said += [{"image_id": number, "category_id": int(k), "score": float(s), "segmentation": coded(m)}
                 for m, s, k in zip(found, score, kind, strict=True)]  # fmt: skip
        first, second = covered(found), covered(known)
        crowd = np.array([one["iscrowd"] for one in truth["annotations"] if one["image_id"] == number], bool)
        shared = overlap(first, second, crowd)
        ours.append(Compared(score, kind, pixels(first), label, pixels(second), crowd, shared))
    known = coco.COCO(truth)
    run = coco.COCOeval_faster(known, known.loadRes(said), "segm", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
    theirs = {**dict(zip(names, run.stats[:6], strict=True)), "mar_100": run.stats[8]}
    mine = {name: float(score(np.ones((1, len(ours))))[0]) for name, score in scores(ours, NAMES).items()}
    assert 0.05 < theirs["map"] < 0.95
    for name, value in theirs.items():
        assert mine.get(name, np.nan) == pytest.approx(value if value >= 0 else np.nan, abs=1e-9, nan_ok=True), name
