"""Pictures that a task draws of its answers."""

from dataclasses import dataclass
from typing import Any

GAP = 8
SIZE = 12
"""Height of letters on pictures, in pixels."""


def sized(picture: Any, edge: int) -> Any:
    """A copy of a PIL image whose longer edge has `edge` pixels."""
    scale = edge / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def drawable(text: str) -> str:
    """A text in the letters that Pillow's own font can draw; "?" stands for others. Its spaces hardly part words: two do."""
    return text.encode("latin-1", "replace").decode("latin-1").replace(" ", "  ")


def lettered(pen: Any, place: tuple[float, float], text: str, behind: Any) -> None:
    """Write a text in white at a place of a picture, on a ground of its own."""
    from PIL import ImageFont

    font = ImageFont.load_default(SIZE)
    written = drawable(text)
    pen.rectangle(pen.textbbox(place, written, font=font), fill=behind, outline=behind, width=2)
    pen.text(place, written, font=font, fill="white")


def beside(left: Any, right: Any) -> Any:
    """Two PIL images of one height in one, with a gap."""
    from PIL import Image

    both = Image.new("RGB", (left.width + right.width + GAP, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


@dataclass(frozen=True)
class Drawn:
    """A picture for the report's page; it is written beside it as `name`.png too."""

    name: str
    title: str
    image: Any
    """A PIL image."""
    text: str = ""
    """What it shows, for those who do not see it."""
