"""lora-plus: the B matrices of LoRA learn faster than the A matrices.

LoRA+, Hayou et al. 2024, arXiv 2402.12354: B at `ratio` times the rate of A. The paper's rate is A's, and it asks for a
lower one than LoRA's; here the learning rate stays LoRA's own and is split evenly around it (A gets rate/√ratio, B
rate·√ratio), so that it can be switched on without a new search. All else that trains, the head above all, keeps the
rate itself; peft's own groups give a head A's low rate and its bias B's high one. No gain was measured on SST-2.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import option
from hf_tuner.errors import UsageError
from hf_tuner.optimizers._groups import grouped, trainable


@dataclass(frozen=True, kw_only=True)
class Config:
    """How far apart the two rates are."""

    ratio: float = option(16.0, "Learning rate of the B matrices, divided by that of the A matrices.")

    def __post_init__(self) -> None:
        """Raise ValueError for a ratio below 1."""
        if self.ratio < 1:
            raise ValueError(f"ratio is {self.ratio}; expected 1 or more, such as 16")


def groups(model: Any, config: Config, base_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of A, B and the rest. Raises UsageError when the model has no LoRA matrices."""
    if not any(_is(name, "B") for name, _ in trainable(model)):
        raise UsageError("--optimizer lora-plus needs LoRA's B matrices; use it with --method lora, dora or qlora")
    spread = config.ratio**0.5

    def rate(name: str) -> float:
        if _is(name, "B"):
            return base_rate * spread
        return base_rate / spread if _is(name, "A") else base_rate

    return grouped(model, rate, weight_decay)


def _is(name: str, matrix: str) -> bool:
    return f".lora_{matrix}." in name or f".lora_embedding_{matrix}." in name
