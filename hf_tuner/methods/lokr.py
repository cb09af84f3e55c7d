"""lokr: updates that are Kronecker products, very few weights at a high rank.

LoKr, from LyCORIS (Yeh et al. 2023, arXiv 2309.14859); the product itself: KronA, arXiv 2212.10650. An eighth of
LoRA's file size in peft's own comparison, two points behind it. LoRA's learning rate. Linear and convolution layers;
not the Conv1D of GPT-2.
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
    """Settings of LoKr, named as in peft."""

    r: int = option(8, "Rank of the factors.")
    alpha: int | None = option(None, "Scale of the update, divided by r (default: r).")
    rank_dropout: float = option(0.0, "Share of ranks left out in a training step.")
    module_dropout: float = option(0.0, "Share of layers left unadapted in a training step.")
    decompose_both: bool = option(False, "Factor the left matrix of the product too.")
    decompose_factor: int = option(-1, "Size of the left matrix (-1: as near the square root as divides).")
    target_modules: str | list = target_option()
    rank_pattern: dict | None = option(None, "Ranks that differ, by layer name or regex.")
    alpha_pattern: dict | None = option(None, "Values of alpha that differ, by layer name or regex.")

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(r=self.r)
        share(rank_dropout=self.rank_dropout, module_dropout=self.module_dropout)


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put Kronecker products beside the selected layers, train the head in full."""
    return attach(model, "LoKrConfig", targets, **options(config, alpha=config.alpha or config.r))
