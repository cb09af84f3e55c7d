"""One tiny model and data set for each task: what the tests that hold for every task run on.

A task's file has the task's name with underscores and one function, `make(folder) -> Tiny`. The model comes from a
configuration (no dropout, two blocks), the data are a handful of rows made here.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tiny:
    """A model's folder, a data folder with train and test files, and what a run on them needs to be told."""

    model: Path
    data: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    additive: bool = True
    """Whether the loss is a sum over items, so that an update does not depend on how it is cut into micro-batches."""


def names() -> list[str]:
    """Tasks that have a file here."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def make(task: str, folder: Path) -> Tiny:
    """The tiny set-up of a task, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return importlib.import_module(f"tiny_tasks.{task.replace('-', '_')}").make(folder)
