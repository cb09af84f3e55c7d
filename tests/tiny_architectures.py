"""Small models of every architecture, from configurations alone: on the meta device, or with a few real weights."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

SEQUENCE_CLASSIFIERS = tuple(sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES))
DEPTHS = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "num_encoder_layers",
    "num_decoder_layers", "num_self_attends_per_block", "depth",
)  # fmt: skip
KINDS = ("layer_types", "mlp_layer_types", "layers_block_type")
NEEDED = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}},
    "esm": {"vocab_size": 33},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 64},
    "hunyuan_v1_moe": {"head_dim": 64},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "ministral": {"head_dim": 64},
    "nemotron": {"num_key_value_heads": 8},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
}
"""What default configurations lack, or say about each of their many layers."""
BERT_LIKE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
LLAMA_LIKE = {**BERT_LIKE, "num_key_value_heads": 2, "pad_token_id": 0}
TINY = {
    "albert": {**BERT_LIKE, "embedding_size": 16},
    "bart": {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_layers": 2,
             "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "pad_token_id": 1, "eos_token_id": 2},
    "bert": BERT_LIKE,
    "deberta-v2": {**BERT_LIKE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {**BERT_LIKE, "embedding_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
    "llama": LLAMA_LIKE,
    "modernbert": {**BERT_LIKE, "pad_token_id": 0},
    "qwen2": LLAMA_LIKE,
    "roberta": BERT_LIKE,
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
           "eos_token_id": 2},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
}  # fmt: skip
"""A dozen families that are small enough to have real weights."""


def on_meta(model_type: str, num_labels: int = 3, auto: Any = AutoModelForSequenceClassification) -> Any:
    """A model of an auto class, of two layers (one of each kind), on the meta device, where widths cost nothing."""
    config = _shallow(CONFIG_MAPPING[model_type], NEEDED.get(model_type, {}))
    config.num_labels = num_labels
    with torch.device("meta"):
        return auto.from_config(config)


def tiny_config(model_type: str, **options: Any) -> PreTrainedConfig:
    """Configuration of one of the families in `TINY`."""
    return AutoConfig.for_model(model_type, vocab_size=99, **TINY[model_type], **options)


def _shallow(kind: Any, needed: dict[str, Any]) -> PreTrainedConfig:
    """The default configuration with two layers, or as many as there are kinds of layers."""
    default = kind()
    lists = {k: list(dict.fromkeys(v)) for k in KINDS if isinstance(v := default.__dict__.get(k), list) and v}
    layers = max([2, *(len(v) for v in lists.values())])
    changes: dict[str, Any] = {k: (v * layers)[:layers] for k, v in lists.items()}
    for name, value in default.__dict__.items():
        if name in DEPTHS and isinstance(value, int):
            changes[name] = layers
        elif isinstance(value, PreTrainedConfig):
            changes[name] = _shallow(type(value), {})
    return kind(**{**changes, **needed})
