"""miss: one small matrix per layer, repeated along its input: the lightest in memory of the strong methods.

MiSS (matrix shard sharing, first called Bone), Kang and Yin 2024, arXiv 2409.15371. Least memory and time among the
good scores of peft's own comparison, but it forgets more than LoRA. `bat` makes the update depend on the weight
(stronger, slower). LoRA's learning rate. Not the Conv1D of GPT-2.
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
    """Settings of MiSS, named as in peft."""

    r: int = option(64, "Rank of the shared matrix; even with init_weights bat.")
    mini_r: int = option(1, "Rank of the second shard with init_weights mini.")
    miss_dropout: float = option(0.0, "Dropout before the update.")
    init_weights: str = option("default", "Form of the update.", ("default", "bat", "mini"))
    target_modules: str | list = target_option()

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        positive(r=self.r, mini_r=self.mini_r)
        share(miss_dropout=self.miss_dropout)


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put shared shards beside the selected layers, train the head in full."""
    form = True if config.init_weights == "default" else config.init_weights
    return attach(model, "MissConfig", targets, **options(config, init_weights=form))
