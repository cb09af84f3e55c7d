"""ia3: one learned scale per feature, a few thousand weights in all.

(IA)3, Liu et al. 2022, arXiv 2205.05638. Outputs of the selected layers are scaled; for the layers that close a
feed-forward block it is their inputs, as in the paper (`--target-modules` with keys, values and those layers is its
exact form). Trains with a high learning rate (3e-3 in the paper). Forgets more than LoRA in peft's own comparison.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets
from hf_tuner.methods._peft import attach, target_option
from hf_tuner.methods._rates import scaling_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of (IA)3, named as in peft."""

    target_modules: str | list = target_option()


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, scale the selected layers, train the head in full."""
    closing = [name for name in targets.feedforward if name in set(targets.selected)]
    return attach(model, "IA3Config", targets, feedforward_modules=closing)
