"""Pictures that a task draws of its answers."""

from dataclasses import dataclass
from typing import Any

GAP = 8


def sized(picture: Any, edge: int) -> Any:
    """A copy of a PIL image whose longer edge has `edge` pixels."""
    scale = edge / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def drawable(text: str) -> str:
    """A text in the letters that Pillow's own font can draw; "?" stands for others."""
    return text.encode("latin-1", "replace").decode("latin-1")


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
