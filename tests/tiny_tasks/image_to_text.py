"""Pictures of a coloured square at the top or the bottom with two captions each, and a BLIP."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tiny_tasks import Tiny
from tiny_tasks._captioners import COLOURS, PLACES, blip


def make(folder: Path) -> Tiny:
    """20 pictures to train on (the last update of 8 is ragged) and 8 to measure, none square, in folders with metadata."""
    for split, number, seed in (("train", 20, 0), ("test", 8, 5)):
        write_pictures(folder / "data" / split, number, seed)
    return Tiny(blip(folder / "model"), folder / "data")


def write_pictures(folder: Path, number: int, seed: int = 0) -> None:
    """Pictures 0.png, 1.png … and metadata.jsonl with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    random, lines = np.random.default_rng(seed), []
    for index in range(number):
        colour, place = list(COLOURS)[int(random.integers(len(COLOURS)))], PLACES[int(random.integers(2))]
        draw(folder / f"{index}.png", colour, place, random)
        known = [f"a {colour} square at the {place} .", f"the square is {colour} ."]
        lines.append(json.dumps({"file_name": f"{index}.png", "text": known[0], "captions": known}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def draw(path: Path, colour: str, place: str, random: np.random.Generator) -> None:
    """A noisy dark picture with a square of a colour."""
    height, width = (int(n) for n in random.integers(30, 60, 2))
    pixels = random.normal(40, 12, (height, width, 3))
    top = 0 if place == "top" else height // 2
    pixels[top : top + height // 2, width // 4 : 3 * width // 4] += np.array(COLOURS[colour]) - 40
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
