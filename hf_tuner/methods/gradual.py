"""gradual: blocks are unfrozen one by one from the top while training goes on.

Gradual unfreezing, Howard and Ruder 2018, arXiv 1801.06146 (ULMFiT). Every parameter is in the optimiser from the
start; what is still frozen has `requires_grad` off, so it gets no gradient, and AdamW leaves a parameter without
gradient alone (no step, no decay). Several processes work because the Trainer lets DDP find unused parameters, which
it does not with gradient checkpointing; sharded training (FSDP, DeepSpeed) is not supported.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._blocks import stages
from hf_tuner.methods._rates import full_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "callbacks", "learning_rate", "unfreeze"]

SAVES = "model"
ALL_FREE = 0.5
"""Share of training after which nothing is frozen any more, unless `every` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How fast the stack thaws."""

    every: float | None = option(None, "Share of training between two blocks (default: all are free half-way).")

    def __post_init__(self) -> None:
        """Raise ValueError for a share outside (0, 1]."""
        if self.every is not None and not 0 < self.every <= 1:
            raise ValueError(f"every is {self.every}; expected a share of training above 0 and up to 1, such as 0.1")


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Make every parameter trainable, so that the optimiser knows it, and note the stages in `model.tuner_stages`."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.tuner_stages = stages(model, targets)
    return model


def callbacks(config: Config) -> list[Any]:
    """The callback that freezes all but the head when training begins and unfreezes as it goes on."""
    from transformers import TrainerCallback

    class Thaw(TrainerCallback):
        """Says before every step what is free; a function of the step alone, so a resumed run goes on alike."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            unfreeze(model, config, state.global_step / max(1, state.max_steps))

        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            unfreeze(model, config, state.global_step / max(1, state.max_steps))

    return [Thaw()]


def unfreeze(model: Any, config: Config, progress: float) -> int:
    """Free the stages that are due after a share of training, freeze the others; returns how many are free."""
    stack = model.tuner_stages
    every = config.every or ALL_FREE / max(1, len(stack) - 1)
    due = min(len(stack), 1 + int(progress / every + 1e-9))
    free = {name for stage in stack[:due] for name in stage}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in free)
    return due
