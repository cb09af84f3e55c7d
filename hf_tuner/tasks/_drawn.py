"""Pictures that a task draws of its answers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Drawn:
    """A picture for the report's page; it is written beside it as `name`.png too."""

    name: str
    title: str
    image: Any
    """A PIL image."""
    text: str = ""
    """What it shows, for those who do not see it."""
