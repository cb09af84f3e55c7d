"""What tasks that read pictures share: decoding, augmentation by a seed of its own for each row, pixels for the model."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hf_tuner import catalog
from hf_tuner.errors import UsageError
from hf_tuner.pictures import open_image
from hf_tuner.tasks._task import Task

PICTURES = ("image", "img", "picture", "photo", "pixel_values", "image_path", "img_path", "path", "file_name", "filename",
            "file", "image_file", "url")  # fmt: skip
"""Names that a column of pictures, or of their paths, goes by."""


ENOUGH = 2
"""Shortest edge of a picture that is cropped, in input sizes: then no crop of `augment` shows less than the model reads."""
MADE = ("__row__", "width", "height", "written")
"""Columns of canonical rows that were made on the way."""


@dataclass(frozen=True, kw_only=True)
class PictureTask(Task):
    """A task whose rows have a picture in the column `image`."""

    processor: ClassVar[str] = "AutoImageProcessor"
    carried: ClassVar[tuple[str, ...]] = ("image",)
    pictures: ClassVar[tuple[str, ...]] = ("image",)
    texts: ClassVar[tuple[str, ...]] = ()

    def samples(self) -> list[dict[str, Any]]:
        """Pictures of noise and of plain colours, to compare two models on where the run's own data is not at hand."""
        from hf_tuner.tasks._sample_pictures import sample_pictures

        return [{"image": picture} for picture in sample_pictures()]

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """Only lengths, all alike: what `carried` names goes along as it is."""

        def rows(batch: dict[str, list]) -> dict[str, list]:
            return {"length": [1] * len(next(iter(batch.values())))}

        return rows

    def reads_as(self, processor: Any) -> str:
        """Size and normalisation of what the model gets."""
        height, width = input_size(processor)
        return f"{type(processor).__name__}: {width} × {height} pixels"


def picture_columns(
    features: Mapping[str, Any], given: Mapping[str, str], names: Mapping[str, Sequence[str]], picture: str = "image"
) -> dict[str, str]:
    """Canonical name → column: as `given`, else by the `names` each goes by; the `picture` also by its type.

    Raises UsageError when there is no picture.
    """
    found = dict(given)
    for name, known in names.items():
        column = next((c for n in known for c in features if c.lower() == n and c not in found.values()), None)
        if name not in found and column is not None:
            found[name] = column
    kinds = [c for c, feature in features.items() if type(feature).__name__ == "Image" and c not in found.values()]
    if picture not in found and not kinds:
        close = catalog.nearest("image", list(features))
        hint = f'; did you mean "{close}"?' if close else ""
        others = ",".join(f"{name}=COLUMN" for name in names if name != picture)
        raise UsageError(f"no column with pictures or their paths; found: {', '.join(features)}{hint}\n"
                         f"Name it: --columns {picture}=COLUMN{',' if others else ''}{others}")  # fmt: skip
    return {picture: kinds[0], **found} if picture not in found else found


def check_settings(image_size: int, threshold: float) -> None:
    """Raise ValueError for an edge in pixels, or a least score of answers, that cannot be."""
    if image_size < 0:
        raise ValueError(f"image_size is {image_size}; expected 0 or more, such as 640")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected 0 to 1, such as 0.5")


def columns_of(rows: Any) -> str:
    """The columns of canonical rows that come from the data, for messages."""
    return ", ".join(name for name in rows.column_names if name not in MADE)


def decoded(value: Mapping[str, Any], edge: int = 0) -> Any:
    """The RGB PIL image of a picture's {"bytes", "path"}, large ones at a part of their size as `open_image` says.

    Raises UsageError for what is no whole picture.
    """
    return open_image(value["bytes"] if value["bytes"] is not None else Path(value["path"]), edge=edge)


def input_size(processor: Any) -> tuple[int, int]:
    """Height and width of what a processor gives, from its settings; (0, 0) where they depend on the picture."""
    for name in ("crop_size", "size"):
        size = getattr(processor, name, None)
        if not size or (name == "crop_size" and not getattr(processor, "do_center_crop", False)):
            continue
        given: dict[str, Any] = dict(size)
        if given.get("height") and given.get("width"):
            return int(given["height"]), int(given["width"])
        if given.get("shortest_edge"):
            return int(given["shortest_edge"]), int(given["shortest_edge"])
    return 0, 0


def seeded(seed: int, epoch: int, row: int) -> int:
    """A seed of its own for each row and epoch: nothing depends on which worker meets a row, or in which order."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch} {row}".encode()).digest()[:8], "big") >> 1


def augmenter(name: str, size: tuple[int, int], seed: int) -> Callable[[Any, Mapping[str, Any]], Any] | None:
    """The augmentation `name` as a function of a picture (or pixels with boxes and masks) and its row; None for none.

    Only rows for training, which have an epoch, are changed. `size` is height and width of what comes out.
    """
    if name == "none":
        return None
    change = catalog.load("augment", name).transform(size)

    def augmented(picture: Any, row: Mapping[str, Any]) -> Any:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(seed, int(row["epoch"]), int(row["row"])))
            return change(picture)

    return augmented


def pixels_of(
    processor: Any, augment: Callable[[Any, Mapping[str, Any]], Any] | None
) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A function from rows to pixel values [rows, channels, height, width], augmented where rows are for training."""
    inputs = inputs_of(processor, augment)
    return lambda rows: inputs(rows)["pixel_values"]


def inputs_of(
    processor: Any, augment: Callable[[Any, Mapping[str, Any]], Any] | None
) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """A function from rows to all tensors that an image processor makes of their pictures, as `pixels_of`.

    Pictures that will be cropped are decoded no larger than a crop can use; all others as they are everywhere.
    """
    edge = ENOUGH * max(input_size(processor))

    def inputs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if augment is None or "epoch" not in rows[0]:
            return dict(processor([decoded(row["image"]) for row in rows], return_tensors="pt"))
        changed = [augment(decoded(row["image"], edge), row) for row in rows]
        return dict(processor(changed, return_tensors="pt", do_resize=False, do_center_crop=False))

    return inputs
