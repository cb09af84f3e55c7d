"""The run's folder: one run at a time, never somebody else's files."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_tuner.config import Run
from hf_tuner.console import is_main, warn
from hf_tuner.errors import EnvironmentFault, UsageError

LOCK = ".lock"
OURS = ("run.yaml", "manifest.json", "log.jsonl", "report.json", LOCK)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"--output-dir {folder} cannot be made: {error.strerror}") from error
    _refuse_others(folder, run.overwrite)
    lock = folder / LOCK
    _take(lock)
    try:
        yield folder
    finally:
        lock.unlink(missing_ok=True)


def _refuse_others(folder: Path, overwrite: bool) -> None:
    names = {p.name for p in folder.iterdir()}
    if "report.json" in names and not overwrite:
        raise UsageError(f"--output-dir {folder} holds a finished run; choose another folder or pass --overwrite")
    ours = names & set(OURS) or any(n.startswith("checkpoint-") for n in names)
    if names and not ours:
        shown = ", ".join(sorted(names)[:3])
        raise UsageError(f"--output-dir {folder} holds files that are not a run's ({shown} …); choose an empty folder")


def _take(lock: Path) -> None:
    mine = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        _refuse_living(lock)
        warn(f"{lock.parent}: the process that held this folder is gone; taking it over")
        lock.unlink(missing_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except OSError as error:
        raise EnvironmentFault(f"{lock.parent} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w") as file:
        json.dump(mine, file)


def _refuse_living(lock: Path) -> None:
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        same_host = holder["host"] == socket.gethostname()
        if same_host:
            os.kill(int(holder["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return
    raise EnvironmentFault(
        f"{lock.parent} is in use by process {holder['pid']} on {holder['host']}; choose another --output-dir"
    )
