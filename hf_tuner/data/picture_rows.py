"""Rows with pictures: folders of images as rows, paths as pictures, and one look at every picture before training.

A picture in a row is {"bytes", "path"}, as `datasets.Image(decode=False)` holds it; nothing decodes it before it is
needed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, concatenate_datasets

from hf_tuner.console import Progress, count, warn
from hf_tuner.data.box_folders import read_box_folder
from hf_tuner.data.caption_folders import with_captions
from hf_tuner.data.image_folders import is_image_folder, picture_files
from hf_tuner.data.mask_folders import mask_folders, read_mask_folders
from hf_tuner.data.panoptic_folders import read_panoptic_folder
from hf_tuner.data.splits import keep
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES, Look, look_at, looked_through, quiet_pillow, require_pillow

LISTED = 5
Place = Callable[[str, int], str]
"""Split and row (from 0) in words: file and row."""


def is_picture(path: Path) -> bool:
    """Whether a file is called like a picture."""
    return path.suffix.lower() in SUFFIXES


def picture_folder(folder: Path) -> tuple[dict[str, Dataset], list[str]] | None:
    """Splits and notes of a folder of pictures with boxes, captions, segments or masks beside them, or in class folders;
    None for any other."""
    found = read_panoptic_folder(folder) or read_box_folder(folder)
    if found is None and any(folder.rglob("metadata.*")):
        return None
    if found is None and (pairs := mask_folders(folder)):
        found = read_mask_folders(pairs)
    if (found := with_captions(folder, found)) is not None:
        return found
    return read_picture_folder(folder) if is_image_folder(folder) else None


def read_picture_folder(folder: Path, *, follow_symlinks: bool = False) -> tuple[dict[str, Dataset], list[str]]:
    """The pictures of class folders (perhaps in train/, test/ …) as rows of image and label, and notes.

    Without class folders there are no labels. Raises UsageError for links out of the folder.
    """
    wanted, notes = picture_files(folder, follow_symlinks=follow_symlinks)
    names = list(dict.fromkeys(name for classes in wanted.values() for name, files in classes.items() if files))
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
    splits = {}
    for split, classes in wanted.items():
        pairs = [(str(path), name) for name, files in classes.items() for path in files]
        pictures = [{"bytes": None, "path": path} for path, _ in pairs]
        labels = [names.index(name) for _, name in pairs]
        rows = Dataset.from_dict({"image": pictures, "label": labels}, features=features)
        splits[split] = rows if names != [""] else rows.remove_columns("label")
    return splits, notes


def undecoded(rows: Dataset) -> Dataset:
    """The same rows, whose pictures stay as they are stored."""
    for name, feature in rows.features.items():
        if isinstance(feature, Image) and feature.decode:
            rows = rows.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            rows = rows.cast_column(name, type(feature)(Image(decode=False)))
    return rows


def one_picture(path: Path) -> Dataset:
    """A picture as the only row."""
    return Dataset.from_dict(
        {"image": [{"bytes": None, "path": str(path)}]}, features=Features({"image": Image(decode=False)})
    )


def with_pictures(rows: Dataset, columns: Sequence[str], folder: Path | None) -> Dataset:
    """The same rows, with columns that hold paths (or lists of them) as pictures; paths are relative to `folder`.

    Raises UsageError for text that comes from elsewhere than this machine (`folder` None), and for a column that holds
    neither pictures nor paths.
    """
    for name in columns:
        feature = rows.features[name]
        item = getattr(feature, "feature", feature)  # of a list of pictures
        several = item is not feature
        if isinstance(item, Image):
            continue
        stored = isinstance(item, dict) and set(item) == {"bytes", "path"}  # as JSON Lines hold it
        texts = ("string", "large_string", *(("null",) if several else ()))
        if not stored and (not isinstance(item, Value) or item.dtype not in texts):
            raise UsageError(f'column "{name}" holds {feature}; expected pictures, or paths of pictures')
        if folder is None:
            raise UsageError(f'column "{name}" holds text; paths are read for data on this machine only')
        kind = List(Image(decode=False)) if several else Image(decode=False)
        given = rows[name][:]
        shown = [[_found(v, folder) for v in one or ()] if several else _found(one, folder) for one in given]
        made = Dataset.from_dict({name: shown}, features=Features({name: kind}))
        place, rest = rows.column_names, rows.remove_columns(name)
        rows = concatenate_datasets([made, rest], axis=1).select_columns(place) if rest.column_names else made
    return rows


def _found(value: Any, folder: Path) -> dict[str, Any] | None:
    """A path, or what JSON Lines hold of a picture, as {"bytes", "path"}; None for neither."""
    data, path = (value.get("bytes"), value["path"]) if isinstance(value, Mapping) else (None, value)
    if not data and not (path or "").strip():
        return None
    return {"bytes": data, "path": str(folder / path) if path else None}


def looked_at(
    data: DatasetDict, columns: Sequence[str], place: Place, *, skip_bad: bool, drop_leaked: bool
) -> tuple[DatasetDict, "Seen"]:
    """Every picture decoded once; rows get `width` and `height` of the first column's, upright.

    With `skip_bad`, rows with a picture that cannot be used are left out, with `drop_leaked` training rows whose picture
    stands in another split.
    """
    require_pillow()
    seen = Seen()
    total = sum(rows.num_rows for rows in data.values()) * len(columns)
    progress = Progress("looking at the pictures", total)
    looks: dict[str, list[list[Look]]] = {}
    with quiet_pillow():
        for split, rows in data.items():
            looks[split] = [list(_looks(rows, name, progress)) for name in columns]
    progress.end()
    result = {}
    for split, rows in data.items():
        good = [all(not one.fault for one in row) for row in zip(*looks[split], strict=True)]
        seen.bad(split, looks[split], place, skip_bad)
        index = np.flatnonzero(good) if skip_bad else np.arange(rows.num_rows)
        kept = [[each[i] for i in index] for each in looks[split]]
        rows = keep(rows, index) if len(index) < rows.num_rows else rows
        result[split] = _with_sizes(rows, kept[0])
        seen.looks[split] = kept[0]
    seen.compare(place)
    if drop_leaked and seen.leaked:
        index = np.array([i for i in range(result["train"].num_rows) if i not in seen.leaked], np.int64)
        result["train"] = keep(result["train"], index)
        seen.warnings.append(
            f"{count(len(seen.leaked))} training pictures left out, as in another split too (--drop-leaked)"
        )
    return DatasetDict(result), seen


def usable(rows: Dataset, columns: Sequence[str], *, skip_bad: bool) -> np.ndarray:
    """Indices of the rows whose pictures can be used, before a model is loaded for them.

    Raises UsageError that names pictures which cannot be used, unless `skip_bad`.
    """
    seen, progress = Seen(), Progress("looking at the pictures", rows.num_rows * len(columns))
    with quiet_pillow():
        looks = [list(_looks(rows, name, progress)) for name in columns]
    progress.end()
    seen.bad("input", looks, lambda _, row: f"row {row + 1}", skip_bad)
    if seen.errors:
        raise UsageError("\n".join(seen.errors))
    for text in seen.warnings:
        warn(text)
    good = np.flatnonzero([all(not one.fault for one in row) for row in zip(*looks, strict=True)])
    if rows.num_rows and not len(good):
        raise UsageError(f"none of {count(rows.num_rows)} pictures can be used")
    return good


class Seen:
    """What the look at all pictures found: errors, warnings, lines for the screen and facts."""

    def __init__(self) -> None:
        self.looks: dict[str, list[Look]] = {}
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self.leaked: set[int] = set()
        """Training rows whose picture stands in another split too."""

    def bad(self, split: str, looks: Sequence[Sequence[Look]], place: Place, skip: bool) -> None:
        """Note the pictures of a split that cannot be used."""
        found = [(i, one) for each in looks for i, one in enumerate(each) if one.fault]
        if not found:
            return
        named = ", ".join(f"{_name(one) or place(split, i)} ({one.fault})" for i, one in found[:LISTED])
        more = ", …" if len(found) > LISTED else ""
        said = f"{split}: {count(len(found))} of {count(len(looks[0]))} pictures cannot be used: {named}{more}"
        (self.warnings if skip else self.errors).append(
            f"{said}; left out" if skip else f"{said}; --skip-bad leaves them out"
        )
        self.facts["bad"] = self.facts.get("bad", 0) + len(found)

    def compare(self, place: Place) -> None:
        """Find pictures that stand in train and in another split, or twice in train, by how they look."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, one in enumerate(self.looks.get("train", [])):
            if one.digest:
                alike.setdefault(one.likeness, []).append(i)
        twice = sum(len(rows) - 1 for rows in alike.values())
        self.facts["duplicates"] = twice
        if twice:
            self.warnings.append(f"train: {count(twice)} pictures look like another of train")
        for split, looks in self.looks.items():
            same = [(i, alike[one.likeness]) for i, one in enumerate(looks) if one.likeness in alike and one.digest]
            if split == "train" or not same:
                continue
            self.leaked.update(j for _, rows in same for j in rows)
            i, (j, *_) = same[0]
            self.warnings.append(
                f"{split}: {count(len(same))} of {count(len(looks))} pictures look the same as one of train "
                f"({_name(looks[i]) or place(split, i)} = {_name(self.looks['train'][j]) or place('train', j)}): results on "
                "them flatter the model; --drop-leaked leaves them out of train"
            )
        self.facts["leaked"] = len(self.leaked)

    def line(self) -> str:
        """Formats and sizes of all pictures, for the screen."""
        every = [one for looks in self.looks.values() for one in looks if not one.fault]
        if not every:
            return "none"
        kinds: dict[str, int] = {}
        for one in every:
            kinds[one.format] = kinds.get(one.format, 0) + 1
        ordered = sorted(every, key=lambda one: one.width * one.height)
        shown = ", ".join(f"{name} {count(n)}" for name, n in sorted(kinds.items(), key=lambda pair: -pair[1]))
        small, half, large = ordered[0], ordered[len(ordered) // 2], ordered[-1]
        if (small.width, small.height) == (large.width, large.height):
            return f"{shown}; all {small.width} × {small.height} pixels"
        return (f"{shown}; {small.width} × {small.height} to {large.width} × {large.height} pixels, "
                f"half up to {half.width} × {half.height}")  # fmt: skip


def _looks(rows: Dataset, name: str, progress: Progress) -> Iterator[Look]:
    for look in looked_through(rows, name, _look_at_all):
        progress.begun += 1
        progress.at(progress.begun, f"{progress.begun:,} pictures")
        yield look


def _look(value: Mapping[str, Any] | None) -> Look:
    if not value or (value.get("bytes") is None and not value.get("path")):
        return Look(Path(), fault="no picture")
    data = value.get("bytes")
    return look_at(data if data is not None else Path(value["path"]))


def _look_at_all(value: Any) -> Look:
    """A look at a row's picture; of several, the first one's size, the first fault, and what all of them look like."""
    if not isinstance(value, list):
        return _look(value)
    looks = [_look(one) for one in value]
    bad = next((one for one in looks if one.fault), None)
    if bad or not looks:
        return bad or Look(Path())
    return replace(looks[0], likeness=tuple(part for one in looks for part in one.likeness))


def _name(look: Look) -> str:
    return look.path.name


def _with_sizes(rows: Dataset, looks: Sequence[Look]) -> Dataset:
    plain = rows.remove_columns([name for name in ("width", "height") if name in rows.column_names])
    for name in ("width", "height"):
        plain = plain.add_column(name, np.array([getattr(one, name) for one in looks], np.int64))
    return plain
