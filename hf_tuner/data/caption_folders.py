"""Folders of pictures whose captions lie in COCO's JSON beside them: images (id, file_name), annotations (image_id, caption).

They become rows of `image` and `captions`; where other files of the folder hold boxes, their rows get the captions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value
from datasets import Sequence as ListOf

from hf_tuner.data.annotation_files import Pictures, by_split, ends_of, files_in, known_of
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES

Splits = dict[str, Dataset]
EXPECTED = "images (id, file_name) and annotations (image_id, caption)"


def with_captions(folder: Path, boxed: Splits | None) -> tuple[Splits, list[str]] | None:
    """Splits and notes of a folder with COCO's captions, or `boxed` with them; None when the folder has none.

    Raises UsageError for captions that cannot be read, or of pictures that are not there.
    """
    files = list(files_in(folder))
    said = [path for path in files if path.suffix.lower() == ".json" and _is_captions(path)]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not said or not pictures or any(path.name.lower().startswith("metadata.") for path in files):
        return None
    places = Pictures(folder, pictures)
    found: dict[str, dict[str, list[str]]] = {}
    for split, paths in by_split(folder, said).items():
        for path in paths:
            found.setdefault(split, {}).update(_captions(path, places))
    if boxed is None:
        return {split: _rows(captions) for split, captions in found.items()}, []
    aside = [f"captions of {split} left aside: no boxes of that split" for split in found if split not in boxed]
    return {split: _beside(rows, found.get(split, {})) for split, rows in boxed.items()}, aside


def _is_captions(path: Path) -> bool:
    text = ends_of(path)
    return all(key in text for key in (b'"annotations"', b'"image_id"', b'"caption"')) and b'"bbox"' not in text


def _captions(path: Path, places: Pictures) -> dict[str, list[str]]:
    """Path of a picture → its captions, of every picture that the file lists."""

    def read(known: Mapping[str, Any]) -> tuple[dict[Any, str], list[tuple[Any, str]]]:
        names = {one["id"]: str(one["file_name"]) for one in known["images"]}
        return names, [(one["image_id"], str(one["caption"])) for one in known["annotations"]]

    images, captions = known_of(path, "COCO caption file", EXPECTED, read)
    made: dict[Any, list[str]] = {key: [] for key in images}
    for number, (image, caption) in enumerate(captions, 1):
        if image not in made:
            raise UsageError(
                f"{path.name}: annotation {number} has image_id {image}, which is not among the {len(images)} listed"
            )
        made[image].append(caption)
    return {str(places.find(images[key], path)): texts for key, texts in made.items()}


def _rows(captions: Mapping[str, Sequence[str]]) -> Dataset:
    features = Features({"image": Image(decode=False), "captions": ListOf(Value("string"))})
    pictures = [{"bytes": None, "path": path} for path in captions]
    return Dataset.from_dict({"image": pictures, "captions": list(captions.values())}, features=features)


def _beside(rows: Dataset, captions: Mapping[str, Sequence[str]]) -> Dataset:
    texts = [captions.get(picture["path"], []) for picture in rows["image"]]
    return rows.add_column("captions", texts, feature=ListOf(Value("string")))
