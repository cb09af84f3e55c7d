"""layerwise-decay: the learning rate falls from the head down to the embeddings.

Layer-wise learning rate decay (Howard and Ruder 2018, arXiv 1801.06146; in this form ELECTRA, arXiv 2003.10555): the
head has the full rate, block i of n has rate · decay^(n - i) counted from 0, the embeddings decay^(n + 1). 0.9 to 0.95
is usual, 0.8 with few rows. Blocks are found by the first number in a parameter's name (encoder.layer.3., layers.3.,
h.3.); in encoder-decoder models both stacks count alike.
"""

import re
from dataclasses import dataclass
from typing import Any

from hf_tuner.config import option
from hf_tuner.errors import UsageError
from hf_tuner.optimizers._groups import grouped

BLOCK = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|encoder|decoder|stages?)\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How fast the rate falls."""

    decay: float = option(0.9, "Factor from one block to the next below.")

    def __post_init__(self) -> None:
        """Raise ValueError for a factor outside (0, 1]."""
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; expected a factor above 0 and up to 1, such as 0.9")


def groups(model: Any, config: Config, base_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups per depth, with and without decay. Raises UsageError when the model shows no blocks."""
    names = [name for name, _ in model.named_parameters()]
    blocks = {int(found[1]) for name in names if (found := BLOCK.search(name))}
    if not blocks:
        raise UsageError(f"--optimizer layerwise-decay: {type(model).__name__} shows no numbered blocks; use adamw")
    count = max(blocks) + 1
    first = next(i for i, name in enumerate(names) if BLOCK.search(name))
    below = set(names[:first])

    def rate(name: str) -> float:
        found = BLOCK.search(name)
        if found:
            return base_rate * config.decay ** (count - int(found[1]))
        return base_rate * config.decay ** (count + 1) if name in below or "embed" in name else base_rate

    return grouped(model, rate, weight_decay)
