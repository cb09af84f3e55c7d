"""What pages share: one frame and its style, no network, no scripts, light and dark, everything that users named escaped."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from hf_tuner.console import count, duration
from hf_tuner.report import wording

TEXT_LENGTH = 600


def rendered(template: str, **values: Any) -> str:
    """A page as HTML from a template in this folder; its words for numbers, sizes and texts are filters."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=wording.number, interval=wording.interval, size=wording.size, duration=duration, count=count,
        metric=wording.name, short=lambda text: wording.shorten(text, TEXT_LENGTH), shown=shown,
        cell=lambda value: wording.number(value) if isinstance(value, float | None) else shown(value),
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def shown(value: Any) -> str:
    """A setting or a fact as text."""
    if value is None:
        return wording.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or wording.NONE
    return f"{value:g}" if isinstance(value, float) else str(value)


def embedded(picture: bytes, kind: str = "png") -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()
