"""The run's folder: one run at a time, never somebody else's files."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hf_tuner.changes import changes
from hf_tuner.config import Run
from hf_tuner.console import is_main
from hf_tuner.errors import EnvironmentFault, UsageError

LOCK = ".lock"
SETTINGS = "run.yaml"
RESULTS = (
    "report.html",
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "model.safetensors",
    "config.json",
)
LAST = ("manifest.json", "report.json", "README.md")
"""What a run writes at its end, the card last: with all three there it is finished."""
CHECKPOINT = "checkpoint-"
LIST = "checkpoint.json"
"""What a checkpoint holds: see `training/checkpoints.py`."""
STATES = ("optimizer", "global_step", "pytorch_model_fsdp")
"""How the names of an optimiser's state begin; without one a checkpoint is weights only."""
LEFT = (".saving-*", ".dropping-*", ".pushing-*")
"""What a process leaves that was killed while it saved, deleted or sent a model or a checkpoint."""
MERGED = "merged"
OURS = ("run.yaml", "manifest.json", "log.jsonl", "report.json", LOCK)


def numbered(folder: Path | str) -> list[Path]:
    """The folders checkpoint-N in a folder, the highest N first. Links are somebody else's."""
    found = [p for p in Path(folder).glob(f"{CHECKPOINT}*") if p.name.removeprefix(CHECKPOINT).isdigit()]
    return sorted((p for p in found if p.is_dir() and not p.is_symlink()), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """N of checkpoint-N."""
    return int(path.name.removeprefix(CHECKPOINT))


def newest_checkpoint(folder: Path | str) -> Path | None:
    """The checkpoint with the highest step that can be gone on from, going by its list; clocks do not matter."""
    return next((path for path in numbered(folder) if _has_state(path)), None)


def _has_state(path: Path) -> bool:
    try:
        files = json.loads((path / LIST).read_text(encoding="utf-8"))["files"]
        return any(name.startswith(STATES) for name in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def claim(run: Run) -> Iterator[Path]:
    """Hold the run's folder for this process. Other ranks of the same run share it.

    Raises UsageError when it holds a finished run or foreign files, EnvironmentFault when another process uses it
    or it cannot be written.
    """
    folder = run.folder
    if not is_main():
        yield folder
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"--output-dir {folder} cannot be made: {error.strerror}") from error
    _refuse_others(run)
    with _locked(folder / LOCK):
        if run.overwrite and not _is_unfinished(run):
            _clear(folder)
        for left in (p for pattern in LEFT for p in folder.glob(pattern)):
            shutil.rmtree(left, ignore_errors=True)  # half-written or half-deleted when a run was killed
        _refuse_other_settings(run)
        write_settings(run)
        try:
            yield folder
        except BaseException:
            _leave_no_trace(made)
            raise


def _leave_no_trace(made: list[Path]) -> None:
    """Remove the folders, innermost first, that a run made which failed before it wrote anything into the first of them."""
    if made and {path.name for path in made[0].iterdir()} <= {SETTINGS, LOCK}:
        shutil.rmtree(made[0])
        for path in made[1:]:
            with suppress(OSError):  # somebody else's are in it
                path.rmdir()


def holds_finished(folder: Path) -> bool:
    """True when a folder holds a finished run, and not one that was killed while it wrote its results."""
    return all((folder / name).is_file() for name in LAST)


def is_finished(run: Run) -> bool:
    """True when the run's folder holds this very run, finished, and it is not to be trained again."""
    if not holds_finished(run.folder) or run.overwrite or run.resume != "auto":
        return False
    before = _written_settings(run.folder)
    return before is not None and not any(changes(before, _as_written(run), None))


def write_settings(run: Run) -> None:
    """Write run.yaml: every setting of the run, as `--config` reads it."""
    import yaml

    head = f"# Repeat this run: hf-tuner {run.method} --config {run.folder / SETTINGS} --output-dir ANOTHER_FOLDER\n"
    text = head + yaml.safe_dump(run.resolved(), sort_keys=False, allow_unicode=True)
    aside = run.folder / f".{SETTINGS}.writing"
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(run.folder / SETTINGS)
    except OSError as error:
        raise EnvironmentFault(f"{run.folder} cannot be written: {error.strerror}") from error


def _is_unfinished(run: Run) -> bool:
    """True when the folder holds this very run, interrupted: --overwrite replaces others, and goes on with this one."""
    before = _written_settings(run.folder)
    same = before is not None and not changes(before, _as_written(run), run.allow_changed)[0]
    return same and not holds_finished(run.folder)


def _refuse_other_settings(run: Run) -> None:
    """An unfinished run goes on only with the settings it was started with, or those that --allow-changed names."""
    before = _written_settings(run.folder)
    if run.resume != "auto" or before is None or not list(run.folder.glob("checkpoint-*")):
        return
    refused, _ = changes(before, _as_written(run), run.allow_changed)
    if refused:
        raise UsageError(f"{run.folder} holds an unfinished run with other settings ({', '.join(refused[:3])}); give the same "
                         "settings to go on, or another --output-dir, or --overwrite to start anew")  # fmt: skip


def _written_settings(folder: Path) -> dict[str, Any] | None:
    import yaml

    try:
        before = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError):  # PyYAML lets some of Python's own through
        return None
    return before if isinstance(before, dict) else None


def _as_written(run: Run) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(yaml.safe_dump(run.resolved())))


def _clear(folder: Path) -> None:
    """Remove what an earlier run of ours left: its files and its checkpoints, nothing else."""
    try:
        listed = json.loads((folder / "report.json").read_text(encoding="utf-8")).get("files", {})
    except (OSError, ValueError):
        listed = {}
    for name in (*OURS, *RESULTS, *listed):
        if name != LOCK and "/" not in name:
            (folder / name).unlink(missing_ok=True)
    if (folder / MERGED / "manifest.json").is_file():
        shutil.rmtree(folder / MERGED)  # of the adapter that is being replaced
    for checkpoint in folder.glob("checkpoint-*"):
        if not checkpoint.is_symlink() and (checkpoint / LIST).is_file():
            shutil.rmtree(checkpoint)


def _refuse_others(run: Run) -> None:
    folder = run.folder
    names = {p.name for p in folder.iterdir()}
    if holds_finished(folder) and not run.overwrite:
        before = _written_settings(folder)
        other = changes(before, _as_written(run), None)[0] if before is not None else []
        which = f" with other settings ({', '.join(other[:2])})" if other else ""
        raise UsageError(
            f"--output-dir {folder} holds a finished run{which}; choose another folder or pass --overwrite"
        )
    ours = names & set(OURS) or any(n.startswith("checkpoint-") for n in names)
    if names and not ours:
        shown = ", ".join(sorted(names)[:3])
        raise UsageError(f"--output-dir {folder} holds files that are not a run's ({shown} …); choose an empty folder")


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold a lock that the system takes back when this process ends, however it ends."""
    handle = _take(lock)
    try:
        os.truncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
        lock.unlink(missing_ok=True)  # only here: while it is held, and the run has ended well
    finally:
        os.close(handle)


def _take(lock: Path) -> int:
    """The open file, locked. Raises EnvironmentFault when another process has it or it cannot be written."""
    while True:
        try:
            handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise EnvironmentFault(f"{lock.parent} cannot be written: {error.strerror}") from error
        try:
            # A record lock is this process's alone: data workers that outlive it for a moment do not hold it.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise EnvironmentFault(
                f"{lock.parent} is in use{_holder(lock)}; wait for it, or choose another --output-dir"
            ) from error
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == lock.stat().st_ino:
                return handle
        os.close(handle)  # its last holder removed it between our two steps


def _holder(lock: Path) -> str:
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        return f" by process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
