"""oft: layers are rotated instead of added to, so that distances between neurons stay.

Orthogonal fine-tuning, Qiu et al. 2023, arXiv 2306.07280; the fast form with input rotation and Cayley-Neumann series
is OFTv2, arXiv 2506.19847. Good at keeping what was known: in peft's own comparison it forgets less than LoRA at a
similar score. LoRA's learning rate. Give either blocks of a size or a number of blocks; the size must divide the input
width of every layer, else peft takes the nearest that does and says so. Not the Conv1D of GPT-2.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, share, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of OFT, named as in peft."""

    oft_block_size: int = option(32, "Width of a rotated block (0 when r is given).")
    r: int = option(0, "Number of blocks per layer, instead of their size.")
    module_dropout: float = option(0.0, "Share of blocks left unrotated in a training step.")
    block_share: bool = option(False, "One rotation for all blocks of a layer.")
    coft: bool = option(False, "Keep rotations within eps of the identity (constrained OFT).")
    eps: float = option(6e-5, "Freedom of a constrained rotation.")
    target_modules: str | list = target_option()

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly one of r and oft_block_size is given."""
        share(module_dropout=self.module_dropout)
        if min(self.r, self.oft_block_size) < 0 or bool(self.r) == bool(self.oft_block_size):
            raise ValueError(
                f"r {self.r} and oft_block_size {self.oft_block_size}: exactly one of the two must be above 0 "
                "(with r, set oft_block_size 0)"
            )


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, rotate the selected layers, train the head in full."""
    return attach(model, "OFTConfig", targets, **options(config))
