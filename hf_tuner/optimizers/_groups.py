"""What optimiser plugs share: which parameters train, which of them decay, and groups made of both."""

from collections.abc import Callable
from typing import Any

SCALES = ("ia3_", "magnitude")
"""Parts of names of scales with more than one dimension: their neutral value is not zero, so decay harms them."""


def trainable(model: Any) -> list[tuple[str, Any]]:
    """Names and parameters that train; a shared parameter once."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def decays(name: str, parameter: Any) -> bool:
    """Weight decay is for matrices: not for biases, norms and learned scales."""
    lowered = name.lower()
    return parameter.ndim > 1 and not lowered.endswith("bias") and not any(part in lowered for part in SCALES)


def grouped(model: Any, rate: Callable[[str], float], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with one learning rate and one weight decay each; `rate` gives a parameter's rate by name."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trainable(model):
        key = (rate(name), weight_decay if decays(name, parameter) else 0.0)
        groups.setdefault(key, {"params": [], "lr": key[0], "weight_decay": key[1]})["params"].append(parameter)
    return list(groups.values())
