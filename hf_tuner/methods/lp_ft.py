"""lp-ft: the head is fitted on frozen features first, then every weight moves.

Linear probing, then fine-tuning (Kumar et al. 2022, arXiv 2202.10054): a random head distorts good features in the
first steps, a fitted one does not. The weights are those of `full`; only the way in is always the probe, also where
the checkpoint brings a head of its own. Works where the head reads a single state of the body.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets
from hf_tuner.methods._rates import full_rate as learning_rate

__all__ = ["SAVES", "WAY_IN", "Config", "adapt", "learning_rate"]

SAVES = "model"
WAY_IN = "probe"


@dataclass(frozen=True, kw_only=True)
class Config:
    """LP-FT has no settings of its own."""


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Make every parameter trainable and return the model; the probe sets the head before the first step."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
