"""focal: cross-entropy that counts well-answered rows less, for rare classes and many easy rows.

Focal loss, Lin et al. 2017, arXiv 1708.02002: the log loss times (1 - p)^gamma, where p is the probability of the right
answer; gamma 2 in the paper, 0 is the plain cross-entropy. Probabilities come out less extreme than they should:
calibrate before reading them as such. The paper's alpha is `--class-weights`.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the focal loss."""

    gamma: float = option(2.0, "How strongly easy rows are discounted; 0 is the plain cross-entropy.")

    def __post_init__(self) -> None:
        """Raise ValueError for a negative gamma."""
        if self.gamma < 0:
            raise ValueError(f"gamma is {self.gamma}; expected 0 or more, such as 2")


def loss(logits: Any, labels: Any, weights: Any, config: Config | None) -> Any:
    """Loss of each row [rows] from logits [rows, classes].

    `labels`: class ids [rows], where -100 counts 0, or 0/1 floats [rows, classes] (the row's loss is then the mean over
    its classes, -100 left out). `weights`: [classes] or None.
    """
    from torch.nn import functional

    gamma = (config or Config()).gamma
    if labels.ndim == 1:
        right = -functional.cross_entropy(logits, labels, reduction="none")
        scale = 1.0 if weights is None else weights[labels.clamp(min=0)]
        return -scale * _miss(right, gamma) * right
    targets = labels.clamp(min=0).to(logits.dtype)
    right = -functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    scale = 1.0 if weights is None else weights
    return (-scale * _miss(right, gamma) * right * (labels != -100)).mean(dim=1)


def _miss(log_probability: Any, gamma: float) -> Any:
    """(1 - p)^gamma. The floor keeps the gradient finite for gamma below 1 where p reaches 1."""
    return (-log_probability.expm1()).clamp(min=1e-12) ** gamma
