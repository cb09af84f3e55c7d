"""Folders of pictures whose boxes lie in files beside them: COCO's JSON, Pascal VOC's XML, YOLO's text.

All become rows of `image` and `objects` with `bbox_coco` (left, top, width, height in pixels), `category` (a name) and
`iscrowd` (1 around a crowd); where COCO's files have segmentations, `segmentation` holds their JSON. What is odd is kept as it
is: the audit of the task says it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value
from datasets import Sequence as ListOf

from hf_tuner.data.annotation_files import NAMED, Pictures, by_split, close_to, ends_of, files_in, known_of
from hf_tuner.data.splits import SPLIT_WORDS, split_of
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES, size_of

EXPECTED = "images (id, file_name), annotations (image_id, category_id, bbox) and categories (id, name)"
JOINTS = "person_keypoints"
"""How the names of COCO's files of people begin."""
Splits = dict[str, Dataset]
Row = tuple[Path, list[list[float]], list[str], list[int], list[str]]
"""A picture, its boxes, their labels, which of them are around crowds, and their segmentations as JSON where there are any."""


def read_box_folder(folder: Path) -> tuple[Splits, list[str]] | None:
    """Splits and notes of a folder with pictures and one of the three kinds of files; None when it has none of them.

    Raises UsageError for annotations that cannot be read, or that name pictures which are not there.
    """
    files = list(files_in(folder))
    pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
    if not pictures or any(p.name.lower().startswith("metadata.") for p in files):
        return None
    coco = [p for p in files if p.suffix.lower() == ".json" and _is_coco(p)]
    if coco:
        return _coco(folder, coco, pictures)
    if any(p.suffix.lower() == ".xml" for p in files):
        return _voc(folder, [p for p in files if p.suffix.lower() == ".xml"], pictures)
    texts = [p for p in files if p.suffix.lower() == ".txt"]
    if texts and (_names_file(files) or any(p.parent.name == "labels" or "labels" in p.parts for p in texts)):
        return _yolo(folder, texts, pictures, _names_file(files))
    return None


def _is_coco(path: Path) -> bool:
    """Whether keys of COCO stand somewhere near the start or the end of a JSON file.

    "images" alone says nothing: rows of conversations about pictures have it too.
    """
    text = ends_of(path)
    if b'"caption"' in text and b'"bbox"' not in text:
        return False
    listed = b'"images"' in text and any(key in text for key in (b'"annotations"', b'"categories"', b'"category_id"'))
    return listed or (b'"annotations"' in text and b'"bbox"' in text)


def _coco(folder: Path, files: Sequence[Path], pictures: Sequence[Path]) -> tuple[Splits, list[str]]:
    """Boxes of COCO's files; those of people alone, with their joints, repeat boxes that others of the split hold."""
    places, made, aside = Pictures(folder, pictures), {}, []
    for split, paths in by_split(folder, files).items():
        whole = [path for path in paths if not path.name.startswith(JOINTS)] or paths
        aside += [path.name for path in paths if path not in whole]
        made[split] = _rows([row for path in whole for row in _coco_rows(path, places)])
    return made, [f"left aside, people and their joints: {', '.join(aside)}"] if aside else []


def _coco_rows(path: Path, places: "Pictures") -> list[Row]:
    def read(known: dict[str, Any]) -> tuple[dict, dict, list[tuple], bool]:
        names = {one["id"]: str(one["name"]) for one in known["categories"]}
        images = {one["id"]: str(one["file_name"]) for one in known["images"]}
        boxes = [(one["image_id"], one["category_id"], list(map(float, one["bbox"])), one.get("iscrowd", 0),
                  json.dumps(one.get("segmentation") or [])) for one in known["annotations"]]  # fmt: skip
        return names, images, boxes, any(one.get("segmentation") for one in known["annotations"])

    names, images, boxes, drawn = known_of(path, "COCO file", EXPECTED, read)
    made: dict[Any, Row] = {key: (places.find(name, path), [], [], [], []) for key, name in images.items()}
    for number, (image, category, box, crowd, segmentation) in enumerate(boxes, 1):
        if image not in made or category not in names:
            what, value, ids = ("image_id", image, images) if image not in made else ("category_id", category, names)
            raise UsageError(
                f"{path.name}: annotation {number} has {what} {value}, which is not among the {len(ids)} listed"
            )
        made[image][1].append(box)
        made[image][2].append(names[category])
        made[image][3].append(int(bool(crowd)))
        if drawn:
            made[image][4].append(segmentation)
    return list(made.values())


def _voc(folder: Path, files: Sequence[Path], pictures: Sequence[Path]) -> tuple[Splits, list[str]]:
    places = Pictures(folder, pictures)
    rows = {path: _voc_row(path, places) for path in files}
    stems = {path.stem: path for path in files}
    made: dict[str, list[Row]] = {}
    if lists := _voc_lists(folder):
        for split, named in lists.items():
            for stem, said in named.items():
                if stem not in stems:
                    raise UsageError(f"{said.name} names {stem}, which has no {stem}.xml{close_to(stem, list(stems))}")
                made.setdefault(split, []).append(rows[stems[stem]])
    else:
        for path, row in rows.items():
            made.setdefault(split_of(path.relative_to(folder)) or "train", []).append(row)
    return {split: _rows(part) for split, part in made.items()}, []


def _voc_lists(folder: Path) -> dict[str, dict[str, Path]]:
    """Split → names of its pictures, each once → the list that has it. Lists of a class (`cat_train.txt`) are none of a split;
    `trainval.txt` is that of train where there is no `train.txt`."""
    words = {word: split for split, known in SPLIT_WORDS.items() for word in known}
    made: dict[str, dict[str, Path]] = {}
    for place in sorted(folder.rglob("ImageSets/Main")):
        lists = {path.stem.lower(): path for path in sorted(place.glob("*.txt"))}
        both = {} if set(lists) & set(SPLIT_WORDS["train"]) else {"trainval": "train"}
        for word, split in (words | both).items():
            if word in lists:
                lines = lists[word].read_text(encoding="utf-8").split("\n")
                named = {line.split()[0]: lists[word] for line in lines if line.strip()}
                made[split] = named | made.get(split, {})
    return made


def _voc_row(path: Path, places: "Pictures") -> Row:
    """A picture of a VOC file; entities are refused, so that a file cannot blow up."""
    from xml.etree import ElementTree

    data = path.read_bytes()
    if b"<!ENTITY" in data:
        raise UsageError(f"{path.name} defines entities; expected plain annotations")
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 - without entities there is nothing to expand
        name = root.findtext("filename") or ""
        boxes, labels = [], []
        for one in root.iter("object"):
            left, top, right, bottom = (
                float(one.findtext(f"bndbox/{k}") or "nan") for k in ("xmin", "ymin", "xmax", "ymax")
            )
            boxes.append([left, top, right - left, bottom - top])
            labels.append((one.findtext("name") or "").strip())
    except (ElementTree.ParseError, ValueError) as error:
        raise UsageError(f"{path.name} is no Pascal VOC file: {error}") from error
    return places.find(name, path, path.stem), boxes, labels, [0] * len(labels), []


def _yolo(
    folder: Path, texts: Sequence[Path], pictures: Sequence[Path], names: Path | None
) -> tuple[Splits, list[str]]:
    if names is None:
        raise UsageError(
            f"{folder}: YOLO labels without the names of their classes; expected data.yaml (names: …) or classes.txt"
        )
    classes = _class_names(names)
    beside = {(path.parent, path.stem): path for path in texts if path != names}
    made: dict[str, list[Row]] = {}
    used: set[Path] = set()
    for picture in pictures:
        parts = list(picture.parent.parts)
        at = len(parts) - 1 - parts[::-1].index("images") if "images" in parts else None
        places = [picture.parent, *([Path(*parts[:at], "labels", *parts[at + 1 :])] if at is not None else [])]
        path = next((beside[place, picture.stem] for place in places if (place, picture.stem) in beside), None)
        used |= {path} if path else set()
        boxes, labels = _yolo_row(path, picture, classes) if path else ([], [])
        made.setdefault(split_of(picture.relative_to(folder)) or "train", []).append(
            (picture, boxes, labels, [0] * len(labels), [])
        )
    lost = [path.name for path in beside.values() if path not in used]
    notes = [f"labels without a picture: {len(lost)} ({', '.join(lost[:NAMED])})"] if lost else []
    return {split: _rows(part) for split, part in made.items()}, notes


def _yolo_row(path: Path, picture: Path, classes: Mapping[int, str]) -> tuple[list[list[float]], list[str]]:
    boxes, labels = [], []
    lines = [
        (n, line.split()) for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()
    ]
    width, height = _size(picture) if lines else (1, 1)
    for number, words in lines:
        try:
            index, (x, y, w, h) = int(words[0]), _yolo_box([float(word) for word in words[1:]])
        except ValueError as error:
            raise UsageError(f"{path.name} line {number}: {' '.join(words)[:60]}; expected class x y width height, or class and "
                             "x y of three corners or more") from error  # fmt: skip
        if index not in classes:
            raise UsageError(
                f"{path.name} line {number}: class {index}; there are {len(classes)} (0 to {max(classes, default=0)})"
            )
        boxes.append([(x - w / 2) * width, (y - h / 2) * height, w * width, h * height])
        labels.append(classes[index])
    return boxes, labels


def _size(picture: Path) -> tuple[int, int]:
    """Width and height; 1 and 1 of a picture that cannot be read, which the look at all pictures will name."""
    try:
        return size_of(picture)
    except UsageError:
        return 1, 1


def _yolo_box(numbers: Sequence[float]) -> Sequence[float]:
    """Centre, width and height: as written (perhaps before a confidence), or of the box around a polygon's corners.

    Raises ValueError for what is neither.
    """
    if len(numbers) in (4, 5):
        return numbers[:4]
    if len(numbers) < 6 or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise ValueError("neither a box nor a polygon")
    xs, ys = numbers[::2], numbers[1::2]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)


def _names_file(files: Sequence[Path]) -> Path | None:
    wanted = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "labels.txt")
    found = {p.name.lower(): p for p in reversed(files)}
    return next((found[name] for name in wanted if name in found), None)


def _class_names(path: Path) -> dict[int, str]:
    """Names of class ids from `names` of a YAML file, or the lines of a text file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(line.strip() for line in text.split("\n") if line.strip()))
    import yaml

    try:
        names = yaml.safe_load(text)["names"]
        return {int(k): str(v) for k, v in (names.items() if isinstance(names, Mapping) else enumerate(names))}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path.name}: no list of class names under names:") from error


def _rows(rows: Sequence[Row]) -> Dataset:
    pictures = [{"bytes": None, "path": str(path)} for path, *_ in rows]
    objects: list[dict[str, Any]] = [
        {"bbox_coco": boxes, "category": labels, "iscrowd": crowd} for _, boxes, labels, crowd, _ in rows
    ]
    kinds = {
        "bbox_coco": ListOf(ListOf(Value("float64"))),
        "category": ListOf(Value("string")),
        "iscrowd": ListOf(Value("int8")),
    }
    if any(segmentations for *_, segmentations in rows):
        objects = [{**one, "segmentation": row[4]} for one, row in zip(objects, rows, strict=True)]
        kinds["segmentation"] = ListOf(Value("string"))
    features = Features({"image": Image(decode=False), "objects": kinds})
    return Dataset.from_dict({"image": pictures, "objects": objects}, features=features)
