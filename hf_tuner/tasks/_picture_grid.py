"""Pictures side by side, each with a line of text below it."""

from collections.abc import Sequence
from typing import Any

from hf_tuner.tasks._drawn import drawable, sized

CELL, LINE, COLUMNS = 176, 14, 4
"""Pixels of a picture's longer edge and of a line of the text below it; pictures in a row."""
LETTERS = 28


def grid(cells: Sequence[tuple[Any, Sequence[str]]]) -> Any:
    """An RGB PIL image of (picture, lines of text), four in a row."""
    from PIL import Image, ImageDraw

    rows = -(-len(cells) // COLUMNS)
    below = LINE * max(len(lines) for _, lines in cells) + 6
    whole = Image.new("RGB", (min(COLUMNS, len(cells)) * (CELL + 8), rows * (CELL + below + 8)), "white")
    pen = ImageDraw.Draw(whole)
    for number, (picture, lines) in enumerate(cells):
        x, y = number % COLUMNS * (CELL + 8) + 4, number // COLUMNS * (CELL + below + 8) + 4
        small = sized(picture, CELL)
        whole.paste(small, (x + (CELL - small.width) // 2, y + (CELL - small.height) // 2))
        for line, text in enumerate(lines):
            pen.text((x, y + CELL + 2 + LINE * line), drawable(text[:LETTERS]), fill="black")
    return whole
