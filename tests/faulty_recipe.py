"""Text classification that fails on purpose: FAULT=KIND:RANK:NUMBER breaks one rank at that step, or at that row.

A user's own recipe, as far as hf-tuner can tell: it is started like one, alone or with `--num-processes`.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from hf_tuner import Report, Run, TextClassification, fit, launch, load_data, load_model, load_processor


class Picky(TextClassification):
    """A task whose collator fails on one row."""

    def collate(self, processor: Any) -> Callable:
        """The task's own collator with the fault of the environment in it."""
        plain, (kind, number) = super().collate(processor), fault()

        def batch(rows: list[dict[str, Any]]) -> Any:
            if kind and any(row.get("row") == number for row in rows):
                _break(kind)
            return plain(rows)

        return batch


def fault() -> tuple[str, int]:
    """Kind and number of this rank's fault, or an empty kind."""
    kind, rank, number = os.environ["FAULT"].split(":")
    return (kind, int(number)) if os.environ.get("RANK", "0") == rank else ("", 0)


def recipe(run: Run) -> Report:
    """The recipe for texts, with a fault in it."""
    data = load_data(run, TextClassification)
    task = TextClassification.from_data(data, run)
    processor = load_processor(run)
    model = load_model(run, task)
    kind, number = fault()
    if kind.endswith("-row"):
        task = Picky(**{f.name: getattr(task, f.name) for f in fields(task) if f.init})
    elif kind:
        _hook(model, kind, number)
    return fit(run, task, model, processor, data)


def _hook(model: Any, kind: str, number: int) -> None:
    """Break the forward pass of training step `number`, or of every pass of the evaluation after it."""
    seen = []

    def before(module: Any, inputs: Any) -> None:
        if module.training:
            seen.append(1)
            if len(seen) == number and kind not in ("nan", "nan-evaluation"):
                _break(kind)

    def after(module: Any, inputs: Any, outputs: Any) -> Any:
        spoil = len(seen) == number if module.training else len(seen) >= number
        if spoil and kind == ("nan" if module.training else "nan-evaluation"):
            outputs["logits"] = outputs["logits"] * float("nan")
        return outputs

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)


def _break(kind: str) -> None:
    name = kind.removesuffix("-row")
    if name == "raise":
        raise ValueError("this cannot be read")
    if name == "hang":
        if mark := os.environ.get("FAULT_MARK"):
            Path(mark).write_text(str(os.getpid()))
        time.sleep(1000)
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


if __name__ == "__main__":
    launch(recipe)
