"""Pictures of discs and bars between sky and ground in a COCO panoptic folder, and a Mask2Former of 64 pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiny_tasks import Tiny
from tiny_tasks.instance_segmentation import make_mask2former, picture_of_things

NAMES = {1: "bar", 2: "disc", 3: "sky", 4: "ground"}
CATEGORIES = [{"id": number, "name": name, "isthing": int(number < 3)} for number, name in NAMES.items()]


def make(folder: Path) -> Tiny:
    """12 training and 6 test pictures, none square, and a Mask2Former."""
    write_scenes(folder / "data", {"train": 12, "test": 6})
    return Tiny(make_mask2former(folder / "model"), folder / "data", {})


def write_scenes(folder: Path, splits: dict[str, int]) -> None:
    """train/, test/ … with pictures, and annotations/panoptic_train.json beside its folder of maps."""
    random = np.random.default_rng(0)
    for split, number in splits.items():
        maps = folder / "annotations" / f"panoptic_{split}"
        maps.mkdir(parents=True)
        (folder / split).mkdir()
        known: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
        for index in range(number):
            pixels, numbers, segments = scene(random, 1 + index % 3)
            Image.fromarray(pixels).save(folder / split / f"{split}{index}.png")
            colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2).astype(np.uint8)
            Image.fromarray(colours).save(maps / f"{split}{index}.png")
            known["images"].append({"id": index, "file_name": f"{split}{index}.png"})
            known["annotations"].append(
                {"image_id": index, "file_name": f"{split}{index}.png", "segments_info": segments}
            )
        (folder / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(known))


def scene(random: np.random.Generator, things: int) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Pixels [height, width, 3], numbers of segments [height, width] (0: unknown, at the border), and what they are."""
    from hf_tuner.tasks._segments import as_text, segment_mask

    pixels, found = picture_of_things(random, things)
    height, width = pixels.shape[:2]
    masks = [(segment_mask(as_text(one, 1), height, width), name) for name, _, one in found]
    ground = np.arange(height)[:, None] >= height // 2
    bare = ~np.logical_or.reduce([mask for mask, _ in masks])
    pixels = pixels.copy()
    pixels[bare & ~ground] = (90, 130, 230)
    numbers = np.where(ground, 1000, 70000) * np.ones((1, width), int)
    segments = [{"id": 1000, "category_id": 4, "iscrowd": 0}, {"id": 70000, "category_id": 3, "iscrowd": 0}]
    for place, (mask, name) in enumerate(masks, 1):
        numbers[mask] = place
        segments.append({"id": place, "category_id": {"bar": 1, "disc": 2}[name], "iscrowd": 0})
    numbers[:2] = 0
    there = set(np.unique(numbers).tolist())
    return pixels, numbers, [one for one in segments if one["id"] in there]
