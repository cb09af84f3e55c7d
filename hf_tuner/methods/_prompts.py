"""What prompt tuning, p-tuning and prefix tuning share."""

from typing import Any

from hf_tuner.config import Targets
from hf_tuner.methods._peft import attach_config, task_type


def attach_prompt(model: Any, name: str, targets: Targets, **settings: Any) -> Any:
    """Freeze the model, put virtual tokens before every text, train the head in full.

    Outputs for each token begin with those for the virtual ones: tasks that read them take the last ones.
    """
    import peft

    return attach_config(model, getattr(peft, name), targets, task_type=task_type(model), **settings)
