"""Which settings of an unfinished run may be different when it goes on, and which may not."""

from collections.abc import Mapping
from typing import Any

FREE = (
    "output_dir", "overwrite", "resume", "allow_changed", "verify", "accelerate_config", "num_processes", "report_to",
    "run_name", "logging_steps", "logging_strategy", "logging_first_step", "logging_dir", "log_level", "disable_tqdm",
    "save_total_limit", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "per_device_eval_batch_size", "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision",
    "create_pr", "stop_above", "stall_timeout",
)  # fmt: skip
"""Settings that do not touch what is learned: they may change without a word."""
ALLOWABLE = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "weight_decay",
    "max_grad_norm", "num_train_epochs", "max_steps", "loss", "class_weights", "eval_strategy", "eval_steps",
    "save_strategy", "save_steps", "metric_for_best_model", "greater_is_better", "load_best_model_at_end", "bf16",
    "fp16", "tf32", "neftune_noise_alpha", "gradient_checkpointing", "per_device_train_batch_size",
    "gradient_accumulation_steps",
)  # fmt: skip
"""Settings that change the result; whoever means it says so with --allow-changed. All others need a new run."""


def allowed_names(text: str | None) -> tuple[str, ...]:
    """The settings named by --allow-changed, in the spelling of run.yaml."""
    return tuple(word.strip().lstrip("-").replace("-", "_") for word in (text or "").split(",") if word.strip())


def unknown_names(text: str | None) -> list[str]:
    """What --allow-changed names and no run may change."""
    return [name for name in allowed_names(text) if name not in (*ALLOWABLE, *FREE)]


def changes(before: Mapping[str, Any], now: Mapping[str, Any], allowed: str | None) -> tuple[list[str], list[str]]:
    """(what may not change, what was allowed to): one sentence for each setting that is different."""
    names = allowed_names(allowed)
    refused, accepted = [], []
    for key in sorted({*before, *now}):
        was, is_now = before.get(key), now.get(key)
        if was == is_now or key in FREE:
            continue
        told = f"{key} was {_shown(was)}, is {_shown(is_now)}"
        if key in names and key in ALLOWABLE:
            accepted.append(told)
        else:
            refused.append(told + (f" (--allow-changed {key})" if key in ALLOWABLE else ""))
    return refused, accepted


def _shown(value: Any) -> str:
    return "left to its default" if value is None else str(value)
