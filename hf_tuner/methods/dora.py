"""dora: LoRA that also learns the length of each weight row.

DoRA, Liu et al. 2024, arXiv 2402.09353: the update splits into a direction (low rank) and a magnitude. A sixth to a
quarter slower than LoRA; in peft's own comparison (MetaMathQA) it gained nothing over it, so measure before you pay.
Magnitudes are computed from the base weights when the adapter is made.
"""

from dataclasses import dataclass, replace
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, positive, share, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of DoRA, named as in peft."""

    r: int = option(16, "Rank of the update.")
    lora_alpha: int | None = option(None, "Scale of the update, divided by r (default: 2r).")
    lora_dropout: float = option(0.0, "Dropout before the low-rank matrices (costs a quarter of the speed on a CPU).")
    target_modules: str | list = target_option()
    rank_pattern: dict | None = option(None, 'Ranks that differ, by layer name or regex: {"layer.11.*query": 32}.')
    alpha_pattern: dict | None = option(None, "Values of lora_alpha that differ, by layer name or regex.")

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(r=self.r)
        share(lora_dropout=self.lora_dropout)
        if self.lora_alpha is not None:
            positive(lora_alpha=self.lora_alpha)


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put direction and magnitude beside the selected layers, train the head in full.

    A weight row of zeros has no direction: layers that hold one (deformable attention begins so) are left out.
    """
    from hf_tuner.console import say

    alpha = config.lora_alpha or 2 * config.r
    weights = {name: model.get_submodule(name).weight for name in targets.selected}
    still = [n for n, weight in weights.items() if not weight.is_meta and not weight.flatten(1).any(dim=1).all()]
    if still and len(still) < len(targets.selected):
        say(
            f"  note      {len(still)} layers have rows of zeros, which have no direction, and are left out: {still[0]} first"
        )
        targets = replace(targets, selected=tuple(name for name in targets.selected if name not in still))
    return attach(model, "LoraConfig", targets, **options(config, lora_alpha=alpha, use_dora=True))
