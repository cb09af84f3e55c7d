"""Batches of pictures with the masks of their segments: decoded, changed together, brought to the model's size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.tasks._segments import Known, known_of
from hf_tuner.tasks._vision import augmenter, decoded, input_size, seeded

AUGMENT = ("none", "crop")
DEFAULT_SIZE = 512


def dress(processor: Any, image_size: int) -> None:
    """Make a processor give pictures of one size, in place; `image_size` 0 keeps its own.

    A processor that pads (EoMT's) keeps proportions, others bring whole pictures to a square, as their post-processing
    expects.
    """
    height, width = (image_size,) * 2 if image_size else input_size(processor)
    if not height:
        height = width = DEFAULT_SIZE
    kind = type(processor.size) if hasattr(processor.size, "height") else dict
    if pads(processor):
        processor.size = kind(shortest_edge=height, longest_edge=height)
        processor.do_pad, processor.do_split_image = True, False
    else:
        processor.size = kind(height=height, width=width)
        processor.do_resize = True


def pads(processor: Any) -> bool:
    """Whether a processor pads pictures below and on the right."""
    return hasattr(processor, "do_split_image")


def batches(
    processor: Any, augment: str, seed: int, ids: Mapping[int, int], stuff: bool
) -> Callable[..., dict[str, Any]]:
    """A function from encoded rows to a batch.

    pixel_values [pictures, channels, height, width]; sizes [pictures, 2] (height and width before resizing) and inside
    [pictures, 2] (of the picture without padding); and, where rows have segments, class_labels [pictures, most] (-1: none),
    mask_labels uint8 [pictures, most, height, width], seeds [pictures] for what the loss draws, and counted [pictures], 0 for
    filler. `ids` and `stuff` as in `known_of`; crowds are left out.
    """
    import torch

    change = augmenter(augment, input_size(processor), seed)

    def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        real = [row for row in rows if row.get("row", 0) != -1]
        made = [_one(processor, row, change, ids, stuff) for row in real or rows[:1]]
        result = {"pixel_values": torch.stack([one[0] for one in made]), "sizes": torch.tensor([one[1] for one in made]),
                  "inside": torch.tensor([one[2] for one in made])}  # fmt: skip
        if has_segments(rows[0]):
            height, width = result["pixel_values"].shape[-2:]
            most = max(1, *(len(one[4]) for one in made))
            result["class_labels"] = torch.full((len(made), most), -1)
            result["mask_labels"] = torch.zeros(len(made), most, height, width, dtype=torch.uint8)
            for index, (_, _, (high, wide), masks, labels) in enumerate(made):
                result["class_labels"][index, : len(labels)] = labels
                result["mask_labels"][index, : len(labels), :high, :wide] = masks
            result["seeds"] = torch.tensor([seeded(seed, *_when(row)) for row in real or rows[:1]])
            result["counted"] = torch.full((len(made),), int(bool(real)))
        return result

    return batch


def has_segments(row: Mapping[str, Any]) -> bool:
    """Whether an encoded row is annotated."""
    return "segments" in row or row.get("map") is not None


def _when(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row.get("epoch", 0)), int(row.get("row", 0))


def _one(processor: Any, row: Mapping[str, Any], change: Any, ids: Mapping[int, int], stuff: bool) -> tuple[Any, ...]:
    """Pixels [channels, height, width], size before and inside the padding (height, width each), masks, class ids."""
    import torch
    from torch.nn import functional

    picture = decoded(row["image"])
    size = (picture.height, picture.width)
    annotated = has_segments(row)
    known = _without_crowds(known_of(row, *size, ids, stuff)) if annotated else None
    masks = torch.from_numpy(known.masks) if known else torch.zeros(0, *size, dtype=torch.bool)
    changes = change is not None and "epoch" in row and row["row"] != -1
    if changes:
        picture, masks = _changed(picture, masks, change, row)
    # A picture that was cut has the model's size already; padding does nothing to it.
    given = {"do_resize": False} if changes else {}
    pixels = processor(picture, return_tensors="pt", **given)["pixel_values"][0]
    inside = tuple(pixels.shape[-2:])
    if pads(processor) and not changes:
        from transformers.image_transforms import get_size_with_aspect_ratio

        inside = get_size_with_aspect_ratio(size, processor.size["shortest_edge"], processor.size["longest_edge"])
    labels = torch.from_numpy(known.label) if known else torch.zeros(0, dtype=torch.int64)
    if len(masks):
        masks = functional.interpolate(masks[None].float(), inside, mode="nearest-exact")[0].bool()
        there = masks.flatten(1).any(1)
        masks, labels = masks[there], labels[there]
    else:
        masks = torch.zeros(0, *inside, dtype=torch.bool)
    return pixels, size, inside, masks.to(torch.uint8), labels


def _without_crowds(known: Known) -> Known:
    return known.chosen(~known.crowd)


def _changed(picture: Any, masks: Any, change: Any, row: Mapping[str, Any]) -> tuple[Any, Any]:
    """A picture and its masks cut and mirrored together."""
    import torch
    from torchvision import tv_tensors

    given = tv_tensors.Mask(masks if len(masks) else torch.zeros(1, *masks.shape[1:], dtype=torch.bool))
    picture, made = change((picture, given), row)
    return picture, made.as_subclass(torch.Tensor)[: len(masks)]
