"""peft: any other tuner of the peft library, by its name and settings.

`--method peft --peft-type hra --peft-kwargs '{"r": 8}'`; names and settings are those of peft's configuration classes
(`peft.PeftType`). Types that cannot learn a task with a head of its own are refused with the reason. The learning rate
is LoRA's: most tuners need another one, so set it. Vision models take the types that adapt linear layers.
"""

from dataclasses import dataclass, fields
from typing import Any

from hf_tuner.catalog import nearest, unknown
from hf_tuner.config import Targets, option
from hf_tuner.errors import UsageError
from hf_tuner.methods._peft import attach_config, selected, target_option
from hf_tuner.methods._prompts import attach_prompt
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate"]

SAVES = "adapter"
GENERATION = "it is made for causal language models only"
TASK_IDS = "it needs a task id with every row"
REFUSED = {
    "adaption_prompt": GENERATION,
    "cpt": GENERATION,
    "poly": TASK_IDS,
    "multitask_prompt_tuning": TASK_IDS,
    "trainable_tokens": "it trains token embeddings only and leaves the new head frozen",
    "xlora": "it mixes adapters that were trained before",
    "shadow": "it runs a second model beside the first",
    "ia3": "its feed-forward layers must be named: use --method ia3",
    "ln_tuning": "it is for normalisation layers: use --method ln-tuning",
    "adalora": "its ranks must be allocated during training: use --method adalora",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which tuner, and its settings."""

    peft_type: str = option("hira", "Name of the tuner, as in peft.PeftType.")
    peft_kwargs: dict | None = option(None, 'Settings of its configuration class, as JSON: {"r": 8}.')
    target_modules: str | list = target_option()

    def __post_init__(self) -> None:
        """Raise ValueError for a tuner that cannot serve."""
        reason = REFUSED.get(self.peft_type.lower())
        if reason:
            raise ValueError(f"peft_type {self.peft_type} cannot be used here: {reason}")
        own = [
            k for k in ("target_modules", "modules_to_save", "peft_type", "task_type") if k in (self.peft_kwargs or {})
        ]
        if own:
            raise ValueError(f"peft_kwargs holds {own[0]}, which is set for you; use --target-modules to choose layers")


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, attach the tuner, train the head in full. Raises UsageError for an unknown name or setting."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {kind.value.lower(): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if config.peft_type.lower() not in known:
        usable = sorted(name for name in known if name not in REFUSED)
        raise UsageError(unknown("peft type", config.peft_type, usable))
    kind = known[config.peft_type.lower()]
    settings = _checked(kind, config)
    if "target_modules" in {f.name for f in fields(kind)}:
        return attach_config(model, kind, targets, target_modules=selected(targets), **settings)
    return attach_prompt(model, kind.__name__, targets, **settings)


def _checked(kind: Any, config: Config) -> dict[str, Any]:
    allowed = [f.name for f in fields(kind)]
    settings = config.peft_kwargs or {}
    for key in settings:
        if key not in allowed:
            close = nearest(key, allowed)
            hint = f'; did you mean "{close}"?' if close else f": {', '.join(allowed)}"
            raise UsageError(f'--peft-kwargs: {kind.__name__} has no setting "{key}"{hint}')
    return settings
