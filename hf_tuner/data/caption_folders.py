"""Folders of pictures whose captions lie in COCO's JSON beside them: images (id, file_name), annotations (image_id, caption).

They become rows of `image` and `captions`; where other files hold boxes, segments or masks, their rows get the captions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value
from datasets import Sequence as ListOf

from hf_tuner.data.annotation_files import Pictures, by_split, ends_of, files_in, known_of
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES

Read = tuple[dict[str, Dataset], list[str]]
"""Splits and notes."""
EXPECTED = "images (id, file_name) and annotations (image_id, caption)"


def with_captions(folder: Path, found: Read | None) -> Read | None:
    """Splits and notes of a folder with COCO's captions: alone, or beside what was `found` in it; `found` when it has none.

    Raises UsageError for captions that cannot be read, or of pictures that are not there.
    """
    files = list(files_in(folder))
    said = [path for path in files if path.suffix.lower() == ".json" and _is_captions(path)]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not said or not pictures or any(path.name.lower().startswith("metadata.") for path in files):
        return found
    if found is not None:  # masks may be called as their pictures
        pictures = [Path(one["path"]) for rows in found[0].values() for one in rows["image"]]
    places, captions = Pictures(folder, pictures), {}
    for split, paths in by_split(folder, said).items():
        captions[split] = _joined(_captions(path, places) for path in paths)
    if found is None:
        return {split: _rows(texts) for split, texts in captions.items()}, []
    aside = [
        f"captions of {split} left aside: no other rows of that split" for split in captions if split not in found[0]
    ]
    return {split: _beside(rows, captions.get(split, {})) for split, rows in found[0].items()}, [*found[1], *aside]


def _is_captions(path: Path) -> bool:
    """Whether captions stand near the start or the end of a JSON file; "annotations" may stand far from both."""
    text = ends_of(path)
    return b'"image_id"' in text and b'"caption"' in text and b'"bbox"' not in text


def _captions(path: Path, places: Pictures) -> Iterator[tuple[str, list[str]]]:
    """Path and captions of every picture that the file lists."""

    def read(known: Mapping[str, Any]) -> tuple[dict[Any, str], list[tuple[Any, Any]]]:
        names = {one["id"]: str(one["file_name"]) for one in known["images"]}
        return names, [(one["image_id"], one["caption"]) for one in known["annotations"]]

    images, captions = known_of(path, "COCO caption file", EXPECTED, read)
    made: dict[Any, list[str]] = {key: [] for key in images}
    for number, (image, caption) in enumerate(captions, 1):
        if image not in made:
            raise UsageError(
                f"{path.name}: annotation {number} has image_id {image}, which is not among the {len(images)} listed"
            )
        if caption is not None and not isinstance(caption, str):
            raise UsageError(f"{path.name}: annotation {number} has the caption {str(caption)[:40]}, expected a text")
        if caption and caption.strip():
            made[image].append(caption)
    yield from ((str(places.find(images[key], path)), texts) for key, texts in made.items())


def _joined(parts: Iterable[Iterable[tuple[str, list[str]]]]) -> dict[str, list[str]]:
    """Path of a picture → its captions in all files."""
    made: dict[str, list[str]] = {}
    for part in parts:
        for path, texts in part:
            made.setdefault(path, []).extend(texts)
    return made


def _rows(captions: Mapping[str, Sequence[str]]) -> Dataset:
    features = Features({"image": Image(decode=False), "captions": ListOf(Value("string"))})
    pictures = [{"bytes": None, "path": path} for path in captions]
    return Dataset.from_dict({"image": pictures, "captions": list(captions.values())}, features=features)


def _beside(rows: Dataset, captions: Mapping[str, Sequence[str]]) -> Dataset:
    texts = [captions.get(picture["path"], []) for picture in rows["image"]]
    return rows.add_column("captions", texts, feature=ListOf(Value("string")))
