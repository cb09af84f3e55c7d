"""What an unfinished run goes on from: the newest checkpoint that is whole, written by the same run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hf_tuner.changes import FREE, allowed_names, changes
from hf_tuner.config import Run
from hf_tuner.console import is_main, say, warn
from hf_tuner.data.fingerprint import fingerprint
from hf_tuner.errors import ArtifactError, TunerError, UsageError
from hf_tuner.folder import STATES, numbered
from hf_tuner.models.safety import refuse_code
from hf_tuner.training.checkpoints import verify
from hf_tuner.versions import versions

PICKLED = (".pt", ".pth", ".bin")
LENGTH = frozenset({"num_train_epochs", "max_steps"})
"""Two ways to say how long training lasts: who may change one may change the other."""
CLOSE = ("processes", "precision", "device")
"""What training ran on: it may change, but then the last bits of the result do."""


def identity(run: Run, task: Any, model: Any, rows: Any, training: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint belongs to, as plain data: settings, training rows, base model, labels, what training ran with."""
    settings = {k: _plain(v) for k, v in run.resolved().items() if k not in FREE and v is not None}
    return {
        "settings": settings,
        "data": fingerprint(rows),
        "rows": len(rows),
        "base": _plain(model.tuner_notes["fingerprint"]),
        "labels": _plain(task.manifest()),
        "training": dict(training),
        "versions": versions(),
    }


def checkpoint_to_resume(run: Run, now: dict[str, Any] | None = None) -> str | None:
    """The checkpoint folder that `--resume` asks for, or None to start from the beginning.

    auto takes the newest one in the run's folder that is whole, and says which were passed over and why. `now` is this
    run's `identity`: what differs from the checkpoint's is refused, or said and noted in it as `changed`. Several
    processes look once.

    Raises ArtifactError when there are checkpoints and none is whole, UsageError for settings or data that are not
    those of the checkpoint.
    """
    answer: list[Any] = [None, None]
    if is_main():
        try:
            answer = [_chosen(run, now), None]
        except TunerError as error:
            answer = [None, error]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def _chosen(run: Run, now: dict[str, Any] | None) -> str | None:
    if run.resume == "never":
        return None
    if run.resume != "auto":
        path = Path(run.resume)
        if not path.is_dir() or not path.name.startswith("checkpoint-"):
            raise UsageError(
                f"--resume {run.resume}: no such checkpoint; expected auto, never or a folder checkpoint-N"
            )
        content = _usable(path)
    else:
        found = _newest(run.folder)
        if found is None:
            return None
        path, content = found
    if now is not None:
        accepted = _compare(path, content["identity"], now, run.allow_changed)
        earlier = content["identity"].get("changed", [])
        if earlier or accepted:  # for its own checkpoints, and for the records of the finished run
            now["changed"] = [*earlier, *(f"after step {content['step']}: {told}" for told in accepted)]
    say(f"  resume    going on from {path} ({len(content['files'])} files, all as they were saved)")
    return str(path)


def _newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    passed = []
    for path in numbered(folder):
        try:
            content = _usable(path)
        except ArtifactError as error:
            passed.append(str(error))
            continue
        for reason in passed:
            warn(f"passed over: {reason}")
        return path, content
    if passed:
        raise ArtifactError(
            "no checkpoint is whole:\n  "
            + "\n  ".join(passed)
            + "\nTo train anew: --resume never, or another --output-dir"
        )
    return None


def _usable(path: Path) -> dict[str, Any]:
    """A verified checkpoint that also holds the state of the optimiser, and no code in it."""
    content = verify(path)
    if not any(name.startswith(STATES) for name in content["files"]):
        raise ArtifactError(f"{path} holds weights only (--save-only-model): training cannot go on from it")
    for found in path.rglob(".metadata"):
        raise ArtifactError(f"{found}: a sharded state is a pickle; only full states are gone on from")
    for name in content["files"]:
        if Path(name).suffix in PICKLED:
            refuse_code(path / name)
    return content


def _compare(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], allowed: str | None) -> list[str]:
    """What is different and allowed to be; says what makes the last bits differ. Raises UsageError for another run's."""
    refused, accepted = changes(before["settings"], now["settings"], allowed)
    refused += _other_training(before.get("training", {}), now["training"], allowed)
    if before.get("data") != now["data"]:
        refused.append(f"the training data is not the same ({before.get('rows'):,} rows then, {now['rows']:,} now)")
    if before.get("labels") != now["labels"]:
        refused.append("the labels, or their order, are not the same")
    if before.get("base") != now["base"]:
        refused.append("the base model's weights are not the same")
    if refused:
        shown = "\n  ".join(refused[:6])
        raise UsageError(f"{path} belongs to a run with other settings:\n  {shown}\n"
                         "Give the same settings to go on, another --output-dir, or --overwrite to start anew")  # fmt: skip
    for told in accepted:
        warn(f"{told}, as --allow-changed says")
    other = [f"{k} {before['training'].get(k)} → {now['training'].get(k)}" for k in CLOSE
             if before.get("training", {}).get(k) != now["training"].get(k)]  # fmt: skip
    was = before.get("versions", {})
    other += [f"{k} {was[k]} → {v}" for k, v in now["versions"].items() if k in was and was[k] != v]
    if other:
        warn(f"not bit for bit the uninterrupted run: {', '.join(other)}")
    return accepted


def _other_training(before: Mapping[str, Any], now: Mapping[str, Any], allowed: str | None) -> list[str]:
    """What the same settings now work out to, where that would train something else."""
    names = allowed_names(allowed)
    refused = []
    if before.get("rows_per_update") != now.get("rows_per_update"):
        refused.append(
            f"an update had {before.get('rows_per_update')} rows, has {now.get('rows_per_update')} "
            "(--per-device-train-batch-size × --gradient-accumulation-steps × processes must stay the same)"
        )
    for key, setting in {
        "learning_rate": "learning_rate",
        "epochs": "num_train_epochs",
        "updates": "max_steps",
    }.items():
        was, is_now = before.get(key), now.get(key)
        same = was == is_now or (was and is_now and math.isclose(was, is_now))
        allowed_to = LENGTH & set(names) if setting in LENGTH else {setting} & set(names)
        if not same and not allowed_to:
            refused.append(f"{setting} was {was}, is {is_now} (--allow-changed {setting})")
    return refused


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back: tuples are lists, numbers stay."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
