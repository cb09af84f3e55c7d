"""The one place that decides how a loss is scaled.

The Trainer guesses from a model's signature whether it scales its loss by the number of items, and guesses wrong for
most classification heads (transformers#47688): an update with four accumulation steps is then four times too large.
Here the loss is always the sum over rows divided by the rows of the whole update, over all micro-batches and
processes, so that 8×1, 4×2 and two processes of 4 give the same update.
"""

from collections.abc import Callable
from typing import Any

import torch

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.errors import UsageError


def objective(run: Run, task: Any, weights: list[float] | None) -> Callable[..., torch.Tensor]:
    """A `compute_loss_func` for the Trainer: (outputs, labels, num_items_in_batch) → scalar.

    `weights` are class weights or None. Rows whose label is -100 count for nothing.
    """
    if task.problem == "regression" and run.loss != "cross-entropy":
        raise UsageError(
            f"--loss {run.loss} is for classes; numbers are trained with the squared error: leave --loss out"
        )
    plug = catalog.load("losses", run.loss)
    config = run.plugs.get(run.loss)
    per_class = torch.tensor(weights) if weights else None

    def rows(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if task.problem == "regression":
            labels = labels.view(-1)
            return torch.where(labels == -100, 0.0, (logits.view(-1).float() - labels).square())
        on_device = per_class.to(logits.device) if per_class is not None else None
        return plug.loss(logits.float(), labels, on_device, config)

    def compute(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        losses = rows(logits, labels)
        here = counted(labels)
        items = here if num_items_in_batch is None else num_items_in_batch / max(1, labels[0].numel())
        return losses.sum() / torch.as_tensor(items, device=losses.device).clamp(min=1)

    return compute


def counted(labels: torch.Tensor) -> torch.Tensor:
    """Number of rows whose label is not masked."""
    return labels.reshape(len(labels), -1).ne(-100).any(dim=1).sum()


def class_weights(choice: str, names: tuple[str, ...], labels: list[Any], problem: str) -> list[float] | None:
    """Weights per class, mean 1 over the training rows: None, balanced ("auto") or as given ({"name": weight}).

    Raises UsageError for an unknown class name, a bad number, or a problem without classes.
    """
    import json

    if choice in ("none", ""):
        return None
    if problem != "single":
        raise UsageError(f"--class-weights {choice}: only for one label per row, this task is {problem}")
    counts = torch.bincount(torch.tensor(labels), minlength=len(names)).float()
    if choice == "auto":
        raw = 1 / counts.clamp(min=1)
    else:
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
        raw = torch.tensor([given.get(name, 1.0) for name in names])
    return (raw * counts.sum() / (raw * counts).sum()).tolist()
