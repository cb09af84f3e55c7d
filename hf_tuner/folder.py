"""The run's folder: one run at a time, never somebody else's files."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_tuner.config import Run
from hf_tuner.console import is_main, warn
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
MAY_CHANGE = (
    "output_dir",
    "overwrite",
    "resume",
    "verify",
    "num_processes",
    "accelerate_config",
    "stall_timeout",
    "stop_above",
    "report_to",
    "logging_steps",
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "hub_private_repo",
    "hub_revision",
    "create_pr",
)
MERGED = "merged"
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
        if run.overwrite:
            _clear(folder)
        _refuse_other_settings(run)
        write_settings(run)
        yield folder
    finally:
        lock.unlink(missing_ok=True)


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


def _refuse_other_settings(run: Run) -> None:
    """An unfinished run goes on only with the settings it was started with."""
    import yaml

    path = run.folder / SETTINGS
    if run.resume != "auto" or not path.is_file() or not list(run.folder.glob("checkpoint-*")):
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    now = yaml.safe_load(yaml.safe_dump(run.resolved()))
    changed = [k for k in sorted(before | now) if before.get(k) != now.get(k) and k not in MAY_CHANGE]
    if changed:
        told = ", ".join(f"{k} was {before.get(k)}, is {now.get(k)}" for k in changed[:3])
        raise UsageError(f"{run.folder} holds an unfinished run with other settings ({told}); give the same settings to go on, "
                         "or another --output-dir, or --overwrite to start anew")  # fmt: skip


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
        if not checkpoint.is_symlink() and (checkpoint / "trainer_state.json").is_file():
            shutil.rmtree(checkpoint)


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
