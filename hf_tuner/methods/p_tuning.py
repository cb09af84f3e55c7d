"""p-tuning: virtual tokens that a small network writes; the model itself is frozen.

P-tuning, Liu et al. 2021, arXiv 2103.10385. The network (MLP or LSTM) makes the prompt easier to learn than in prompt
tuning. Text models only; it cannot be merged; the virtual tokens take room from the longest text (`reserved_tokens`).
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import options, positive, share
from hf_tuner.methods._prompts import attach_prompt
from hf_tuner.methods._rates import few_weights_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate", "reserved_tokens"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of p-tuning, named as in peft."""

    num_virtual_tokens: int = option(20, "Number of virtual tokens.")
    encoder_reparameterization_type: str = option("MLP", "The network that writes them.", ("MLP", "LSTM"))
    encoder_hidden_size: int = option(128, "Width of the network.")
    encoder_num_layers: int = option(2, "Layers of an LSTM (the MLP has always two).")
    encoder_dropout: float = option(0.0, "Dropout in an LSTM.")

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(
            num_virtual_tokens=self.num_virtual_tokens,
            encoder_hidden_size=self.encoder_hidden_size,
            encoder_num_layers=self.encoder_num_layers,
        )
        share(encoder_dropout=self.encoder_dropout)


def reserved_tokens(config: Config) -> int:
    """Positions of the model that the virtual tokens take."""
    return config.num_virtual_tokens


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put written virtual tokens before every text, train the head in full."""
    settings = options(config)
    if config.encoder_reparameterization_type == "MLP":
        settings = {k: v for k, v in settings.items() if k not in ("encoder_num_layers", "encoder_dropout")}
    return attach_prompt(model, "PromptEncoderConfig", targets, **settings)
