"""bitfit: only biases and the head move.

BitFit, Ben Zaken et al. 2021, arXiv 2106.10199: a thousandth of the weights, close to full fine-tuning on small and
middle-sized data sets. Needs a model whose layers have biases (most encoders; hardly any recent decoder) and float32
weights. The adapter holds the biases themselves: switching it off does not give the base back.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets
from hf_tuner.errors import UsageError
from hf_tuner.methods._peft import attach
from hf_tuner.methods._rates import few_weights_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """BitFit has no settings of its own."""


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze all but the biases and the head. Raises UsageError when the body has no biases."""
    from peft.utils.constants import DUMMY_TARGET_MODULES

    body = [n for n, _ in model.named_parameters() if not any(f".{h}." in f".{n}" for h in targets.head)]
    if not any(name.endswith("bias") for name in body):
        raise UsageError(f"the body of {type(model).__name__} has no biases; use --method ln-tuning, ia3 or lora")
    return attach(model, "LoraConfig", targets, target_modules=DUMMY_TARGET_MODULES, bias="all")
