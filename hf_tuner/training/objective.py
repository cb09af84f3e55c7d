"""The one place that decides how a loss is scaled.

The Trainer guesses from a model's signature whether it scales its loss by the number of items, and guesses wrong for
most classification heads (transformers#47688): an update with four accumulation steps is then four times too large; for
token-level losses it averages averages. Here the loss is always the sum over items (rows, or tokens that are not
masked) divided by the items of the whole update, over all micro-batches and processes, so that 8×1, 4×2 and two
processes of 4 give the same update.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.errors import UsageError

Objective = Callable[..., torch.Tensor]
"""(model, batch, items of the update or None) → scalar; see `objective`."""


def objective(run: Run, task: Any, weights: list[float] | None) -> Objective:
    """The loss of a batch: (model, batch, items) → scalar, the task's sum divided by `items` (None: the batch's own).

    `weights` are class weights or None. Items whose label is -100 count for nothing. Raises UsageError for a loss that
    is not for this task.
    """
    plug, config = catalog.load("losses", run.loss), run.plugs.get(run.loss)
    per_class = torch.tensor(weights) if weights else None
    problem = getattr(task, "problem", "")
    if run.loss != "cross-entropy" and (problem in ("regression", "detection") or not task.label_names):
        what = "numbers are trained with the squared error" if problem == "regression" else f"{run.task} has its own"
        raise UsageError(f"--loss {run.loss} is for classes; {what}: leave --loss out")

    def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        on_device = per_class.to(logits.device) if per_class is not None else None
        return plug.loss(logits, labels, on_device, config)

    def compute(model: Any, batch: dict[str, Any], items: Any = None) -> torch.Tensor:
        count = task.items(batch) if items is None else items
        total = task.loss(model, dict(batch), losses)
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)

    return compute


def class_weights(run: Run, task: Any, rows: Any) -> list[float] | None:
    """Weights per class, mean 1 over the encoded training rows: None, balanced ("auto") or as given ({"name": weight}).

    Raises UsageError for an unknown class name, a bad number, or a task without classes.
    """
    choice, names, problem = run.class_weights, task.label_names, getattr(task, "problem", "single")
    if choice in ("none", ""):
        return None
    if problem != "single" or not names:
        raise UsageError(
            f"--class-weights {choice}: only for one label per row, this task is {problem if names else run.task}"
        )
    counts = torch.from_numpy(label_counts(task, rows)).float()
    raw = 1 / counts.clamp(min=1) if choice == "auto" else _given(choice, names)
    return (raw * counts.sum() / (raw * counts).sum()).tolist()


def label_counts(task: Any, rows: Any) -> np.ndarray:
    """How often each class [classes] is a label of encoded rows, -100 for none; of masks, the pixels that the task counted."""
    if pixels := getattr(task, "pixels", ()):
        return np.asarray(pixels, np.int64)
    labels = np.concatenate([np.ravel(one) for one in rows.with_format(None)["labels"]]).astype(np.int64)
    return np.bincount(labels[labels >= 0], minlength=len(task.label_names))


def _given(choice: str, names: tuple[str, ...]) -> torch.Tensor:
    """The weights of {"name": weight}; 1 for classes that are not named."""
    try:
        given = {str(k): float(v) for k, v in json.loads(choice).items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UsageError(f'--class-weights {choice}: none, auto, or JSON such as {{"{names[0]}": 2}}') from error
    stray = [k for k in given if k not in names]
    if stray:
        raise UsageError("--class-weights: " + catalog.unknown("class", stray[0], list(names)))
    bad = [k for k, v in given.items() if not 0 <= v < float("inf")]
    if bad:
        raise UsageError(f'--class-weights: the weight of "{bad[0]}" is {given[bad[0]]}; expected a number ≥ 0')
    return torch.tensor([given.get(name, 1.0) for name in names])
