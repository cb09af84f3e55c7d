"""prompt: learned virtual tokens before every text; the model itself is frozen.

Prompt tuning, Lester et al. 2021, arXiv 2104.08691: strong at billions of parameters, weak and slow to learn below.
Text models only; it cannot be merged; the virtual tokens take room from the longest text (`reserved_tokens`).
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import options, positive
from hf_tuner.methods._prompts import attach_prompt
from hf_tuner.methods._rates import few_weights_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate", "reserved_tokens"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of prompt tuning, named as in peft."""

    num_virtual_tokens: int = option(20, "Number of virtual tokens.")
    prompt_tuning_init: str = option("SAMPLE_VOCAB", "Start from words or from noise.", ("SAMPLE_VOCAB", "RANDOM"))

    def __post_init__(self) -> None:
        """Raise ValueError for fewer than one token."""
        positive(num_virtual_tokens=self.num_virtual_tokens)


def reserved_tokens(config: Config) -> int:
    """Positions of the model that the virtual tokens take."""
    return config.num_virtual_tokens


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put virtual tokens before every text, train the head in full."""
    return attach_prompt(model, "PromptTuningConfig", targets, **options(config))
