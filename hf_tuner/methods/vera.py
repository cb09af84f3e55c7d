"""vera: LoRA with random matrices shared by all layers; only two scaling vectors per layer are learned.

VeRA, Kopiczko et al. 2023, arXiv 2310.11454. Ten times fewer weights than LoRA, at about ten times its learning rate
(4e-3 to 1e-2 for GLUE in the paper). The shared random matrices are saved with the adapter, so that reloading does not
depend on a random generator. Well behind LoRA in peft's own comparison (MetaMathQA).
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, positive, share, target_option
from hf_tuner.methods._rates import adapter_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of VeRA, named as in peft."""

    r: int = option(256, "Rank of the shared random matrices.")
    vera_dropout: float = option(0.0, "Dropout before the update.")
    d_initial: float = option(0.1, "Start of the inner scaling vector.")
    projection_prng_key: int = option(0, "Seed of the shared random matrices.")
    target_modules: str | list = target_option()

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(r=self.r)
        share(vera_dropout=self.vera_dropout)


def learning_rate(parameters: int) -> float:
    """Ten times LoRA's, at most 1e-2."""
    return min(1e-2, 10 * adapter_rate(parameters))


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put scaled random updates beside the selected layers, train the head in full."""
    return attach(model, "VeraConfig", targets, **options(config, save_projection=True))
