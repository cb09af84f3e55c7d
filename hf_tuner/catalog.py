"""A folder is its own register: what files it holds, what each says of itself, and how to load one.

Names are file names with dashes (`methods/head_only.py` is `head-only`). Summaries are read from docstrings
without importing anything, so that `--help` stays instant.
"""

import ast
import difflib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_tuner.errors import UsageError


def folder(kind: str) -> Path:
    """Directory of a kind: inside the package, or beside it for folders that the build maps in."""
    spec = importlib.util.find_spec(f"hf_tuner.{kind}")
    if spec is None or not spec.submodule_search_locations:
        beside = Path(__file__).parents[1] / kind  # a checkout that was never installed
        if beside.is_dir():
            return beside
        raise UsageError(
            f'no folder for "{kind}"; hf-tuner is not installed completely: pip install --force-reinstall hf-tuner'
        )
    return Path(next(iter(spec.submodule_search_locations)))


def names(kind: str) -> list[str]:
    """Names of everything in a kind's folder, sorted."""
    return sorted(p.stem.replace("_", "-") for p in folder(kind).glob("*.py") if not p.name.startswith("_"))


def path(kind: str, name: str) -> Path:
    """File of one member. Raises UsageError with the nearest names when there is none."""
    if name not in names(kind):
        raise UsageError(unknown(kind.rstrip("s") if kind != "losses" else "loss", name, names(kind)))
    return folder(kind) / f"{name.replace('-', '_')}.py"


def docstring(kind: str, name: str) -> str:
    """Docstring of one member, read with `ast`."""
    return ast.get_docstring(ast.parse(path(kind, name).read_text(encoding="utf-8"))) or ""


def summary(kind: str, name: str) -> str:
    """First line of a member's docstring."""
    return docstring(kind, name).partition("\n")[0]


def load(kind: str, name: str) -> ModuleType:
    """Import one member."""
    return importlib.import_module(f"hf_tuner.{kind}.{path(kind, name).stem}")


def task_class(name: str) -> Any:
    """The class of a task, by the task's name. Raises UsageError with the nearest name."""
    members = vars(load("tasks", name)).values()
    return next(v for v in members if isinstance(v, type) and getattr(v, "name", None) == name)


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    lowered = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def unknown(what: str, name: str, known: list[str]) -> str:
    """One sentence for an unknown name: the nearest one, and what exists."""
    close = nearest(name, known)
    hint = f'; did you mean "{close}"?' if close else "."
    listed = ", ".join(known) if len(known) <= 40 else ", ".join(known[:40]) + ", …"
    return f'no {what} named "{name}"{hint} Known: {listed}'
