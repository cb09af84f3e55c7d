"""Write a model so that nothing half-written is ever left where a good file was, and open it again to look."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hf_tuner.errors import ArtifactError, EnvironmentFault

PLACEHOLDER = "README.md"
WEIGHTS = ("adapter_config.json", "adapter_model.safetensors", "model.safetensors", "config.json")


def save_model(model: Any, tokenizer: Any, folder: Path, finish: Callable[[Path], None] | None = None) -> list[str]:
    """Save adapter or model and its processor into `folder` and return the file names.

    Everything is written aside first, `finish` may still change it there (methods that moved the base's weights
    make an ordinary adapter of it), and it is moved over when complete. Raises EnvironmentFault when the disk is full,
    ArtifactError when a saved tensor is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    try:
        # The Hub is not asked whether the base's vocabulary changed: adapters here never resize it.
        model.save_pretrained(aside, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {}))
        if finish is not None:
            finish(aside)
        tokenizer.save_pretrained(aside)
        (aside / PLACEHOLDER).unlink(missing_ok=True)  # peft's empty card; ours is written at the end
        for code in aside.rglob("*.py"):
            code.unlink()  # trusted code stays in its repository, at its commit
        check_tensors(aside)
        names = sorted(str(p.relative_to(aside)) for p in aside.rglob("*") if p.is_file())
        for stale in sorted(set(WEIGHTS) - set(names)):
            (folder / stale).unlink(missing_ok=True)  # an adapter beside a whole model would be put on top of it
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, target)
            target.chmod(0o666 & ~umask())  # safetensors writes 0600
    except (OSError, SafetensorError) as error:
        raise EnvironmentFault(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return names


def check_tensors(folder: Path) -> int:
    """Open every safetensors file and return how many tensors it holds. Raises ArtifactError for an empty one."""
    found = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ArtifactError(f"{path} is damaged ({error}); restore it from a copy, or train again") from error
        found += len(shapes)
        empty = [key for key, shape in shapes.items() if 0 in shape]
        if empty:
            raise ArtifactError(f"{path.name}: the tensor {empty[0]} was saved empty")
    if not found:
        raise ArtifactError(f"{folder}: no tensor was saved")
    return found


def write_text(path: Path, text: str) -> None:
    """Write a small file at once: aside, then moved over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror or error}") from error


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write small files by their names, which may lie in folders of their own."""
    for name, text in files.items():
        write_text(folder / name, text)


def umask() -> int:
    """The process's umask, unchanged."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
