"""Pictures of three colours in class folders, and a ViT of 32 pixels."""

from pathlib import Path

import numpy as np
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, set_seed

from tiny_tasks import Tiny

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def make(folder: Path) -> Tiny:
    """8 training and 4 test pictures of each colour, none square."""
    random = np.random.default_rng(0)
    for split, number in (("train", 8), ("test", 4)):
        for name, colour in COLOURS.items():
            place = folder / "data" / split / name
            place.mkdir(parents=True)
            for index in range(number):
                write_picture(place / f"{index}.png", colour, random)
    return Tiny(make_vit(folder / "model"), folder / "data", {})


def write_picture(path: Path, colour: tuple[int, int, int], random: np.random.Generator) -> None:
    """A noisy picture of about a colour."""
    height, width = (int(n) for n in random.integers(30, 60, 2))
    pixels = np.clip(np.array(colour) + random.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def make_vit(folder: Path) -> Path:
    """A ViT without a head that was trained, with its processor."""
    set_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    ViTForImageClassification(config).vit.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
