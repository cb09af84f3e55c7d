"""Training that has gone wrong is stopped where it went wrong: a number that is not finite, or a loss too high for long."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tuner.errors import DivergedError
from hf_tuner.folder import newest_checkpoint

LOWER = (
    "Try a lower --learning-rate or more warm-up: with --allow-changed learning_rate it goes on, with --overwrite it "
    "starts anew."
)

WINDOW = 5
"""Updates that the loss is averaged over for --stop-above."""
PATIENCE = 10
"""Updates in a row that this average may lie above it; more than WINDOW, so that one outlier never stops a run."""
ROWS_SHOWN = 12


class LossLimit:
    """Raises once the loss, averaged over WINDOW updates, has been above a limit for PATIENCE updates in a row."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.above = 0

    def add(self, loss: float, step: int, folder: Path) -> None:
        """The loss of one update. Raises DivergedError."""
        self.recent.append(loss)
        average = sum(self.recent) / len(self.recent)
        over = len(self.recent) == WINDOW and average > self.limit
        self.above = self.above + 1 if over else 0
        if self.above >= PATIENCE:
            raise DivergedError(
                f"training diverged: at step {step} the loss, averaged over {WINDOW} updates, is {average:.4g} and has been "
                f"above --stop-above {self.limit:g} for {PATIENCE} updates; {last_good(folder)}.\n"
                f"{LOWER}"
            )


def not_finite(what: str, value: float, step: int, rows: Sequence[int], args: Any) -> DivergedError:
    """The error for a loss or gradient that is not finite; `rows` are numbers of the training split, from 0."""
    shown = ", ".join(str(r) for r in rows[:ROWS_SHOWN]) + (" …" if len(rows) > ROWS_SHOWN else "")
    return DivergedError(
        f"training diverged: the {what} is {value} at step {step} (training rows {shown}, counted from 0); "
        f"{last_good(args.output_dir)}.\n"
        f"Try a lower --learning-rate (now {args.learning_rate:g}), more warm-up, or look at those rows."
    )


def require_finite(metrics: Mapping[str, Any], step: int, folder: Path | str) -> None:
    """Raise DivergedError when a measured number is not finite: it would choose the best checkpoint at random."""
    for name, value in metrics.items():
        if name.startswith("eval_") and isinstance(value, int | float) and not math.isfinite(value):
            raise DivergedError(f"training diverged: {name.removeprefix('eval_')} of the validation rows is {value} at step "
                                f"{step}; {last_good(folder)}.\n{LOWER}")  # fmt: skip


def last_good(folder: Path | str) -> str:
    """Which checkpoint was written before it went wrong, as a phrase."""
    kept = newest_checkpoint(folder)
    return f"the last good checkpoint is {kept}" if kept else "no checkpoint had been written yet"
