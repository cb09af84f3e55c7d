"""Folders as COCO panoptic has them: a JSON file for each split, pictures, and maps whose colours number the segments.

They become rows of `image`, `map` and `segments_info` with `id`, `category` (a name), `isthing` and `iscrowd`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value
from datasets import Sequence as ListOf

from hf_tuner.data.annotation_files import Pictures, ends_of, files_in, known_of
from hf_tuner.data.splits import split_of
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES

EXPECTED = ("images (id, file_name), annotations (image_id, file_name, segments_info) and categories "
            "(id, name, isthing)")  # fmt: skip
PLACES = ("maps", "masks", "panoptic", "annotations", "labels")
"""Folders of maps, besides one that is called as its JSON file."""


def read_panoptic_folder(folder: Path) -> tuple[dict[str, Dataset], list[str]] | None:
    """Splits and notes of a folder with COCO panoptic files; None when it has none.

    Raises UsageError for files that cannot be read, and for pictures and maps that are not there.
    """
    every = list(files_in(folder))
    files = [path for path in every if path.suffix.lower() == ".json" and _is_panoptic(path)]
    if not files:
        return None
    maps = {path: _maps(path, folder) for path in files}
    images = [path for path in every if path.suffix.lower() in SUFFIXES and path.parent not in maps.values()]
    places, splits = Pictures(folder, images), {}
    for path in files:
        split = split_of(path.relative_to(folder)) or ("train" if len(files) == 1 else "")
        if not split or split in splits:
            raise UsageError(f"{path.name}: {'a second file of ' + split if split else 'no split in its name'}; expected one file "
                             "for each of train, validation and test, with the split in its name")  # fmt: skip
        splits[split] = _rows(path, maps[path], places)
    return splits, []


def _is_panoptic(path: Path) -> bool:
    """Whether the keys of COCO panoptic stand somewhere near the start or the end of a JSON file."""
    return b'"segments_info"' in ends_of(path)


def _maps(path: Path, folder: Path) -> Path:
    """The folder of a file's maps."""
    found = [path.with_suffix(""), *(place / name for place in (path.parent, folder) for name in PLACES)]
    there = [one for one in found if one.is_dir() and any(p.suffix.lower() == ".png" for p in one.iterdir())]
    if not there:
        raise UsageError(f"{path.name}: no folder of its maps; expected {path.stem}/ with PNG files beside it")
    return there[0]


def _rows(path: Path, maps: Path, places: Pictures) -> Dataset:
    def read(known: dict[str, Any]) -> tuple[dict, dict, list[tuple]]:
        kinds = {one["id"]: (str(one["name"]), bool(one.get("isthing", 1))) for one in known["categories"]}
        images = {one["id"]: str(one["file_name"]) for one in known["images"]}
        rows = [(one["image_id"], str(one["file_name"]), [_segment(s) for s in one["segments_info"]])
                for one in known["annotations"]]  # fmt: skip
        return kinds, images, rows

    kinds, images, rows = known_of(path, "COCO panoptic file", EXPECTED, read)
    made: dict[str, list[Any]] = {"image": [], "map": [], "segments_info": []}
    for number, (image, file, segments) in enumerate(rows, 1):
        _require(path, number, segments, image in images, kinds)
        if not (maps / file).is_file() or not (maps / file).resolve().is_relative_to(maps.resolve()):
            raise UsageError(f"{path.name}: annotation {number} names the map {file}; it is not in {maps}")
        made["image"].append({"bytes": None, "path": str(places.find(images[image], path))})
        made["map"].append({"bytes": None, "path": str(maps / file)})
        made["segments_info"].append({"id": [one[0] for one in segments], "category": [kinds[one[1]][0] for one in segments],
                                      "isthing": [kinds[one[1]][1] for one in segments],
                                      "iscrowd": [one[2] for one in segments]})  # fmt: skip
    kinds_of = {"id": "int64", "category": "string", "isthing": "bool", "iscrowd": "bool"}
    held = {name: ListOf(Value(kind)) for name, kind in kinds_of.items()}
    features = Features({"image": Image(decode=False), "map": Image(decode=False), "segments_info": held})
    return Dataset.from_dict(made, features=features)


def _segment(one: Mapping[str, Any]) -> tuple[int, Any, bool]:
    return int(one["id"]), one["category_id"], bool(one.get("iscrowd", 0))


def _require(path: Path, number: int, segments: Sequence[Any], known: bool, kinds: Mapping[Any, Any]) -> None:
    """Raise UsageError for an annotation of no picture, or of a category that is not listed."""
    other = next((one[1] for one in segments if one[1] not in kinds), None)
    if not known or other is not None:
        what = f"category_id {other}" if known else "an image_id"
        raise UsageError(f"{path.name}: annotation {number} has {what} that is not among those listed")
