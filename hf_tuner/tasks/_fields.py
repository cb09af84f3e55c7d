"""Fields of a task: from a run's settings, into a manifest, and back."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hf_tuner.config import Run


def settings_of(task: type, run: Run) -> dict[str, Any]:
    """The fields of a task that the run's task settings hold by the same name."""
    config = run.task_config
    return {f.name: getattr(config, f.name) for f in fields(task) if hasattr(config, f.name)}


def saved_fields(task: Any) -> dict[str, Any]:
    """What a manifest holds of a dataclass; tuples become lists."""
    return {f.name: _lists(getattr(task, f.name)) for f in fields(task)}


def restored(kind: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a dataclass from what a manifest holds; lists become tuples."""
    return {f.name: _tuples(saved[f.name]) for f in fields(kind) if f.name in saved}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, tuple) else value
