"""full: every weight moves.

The reference for all other methods: most capacity, most memory (weights, gradients and two Adam moments for every
parameter), and the whole model is saved. With --dtype bfloat16 small updates are lost to rounding; keep float32 and
let autocast compute in bf16.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets
from hf_tuner.methods._rates import full_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "model"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Full fine-tuning has no settings of its own."""


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Make every parameter trainable and return the model."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
