"""shira: a sparse random choice of the weights themselves is trained, about as many as LoRA of rank r has.

SHiRA, Bhardwaj et al. 2024, arXiv 2406.13175. High rank with few weights: in peft's own comparison it forgets least
among the good scores (three times LoRA's rate there; LoRA's default here). The choice is drawn from `random_seed`
and saved with the adapter. Linear layers only.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, positive, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of SHiRA, named as in peft."""

    r: int = option(32, "As many weights per layer as LoRA of this rank has.")
    random_seed: int | None = option(None, "Seed of the choice of weights (default: the run's).")
    target_modules: str | list = target_option()

    def __post_init__(self) -> None:
        """Raise ValueError for a rank below 1."""
        positive(r=self.r)


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, train a sparse part of the selected layers and the head in full."""
    return attach(model, "ShiraConfig", targets, **options(config))
