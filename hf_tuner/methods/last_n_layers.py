"""last-n-layers: the head, the last blocks and what follows them move; the rest is frozen.

The classic partial fine-tuning (Yosinski et al. 2014, arXiv 1411.1792): memory and time fall with the frozen share,
general features stay. The whole model is saved.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.errors import UsageError
from hf_tuner.methods._blocks import stages, towers
from hf_tuner.methods._peft import positive
from hf_tuner.methods._rates import full_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "model"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much of the stack moves."""

    n: int = option(2, "Number of blocks to train, counted from the top.")

    def __post_init__(self) -> None:
        """Raise ValueError for fewer than one block."""
        positive(n=self.n)


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Make the top of the stack trainable. Raises UsageError when the model has fewer blocks."""
    stack = stages(model, targets)
    depth = max(map(len, towers(model, targets)))
    if config.n > depth:
        raise UsageError(f"--n {config.n}: {type(model).__name__} has {depth} blocks; --method full trains all")
    free = {name for stage in stack[: config.n + 1] for name in stage}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in free)
    return model
