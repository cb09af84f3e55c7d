"""Batches of pictures with boxes: decoded, changed together with their boxes, resized by the processor, padded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.tasks._vision import decoded, seeded

AUGMENT = ("none", "flip", "crop")
STEP = 32
"""Pictures are padded to multiples of it, so that batches have few shapes."""


def batches(
    processor: Any, augment: str, seed: int, shapes: Sequence[tuple[int, int]]
) -> Callable[..., dict[str, Any]]:
    """A function from rows to a batch.

    pixel_values [pictures, channels, height, width] and pixel_mask [pictures, height, width] (1 on the picture); sizes
    [pictures, 2] (height and width before resizing); and, where rows have boxes, class_labels [pictures, most] (-1: none)
    and boxes [pictures, most, 4] (centre, width, height as shares of the picture); counted [pictures], 0 for filler.
    Shares are of the picture without padding, which is what `post_process_object_detection` takes them for.
    """
    import torch

    floor = canvas(processor, shapes)

    def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        real = [row for row in rows if row.get("row", 0) != -1]
        made = [_one(processor, row, augment, seed) for row in real or rows[:1]]
        result = _padded([one[0] for one in made], floor)
        result["sizes"] = torch.tensor([one[1] for one in made])
        if "boxes" in rows[0]:
            most = max(1, *(len(one[2]) for one in made))
            result["class_labels"] = torch.full((len(made), most), -1)
            result["boxes"] = torch.zeros(len(made), most, 4)
            for index, (_, _, boxes, labels) in enumerate(made):
                result["class_labels"][index, : len(labels)] = labels
                result["boxes"][index, : len(boxes)] = boxes
            result["counted"] = torch.full((len(made),), int(bool(real)))
        return result

    return batch


def canvas(processor: Any, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width that hold pictures of these shapes (width, height) once they are resized, in steps.

    All batches are padded to it at least: what a model says of a picture must not depend on its neighbours.
    """
    from transformers.image_transforms import get_size_with_aspect_ratio

    size = dict(processor.size)
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    short, long = size.get("shortest_edge"), size.get("longest_edge")
    if not short:
        return 0, 0
    found = [get_size_with_aspect_ratio((height, width), short, long) for width, height in shapes]
    return _stepped(max((h for h, _ in found), default=0)), _stepped(max((w for _, w in found), default=0))


def extremes(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The widest, the tallest and the squarest of some sizes (width, height): the canvas of all follows from them."""
    known = sorted(set(sizes), key=lambda one: one[0] / one[1])
    square = min(known, key=lambda one: max(one) / min(one))
    return tuple(dict.fromkeys((known[0], square, known[-1])))


def _one(processor: Any, row: Mapping[str, Any], augment: str, seed: int) -> tuple[Any, tuple[int, int], Any, Any]:
    """Pixels [channels, height, width], height and width before, boxes and labels of a row."""
    import torch

    picture = decoded(row["image"])
    size = (picture.height, picture.width)
    boxes = torch.tensor(row.get("boxes") or [], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor(row.get("labels") or [], dtype=torch.int64)
    if augment != "none" and "epoch" in row and row["row"] != -1:
        picture, boxes, labels = _changed(
            picture, boxes, labels, augment, seeded(seed, int(row["epoch"]), int(row["row"]))
        )
    width, height = picture.size
    left_top, right_bottom = boxes[:, :2], boxes[:, 2:]
    shares = torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=1)
    shares = shares / torch.tensor([width, height, width, height])
    return processor(picture, return_tensors="pt")["pixel_values"][0], size, shares, labels


def _changed(picture: Any, boxes: Any, labels: Any, augment: str, seed: int) -> tuple[Any, Any, Any]:
    """A picture and its boxes mirrored half of the time, and with "crop" cut half of the time.

    A cut keeps the boxes whose centre is in it (`RandomIoUCrop` of torchvision; Liu et al. 2016, arXiv 1512.02325).
    """
    import torch
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomHorizontalFlip()]
    if augment == "crop" and len(boxes):
        crop = v2.RandomIoUCrop(min_scale=0.5, sampler_options=[0.0, 0.1, 0.3, 0.5, 1.0])
        steps.append(v2.RandomApply([crop], p=0.5))
    steps += [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1)]
    given = {"image": picture, "labels": labels}
    given["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(picture.height, picture.width))  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = v2.Compose(steps)(given)
    return made["image"], made["boxes"].as_subclass(torch.Tensor), made["labels"]


def _padded(pixels: Sequence[Any], floor: tuple[int, int]) -> dict[str, Any]:
    import torch

    height = max(
        floor[0], *(_stepped(one.shape[1]) if not floor[0] or one.shape[1] > floor[0] else 0 for one in pixels)
    )
    width = max(floor[1], *(_stepped(one.shape[2]) if not floor[1] or one.shape[2] > floor[1] else 0 for one in pixels))
    values = torch.zeros(len(pixels), pixels[0].shape[0], height, width)
    mask = torch.zeros(len(pixels), height, width, dtype=torch.int64)
    for index, one in enumerate(pixels):
        values[index, :, : one.shape[1], : one.shape[2]] = one
        mask[index, : one.shape[1], : one.shape[2]] = 1
    return {"pixel_values": values, "pixel_mask": mask}


def _stepped(edge: int) -> int:
    return -(-edge // STEP) * STEP
