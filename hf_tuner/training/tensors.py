"""What training moves, tensor by tensor: an adapter's own file may hold less (p-tuning) than its training needs."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hf_tuner.errors import ArtifactError

FILE = "training.safetensors"
WEIGHT, MEMORY = "weight.", "memory."


def save_tensors(model: Any, method: Any, folder: Path) -> None:
    """Write every trainable tensor of an adapter, and what the method keeps beside the model (`memory(model)`)."""
    kept = {}
    if hasattr(model, "peft_config"):
        kept = {WEIGHT + name: value for name, value in model.named_parameters() if value.requires_grad}
    if hasattr(method, "memory"):
        kept |= {MEMORY + name: value for name, value in method.memory(model).items()}
    if kept:
        save_file({name: value.detach().cpu().contiguous() for name, value in kept.items()}, folder / FILE)


def load_tensors(model: Any, method: Any, folder: Path) -> None:
    """Put back what `save_tensors` wrote. Raises ArtifactError when the model has other trainable tensors."""
    if not (folder / FILE).is_file():
        return
    saved = load_file(folder / FILE)
    weights = {name.removeprefix(WEIGHT): value for name, value in saved.items() if name.startswith(WEIGHT)}
    here = {name: value for name, value in model.named_parameters() if value.requires_grad}
    other = sorted(weights.keys() ^ here.keys()) or [n for n in here if here[n].shape != weights[n].shape]
    if other:
        raise ArtifactError(
            f"{folder} belongs to another model: {other[0]} is trainable in one of them only, or larger"
        )
    with torch.no_grad():
        for name, value in weights.items():
            here[name].copy_(value)
    if hasattr(method, "recall"):
        method.recall(model, {k.removeprefix(MEMORY): v for k, v in saved.items() if k.startswith(MEMORY)})
