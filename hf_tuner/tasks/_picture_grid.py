"""Pictures side by side, each with a line of text below it."""

from collections.abc import Sequence
from typing import Any

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
        scale = CELL / max(picture.size)
        small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        whole.paste(small, (x + (CELL - small.width) // 2, y + (CELL - small.height) // 2))
        for line, text in enumerate(lines):
            said = text[:LETTERS].encode("latin-1", "replace").decode("latin-1")
            pen.text((x, y + CELL + 2 + LINE * line), said, fill="black")
    return whole
