"""What one picture costs a model: operations of a forward pass and bytes kept for the way back, counted without weights."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hf_tuner.config import Run
from hf_tuner.evaluation.loop import take
from hf_tuner.evaluation.predict import encoded
from hf_tuner.models.load import bare_model
from hf_tuner.models.processors import load_processor, max_length


@dataclass(frozen=True)
class Footprint:
    """Of one row."""

    shape: str
    """Size of its picture as the model gets it."""
    flops: float
    """Floating-point operations of a forward pass; multiplications of matrices and convolutions count."""
    kept: int
    """Bytes of activations that the backward pass needs."""


def footprint(run: Run, task: Any, rows: Any, model: Any) -> Footprint | str:
    """What the first row costs a model on the meta device; why that is not known where its forward asks for numbers."""
    processor = load_processor(run, task)
    ready = encoded(task, processor, rows.select([0]), max_length(run, processor, bare_model(model).config), "train")
    made = task.collate(processor)(take(ready, [0, 0]))  # batch norms train on two rows or more
    accepted = set(inspect.signature(bare_model(model).forward).parameters) - {"labels"}
    inputs = {k: v.to("meta") for k, v in made.items() if k in accepted and torch.is_tensor(v)}
    if "pixel_values" not in inputs:
        return "it reads no pixels"
    try:
        flops, kept = counted(model, inputs)
    except Exception as error:  # whatever a model does with numbers: they are not there
        return f"its forward pass cannot be laid out without numbers ({(str(error).splitlines() or [''])[0][:80]})"
    return Footprint(" × ".join(map(str, inputs["pixel_values"].shape[-2:])), flops / 2, kept // 2)


def counted(model: Any, inputs: dict[str, Any]) -> tuple[float, int]:
    """Operations of a forward pass, and bytes that autograd keeps of it besides the weights."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # alive, so that its address is no other's
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return float(counter.get_total_flops()), sum(storage.nbytes() for storage in kept.values())
