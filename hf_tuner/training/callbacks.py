"""What is shown and written while training: a line of progress with the time left, and log.jsonl."""

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from hf_tuner.console import duration, is_main, say

LINES = 10
"""About how many progress lines a run prints."""


class Progress(TrainerCallback):
    """Prints step, loss, learning rate, rows per second and an estimate of the time left."""

    def __init__(self, rows_per_update: int) -> None:
        self.rows_per_update = rows_per_update
        self.start = 0.0
        self.first = 0
        self.shown = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the watch."""
        self.start, self.first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show a validation, or a training entry when a tenth of the run has passed."""
        if not logs or not state.is_world_process_zero:
            return
        if "eval_loss" in logs:
            values = [f"{k.removeprefix('eval_')} {v:.4f}" for k, v in logs.items() if _is_metric(k)]
            say(f"  validation  epoch {state.epoch:.1f} · " + " · ".join(values))
        elif "loss" in logs:
            self._show(state, logs)

    def _show(self, state: Any, logs: dict[str, Any]) -> None:
        part = state.global_step * LINES // max(1, state.max_steps)
        if part == self.shown and state.global_step > 1:
            return
        self.shown = part
        done, seconds = state.global_step - self.first, time.monotonic() - self.start
        left = seconds / max(1, done) * (state.max_steps - state.global_step)
        say(
            f"  step {state.global_step:>5}/{state.max_steps}  loss {logs['loss']:.4f}  lr {logs.get('learning_rate', 0):.1e}"
            f"  {done * self.rows_per_update / max(seconds, 1e-9):.0f} rows/s  {duration(left)} left"
        )


class LogFile(TrainerCallback):
    """Appends every log entry to log.jsonl, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Append the entry."""
        if not is_main() or not logs:
            return
        entry = {
            "step": state.global_step,
            "epoch": round(state.epoch or 0.0, 4),
            "time": round(time.time(), 3),
            **logs,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, default=float) + "\n")


def _is_metric(key: str) -> bool:
    return key.startswith("eval_") and not key.endswith(("_runtime", "_per_second", "_preparation_time"))
