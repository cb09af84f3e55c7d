"""prefix: learned keys and values before every text in each layer; the model itself is frozen.

Prefix tuning, Li and Liang 2021, arXiv 2101.00190; without the projection it is P-tuning v2, Liu et al. 2021,
arXiv 2110.07602, made for understanding tasks on models of every size. Text models only; it cannot be merged; the
prefix takes room from the longest text (`reserved_tokens`).
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
    """Settings of prefix tuning, named as in peft."""

    num_virtual_tokens: int = option(20, "Length of the prefix.")
    prefix_projection: bool = option(False, "Write the prefix with a small network.")
    encoder_hidden_size: int = option(128, "Width of that network.")

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(num_virtual_tokens=self.num_virtual_tokens, encoder_hidden_size=self.encoder_hidden_size)


def reserved_tokens(config: Config) -> int:
    """Positions of the model that the prefix takes."""
    return config.num_virtual_tokens


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put a learned prefix into every layer, train the head in full."""
    return attach_prompt(model, "PrefixTuningConfig", targets, **options(config))
