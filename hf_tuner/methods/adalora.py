"""adalora: LoRA whose rank is moved during training to the layers that need it.

AdaLoRA, Zhang et al. 2023, arXiv 2303.10512: the update is an SVD whose least important triples are set to zero until
`target_r` per layer is left on average. The schedule needs the number of steps, which is known when training starts:
it comes with `callbacks`, and so does the orthogonality penalty, because it has to hold for every loss. Pruned triples
stay in the saved file as zeros. A resumed run starts its importance averages anew. Weak in peft's own comparison.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, positive, share, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "callbacks", "learning_rate", "memory", "orthogonality", "recall"]

SAVES = "adapter"
IMPORTANCES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
UNKNOWN_STEPS = 10**9
"""peft wants a number of steps when the adapter is made; `callbacks` sets the true one."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of AdaLoRA, named as in peft; the two phases are shares of training instead of steps."""

    init_r: int = option(12, "Rank of every layer at the start.")
    target_r: int = option(8, "Mean rank at the end.")
    lora_alpha: int | None = option(None, "Scale of the update, divided by the rank (default: 2 init_r).")
    lora_dropout: float = option(0.05, "Dropout before the update.")
    target_modules: str | list = target_option()
    tinit: float = option(0.1, "Share of training before the first rank is taken away.")
    tfinal: float = option(0.3, "Share of training after the last rank was taken away.")
    deltaT: int = option(1, "Steps between two allocations.")
    beta1: float = option(0.85, "Smoothing of the importance of a weight.")
    beta2: float = option(0.85, "Smoothing of the uncertainty of that importance.")
    orth_reg_weight: float = option(0.5, "Weight of the penalty that keeps the singular vectors orthogonal.")

    def __post_init__(self) -> None:
        """Raise ValueError for a schedule that leaves nothing to allocate."""
        positive(init_r=self.init_r, target_r=self.target_r, deltaT=self.deltaT)
        share(tinit=self.tinit, tfinal=self.tfinal, lora_dropout=self.lora_dropout, beta1=self.beta1, beta2=self.beta2)
        if self.target_r >= self.init_r:
            raise ValueError(
                f"target_r {self.target_r} is not below init_r {self.init_r}; ranks are only taken away (or use lora)"
            )
        if self.tinit + self.tfinal >= 1:
            raise ValueError(
                f"tinit {self.tinit} and tfinal {self.tfinal} leave no time to allocate; their sum must be below 1"
            )
        if self.orth_reg_weight < 0:
            raise ValueError(f"orth_reg_weight is {self.orth_reg_weight}; expected 0 or more")


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put SVD updates beside the selected layers, train the head in full."""
    alpha = config.lora_alpha or 2 * config.init_r
    settings = options(config, lora_alpha=alpha, tinit=0, tfinal=0, total_step=UNKNOWN_STEPS)
    adapted = attach(model, "AdaLoraConfig", targets, **settings)
    for name, parameter in adapted.named_parameters():
        if ".ranknum." in name:  # a constant; on a half-precision base peft makes it trainable by mistake
            parameter.requires_grad_(False)
    return adapted


def callbacks(config: Config) -> list[Any]:
    """The callback that adds the penalty's gradient before each update and allocates ranks after it."""
    from transformers import TrainerCallback

    class RankBudget(TrainerCallback):
        """Keeps AdaLoRA's schedule. Gradients are still there in `on_optimizer_step`, as the allocation needs."""

        def __init__(self) -> None:
            self.last = 0
            self.pruned: list[tuple[Any, Any]] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            settings = model.peft_config["default"]
            settings.total_step = state.max_steps
            settings.tinit, settings.tfinal = int(config.tinit * state.max_steps), int(config.tfinal * state.max_steps)
            self.last = state.max_steps - settings.tfinal
            if state.global_step >= self.last:
                self.pruned = _zeros(model)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if config.orth_reg_weight:
                (config.orth_reg_weight * orthogonality(model)).backward()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            step = state.global_step + 1
            if step <= self.last:
                model.base_model.update_and_allocate(step)
                # With a rank pattern peft would cut the tensors it saves, and a resumed run could not load them.
                model.peft_config["default"].rank_pattern = None
            if step == self.last:
                self.pruned = _zeros(model)
            for values, zero in self.pruned:
                values.data.masked_fill_(zero, 0.0)

    return [RankBudget()]


def memory(model: Any) -> dict[str, Any]:
    """The smoothed importances, which decide what is pruned next and belong to no parameter: name → tensor."""
    allocator = model.base_model.rankallocator
    return {f"{kind}/{name}": value for kind in IMPORTANCES for name, value in getattr(allocator, kind).items()}


def recall(model: Any, saved: dict[str, Any]) -> None:
    """Put the importances of `memory` back."""
    device = next(model.parameters()).device
    for key, value in saved.items():
        kind, _, name = key.partition("/")
        getattr(model.base_model.rankallocator, kind)[name] = value.to(device)


def orthogonality(model: Any) -> Any:
    """Mean Frobenius distance of A·Aᵀ and Bᵀ·B from the identity over all updates: a scalar with gradient."""
    import torch

    factors = [(n, p) for n, p in model.named_parameters() if p.requires_grad and (".lora_A." in n or ".lora_B." in n)]
    grams = [p @ p.T if ".lora_A." in n else p.T @ p for n, p in factors]
    return torch.stack([torch.linalg.norm(g - torch.eye(len(g), device=g.device)) for g in grams]).mean()


def _zeros(model: Any) -> list[tuple[Any, Any]]:
    """Singular values [rank, 1] of every layer, and where they are zero."""
    found = [p for n, p in model.named_parameters() if ".lora_E." in n]
    return [(p, p.detach() == 0) for p in found]
