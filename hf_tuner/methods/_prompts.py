"""What prompt tuning, p-tuning and prefix tuning share."""

from typing import Any

from hf_tuner.config import Targets
from hf_tuner.errors import UsageError
from hf_tuner.methods._peft import attach_config, task_type

WITHOUT_TOKENS = "peft does not line labels of tokens up with virtual tokens; use --method prefix or lora"


def attach_prompt(model: Any, name: str, targets: Targets, *, tokens: bool = False, **settings: Any) -> Any:
    """Freeze the model, put virtual tokens before every text, train the head in full.

    `tokens` says whether the method can serve token classification. Raises UsageError where it cannot.
    """
    import peft

    kind = task_type(model)
    if kind == "TOKEN_CLS" and not tokens:
        raise UsageError(f"--method does not work for {type(model).__name__}: {WITHOUT_TOKENS}")
    if kind == "SEQ_2_SEQ_LM" and not tokens:
        settings["num_transformer_submodules"] = 1  # peft would make tokens for the decoder too, and never use them
    return attach_config(model, getattr(peft, name), targets, task_type=kind, **settings)
