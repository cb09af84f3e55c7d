"""loha: updates that are the elementwise product of two low-rank matrices.

LoHa, from LyCORIS (Yeh et al. 2023, arXiv 2309.14859); the product itself: FedPara, arXiv 2108.06098. Rank up to r²
for the weights of two LoRAs of rank r, and slower than LoRA. LoRA's learning rate. Linear and convolution layers; not
the Conv1D of GPT-2.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, positive, share, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of LoHa, named as in peft."""

    r: int = option(8, "Rank of the factors.")
    alpha: int | None = option(None, "Scale of the update, divided by r (default: r).")
    rank_dropout: float = option(0.0, "Share of ranks left out in a training step.")
    module_dropout: float = option(0.0, "Share of layers left unadapted in a training step.")
    target_modules: str | list = target_option()
    rank_pattern: dict | None = option(None, "Ranks that differ, by layer name or regex.")
    alpha_pattern: dict | None = option(None, "Values of alpha that differ, by layer name or regex.")

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(r=self.r)
        share(rank_dropout=self.rank_dropout, module_dropout=self.module_dropout)


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put elementwise products beside the selected layers, train the head in full."""
    return attach(model, "LoHaConfig", targets, **options(config, alpha=config.alpha or config.r))
