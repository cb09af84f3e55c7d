"""backbone-rate: the backbone of a detector learns more slowly than what stands on it.

DETR (Carion et al. 2020, arXiv 2005.12872) trains its convolutional backbone at a tenth of the rate, and its descendants
do the same. The backbone is what lies below a module of that name.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import option
from hf_tuner.console import warn
from hf_tuner.optimizers._groups import grouped, trainable


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much more slowly."""

    factor: float = option(0.1, "Learning rate of the backbone as a share of the rate.")

    def __post_init__(self) -> None:
        """Raise ValueError for a factor outside (0, 1]."""
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor is {self.factor}; expected a share above 0 and up to 1, such as 0.1")


def groups(model: Any, config: Config, base_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in and outside of the backbone; where none trains, all have the full rate, which is said."""

    def inside(name: str) -> bool:
        return "backbone" in name.split(".")[:-1]

    if not any(inside(name) for name, _ in trainable(model)):
        warn(
            f"--optimizer backbone-rate: {type(model).__name__} has no module `backbone` that trains; all learn at the full rate"
        )
    return grouped(model, lambda name: base_rate * (config.factor if inside(name) else 1.0), weight_decay)
