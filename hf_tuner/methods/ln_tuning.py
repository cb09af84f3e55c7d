"""ln-tuning: only the normalisation layers and the head move.

Zhao et al. 2023, arXiv 2312.11420; for vision and language transformers alike a few thousand weights. Cheap and safe,
and weak where the task is far from pre-training (nothing learned on GSM8K in peft's own comparison).
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
    """Norm tuning has no settings of its own."""


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model but for its normalisation layers and the head. Raises UsageError when it has none."""
    if not targets.norms:
        raise UsageError(f"{type(model).__name__} has no normalisation layers in its body; use --method bitfit or lora")
    return attach(model, "LNTuningConfig", targets, target_modules=list(targets.norms))
