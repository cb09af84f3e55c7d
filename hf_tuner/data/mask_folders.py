"""Folders of pictures beside folders of masks of the same names, as rows of image and mask."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset, Features, Image

from hf_tuner.data.splits import split_of
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES

IMAGES = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages")
MASKS = ("masks", "mask", "annotations", "labels", "segmentations", "segmentation", "segmentationclass", "gt")
ENDINGS = ("_mask", "-mask", "_seg", "_label", "_labels", "_gt", "_l")
"""What a mask's name may have after that of its picture."""
LISTED = 5


def mask_folders(folder: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Split → folders of pictures and of masks; empty for a folder that is laid out otherwise.

    Known are images/ and masks/ with pictures in them or in train/, test/ …, and train/images/ and train/masks/.
    """
    found: dict[str, list[tuple[Path, Path]]] = {}
    for base in (folder, *_folders(folder)):
        pair = _named(base, IMAGES), _named(base, MASKS)
        if pair[0] is None or pair[1] is None:
            continue
        inner = [one for one in _folders(pair[0]) if (pair[1] / one.name).is_dir() and split_of(Path(one.name) / "x")]
        places = [(one, pair[1] / one.name) for one in inner] or [(pair[0], pair[1])]
        for images, masks in places:
            if any(_pictures(images)) and any(_pictures(masks)):
                named = images.relative_to(folder) / "x"
                found.setdefault(split_of(named) or "train", []).append((images, masks))
    return found


def read_mask_folders(found: dict[str, list[tuple[Path, Path]]]) -> tuple[dict[str, Dataset], list[str]]:
    """Rows of image and mask for each split, and notes. Raises UsageError for pictures without a mask."""
    features = Features({"image": Image(decode=False), "mask": Image(decode=False)})
    splits, notes = {}, []
    for split, places in found.items():
        rows: dict[str, list[dict[str, str | None]]] = {"image": [], "mask": []}
        for images, masks in places:
            pictures, given = sorted(_pictures(images)), sorted(_pictures(masks))
            known = _claimed({path.stem.lower() for path in pictures}, given)
            lacking = [path.name for path in pictures if path.stem.lower() not in known]
            if lacking:
                named = ", ".join(lacking[:LISTED]) + (", …" if len(lacking) > LISTED else "")
                raise UsageError(f"{images}: {len(lacking)} of {len(pictures)} pictures have no mask of their name in "
                                 f"{masks.name}/: {named}; expected {masks.name}/{Path(lacking[0]).stem}.png")  # fmt: skip
            rows["image"] += [{"bytes": None, "path": str(path)} for path in pictures]
            rows["mask"] += [{"bytes": None, "path": str(known[path.stem.lower()])} for path in pictures]
            if spare := len(given) - len(known):
                notes.append(f"{spare:,} masks in {masks} have no picture, left aside")
        splits[split] = Dataset.from_dict(rows, features=features)
    return splits, notes


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _named(folder: Path, names: tuple[str, ...]) -> Path | None:
    known = {one.name.lower(): one for one in _folders(folder)}
    return next((known[name] for name in names if name in known), None)


def _pictures(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.is_symlink() and not path.resolve().is_relative_to(root.parent):
                raise UsageError(f"{path} is a link out of its folder, to {path.resolve()}; copy the file there")
            yield path


def _claimed(pictures: set[str], masks: Sequence[Path]) -> dict[str, Path]:
    """Name of a picture → its mask: the one of its name, or else of its name and one of `ENDINGS`; in small letters.

    Raises UsageError for a picture with two masks.
    """
    found: dict[str, Path] = {}
    for path in masks:
        whole = path.stem.lower()
        short = next((whole.removesuffix(end) for end in ENDINGS if whole.endswith(end)), whole)
        name = whole if whole in pictures else short
        if name in found:
            raise UsageError(
                f"{path.parent}: {found[name].name} and {path.name} are both masks of {name}; expected one"
            )
        if name in pictures:
            found[name] = path
    return found
