"""TrainingArguments for a run: what the user gave, and defaults that suit the method, the model and the machine."""

import importlib.util
import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.training.averaging import require_decay

UPDATES = 400
"""With a head that starts from the probe, one pass over 10,000 rows does what three do from a random head."""
FROM_NOISE = 3.0
"""The methods' rates are for a head that knows the task from the start; one that knows nothing has further to go."""
TRACKERS = {"azure_ml": "azureml", "flyte": "flytekit"}
"""Where a tracker's module is not called as the tracker."""
STREAMED: dict[str, Any] = {
    "save_strategy": "steps",
    "save_steps": 0.1,
    # Each process reads the stream itself and takes its rows of each update.
    "accelerator_config": {"dispatch_batches": False},
}
"""Defaults for a stream, which has no epochs."""
MOST_DECODERS = 8
LOGGED_POINTS = 50
"""About how many points the loss curve gets."""


def training_arguments(run: Run, parameters: int, rows: int, has_validation: bool) -> TrainingArguments:
    """Build the arguments; `parameters` is the size of the base model, `rows` of the training split.

    Raises UsageError when TrainingArguments refuses a value or a combination.
    """
    # The Trainer's own pushing is never switched on: see training/pushing.py.
    given = {k: v for k, v in run.training.items() if v is not None and k != "push_to_hub" and not k.startswith("hub_")}
    method = catalog.load("methods", run.method)
    defaults: dict[str, Any] = {
        "learning_rate": method.learning_rate(parameters),
        "per_device_train_batch_size": batch_size(run),
        "per_device_eval_batch_size": catalog.task_class(run.task).at_once,
        "num_train_epochs": epochs(run, rows),
        "weight_decay": 0.01,
        "warmup_steps": 0.06,
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "eval_strategy": "epoch" if has_validation else "no",
        "report_to": "none",
        # Without it TrainingArguments on a machine without accelerator lets every process train alone, silently.
        "use_cpu": not torch.accelerator.is_available(),
        "bf16": wants_bf16(given),
        "disable_tqdm": True,
        "logging_first_step": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_num_workers": decoders(run, torch.accelerator.is_available()),
    }
    merged = {**defaults, **given}
    if run.streaming:
        merged = {**merged, **STREAMED, **given}
    merged = {**forking(int(merged["dataloader_num_workers"])), **merged}
    if "logging_steps" not in given:
        merged["logging_steps"] = max(1, _updates(run, merged, rows) // LOGGED_POINTS)
    merged |= {
        "output_dir": str(run.folder),
        "seed": run.seed,
        "logging_nan_inf_filter": False,  # the default logs loss 0 while every weight is NaN
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "average_tokens_across_devices": True,
    }
    require_decay(run.ema)
    _require_trackers(merged["report_to"])
    _require_devices(bool(merged.get("fp16")))
    if not 0 <= float(merged["learning_rate"]) < float("inf"):
        raise UsageError(f"--learning-rate {merged['learning_rate']}: expected a number of at least 0, such as 1e-4")
    if float(merged["num_train_epochs"]) <= 0 and int(merged.get("max_steps") or -1) <= 0:
        raise UsageError(
            f"--num-train-epochs {merged['num_train_epochs']}: nothing would be trained; expected more than 0"
        )
    try:
        arguments = TrainingArguments(**merged)
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"TrainingArguments: {str(error).splitlines()[0]}") from error
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if arguments.world_size != started:
        raise EnvironmentFault(
            f"{started} processes were started, but they do not see each other and would train alone"
        )
    return arguments


def decoders(run: Run, accelerator: bool) -> int:
    """Processes that open and augment pictures while an accelerator trains; a CPU that trains has no cores to spare."""
    if run.streaming or not accelerator or not forking(1) or not catalog.task_class(run.task).pictures:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_DECODERS, max(0, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


def forking(workers: int) -> dict[str, str]:
    """How data workers start: what makes batches cannot be sent to a process that is started anew."""
    forks = workers > 0 and "fork" in multiprocessing.get_all_start_methods()
    return {"dataloader_multiprocessing_context": "fork"} if forks else {}


def _require_devices(fp16: bool) -> None:
    """Raise UsageError for what this machine's devices cannot do, whether a flag or an accelerate configuration asks."""
    configured = os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp16"
    if (fp16 or configured) and not torch.accelerator.is_available():
        asked = "--fp16" if fp16 else "mixed_precision: fp16 of the accelerate configuration"
        raise UsageError(
            f"{asked} needs an accelerator: on a CPU it is slower and overflows; leave it out, or use --bf16"
        )
    wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.accelerator.is_available() and torch.accelerator.device_count() < wanted:
        there = torch.accelerator.device_count()
        raise UsageError(f"{wanted} processes were started on this machine for {there} GPUs; --num-processes {there}")


def _require_trackers(names: Any) -> None:
    """Raise EnvironmentFault for a tracker of --report-to that is not installed."""
    for name in [names] if isinstance(names, str) else names or []:
        module = TRACKERS.get(name, name)
        there = module.isidentifier() and importlib.util.find_spec(module) is not None
        if name not in ("none", "all") and not there:
            raise EnvironmentFault(f"--report-to {name}: not installed; pip install {name} (tensorboard and trackio: "
                                   'pip install "hf-tuner[tracking]")')  # fmt: skip


def settle_rate(run: Run, arguments: TrainingArguments, explained: float) -> None:
    """Raise the default learning rate by how far there is to go: once for a head that explains all, FROM_NOISE for none.

    Measured with MiniLM: on banking77 the frozen features explain 96 % of the loss, and 5e-5 is right for full
    fine-tuning (93.3 %; 1e-4: 93.0 %); on SST-2 they explain half, and 5e-5 is too little (89.6 %). A rate that
    was asked for stays.
    """
    if run.training.get("learning_rate") is None:
        arguments.learning_rate = further(arguments.learning_rate, explained)


def further(rate: float, explained: float) -> float:
    """A method's rate for a head that explains so much from the start."""
    return float(f"{rate * (FROM_NOISE - (FROM_NOISE - 1) * explained):.2g}")


def effective(arguments: TrainingArguments) -> dict[str, Any]:
    """What training really ran with, defaults worked out: for the manifest and the card."""
    return {
        "learning_rate": arguments.learning_rate,
        **(
            {"updates": arguments.max_steps}
            if arguments.max_steps > 0
            else {"epochs": float(arguments.num_train_epochs)}
        ),
        "rows_per_update": arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size,
        "processes": arguments.world_size,
        "precision": "bf16 autocast" if arguments.bf16 else "fp16 autocast" if arguments.fp16 else "float32",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }


def wants_bf16(given: dict[str, Any]) -> bool:
    """Autocast in bf16 where the processor computes in it natively and the user did not choose."""
    if given.get("fp16") or "bf16" in given:
        return bool(given.get("bf16"))
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "")  # what an accelerate configuration says
    if asked in ("bf16", "fp16"):
        return asked == "bf16"
    return bf16_is_native()


def bf16_is_native() -> bool:
    """True on a GPU or CPU with bf16 arithmetic; elsewhere bf16 is emulated and slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    checks: Sequence[str] = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def epochs(run: Run, rows: int) -> int:
    """Passes over the data that make about UPDATES updates: 1 for large data, at most what the task wants for small."""
    most = catalog.task_class(run.task).pace[1]
    return max(1, min(most, round(UPDATES * rows_per_update(run) / max(1, rows))))


def batch_size(run: Run) -> int:
    """Rows of a micro-batch on one device."""
    return int(run.training.get("per_device_train_batch_size") or catalog.task_class(run.task).pace[0])


def rows_per_update(run: Run) -> int:
    """Rows of one update, over micro-batches and processes."""
    batch = batch_size(run) * int(run.training.get("gradient_accumulation_steps") or 1)
    return batch * int(os.environ.get("WORLD_SIZE", "1"))


def _updates(run: Run, merged: dict[str, Any], rows: int) -> int:
    if int(merged.get("max_steps", -1)) > 0:
        return int(merged["max_steps"])
    return int(float(merged["num_train_epochs"]) * max(1, rows / rows_per_update(run)))
