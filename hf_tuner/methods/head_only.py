"""head-only: the body is frozen, only the head moves.

The linear probe as a model: trains in seconds on features that are computed once, and is hard to beat on embedding
models. Saved as a tiny adapter that holds the head alone. Too weak where the task is not in the features already.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets
from hf_tuner.errors import UsageError
from hf_tuner.methods._peft import attach
from hf_tuner.methods._rates import few_weights_rate as learning_rate

__all__ = ["SAVES", "TRAINED_BY_WAY_IN", "WAY_IN", "Config", "adapt", "learning_rate"]

SAVES = "adapter"
WAY_IN = "probe"
TRAINED_BY_WAY_IN = True
"""Fitting the head on the frozen features is the training: no step of the Trainer follows."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Training the head alone has no settings of its own."""


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze all but the head. Raises UsageError when the model has none."""
    from peft.utils.constants import DUMMY_TARGET_MODULES

    if not targets.head:
        raise UsageError(f"{type(model).__name__} has no head to train; use --method lora or full")
    return attach(model, "LoraConfig", targets, target_modules=DUMMY_TARGET_MODULES)
