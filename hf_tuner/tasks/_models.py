"""Which models can do a task on language, told by their configuration before any weight is read."""

from typing import Any

from hf_tuner.errors import UsageError

DECODERS = "a decoder such as Llama, Qwen or GPT"
ENCODERS = "an encoder such as BERT or ModernBERT"


def sees_both_ways(config: Any) -> bool:
    """Whether a configuration is that of an encoder alone: every token is read with what stands behind it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    one_way = any(getattr(config, name, False) for name in ("is_decoder", "causal", "is_encoder_decoder"))
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not one_way


def require_decoder(config: Any, model: str, task: str) -> None:
    """Raise UsageError for a model that does not write on from what it has read; `task` is what it was wanted for."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(config, "auto_map", None):
        return  # code of its own says what it can
    if sees_both_ways(config):
        raise UsageError(f"--model {model}: {config.model_type} is an encoder that sees both ways and cannot write on from what it "
                         f"has read. To go on pretraining it: --task masked-lm; for {task} take {DECODERS}")  # fmt: skip
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UsageError(f"--model {model}: {_kind(config)}, and {task} needs {DECODERS}{_instead(config)}")


def require_encoder(config: Any, model: str, task: str) -> None:
    """Raise UsageError for a model without a layer that guesses hidden words."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if getattr(config, "auto_map", None) or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return
    raise UsageError(f"--model {model}: {_kind(config)}, and {task} needs {ENCODERS}{_instead(config)}")


def _kind(config: Any) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return f"{config.model_type} is an encoder with a decoder"
    writes = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return f"{config.model_type} is {'a decoder that writes' if writes else 'no language model'}"


def _instead(config: Any) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return "; for this one: --task summarization or translation"
    return "; to go on pretraining this one: --task causal-lm" * (
        config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )
