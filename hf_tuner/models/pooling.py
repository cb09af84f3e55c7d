"""Mean pooling for sentence encoders, inside an ordinary classifier.

`BertForSequenceClassification` and its kin read the first token. An encoder trained by sentence-transformers with mean
pooling keeps its meaning in the mean of all tokens: on 608 bundled messages a linear head on the first token gets
53 % right, on the mean 77 %. No class of transformers pools BERT that way, so the averaging is written as one more
encoder block with fixed weights: its attention looks at every token alike, its values are the identity, and its
feed-forward part adds nothing. What comes out at the first token is LayerNorm(mean of the tokens). The model stays an
ordinary one with `num_hidden_layers + 1`; anyone can load it without hf-tuner.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_tuner.errors import UsageError
from hf_tuner.models.safety import read_any_json

GAIN = 100.0
"""Weight of the mean against the residual in the block's LayerNorm: 1 % of the first token is left."""


def wants_mean(choice: str, source: str, revision: str | None) -> bool:
    """Whether a model is to be pooled by its mean: as asked ("mean", "first"), or as its own files say ("auto")."""
    if choice != "auto":
        return choice == "mean"
    found = side_file("1_Pooling/config.json", source, revision)
    # sentence-transformers 6 writes the mode by its name; earlier versions a flag for each.
    return isinstance(found, dict) and bool(
        found.get("pooling_mode_mean_tokens") or found.get("pooling_mode") == "mean"
    )


def can_pool(model: Any) -> bool:
    """Whether a classifier (on any device) has BERT's kind of blocks and reads the first token."""
    encoder = getattr(getattr(model, model.base_model_prefix, None), "encoder", None)
    blocks = getattr(encoder, "layer", None)
    if (
        not isinstance(blocks, nn.ModuleList)
        or getattr(model.config, "position_embedding_type", "absolute") != "absolute"
    ):
        return False
    names = ("attention.self.query", "attention.self.value", "attention.output.dense", "attention.output.LayerNorm",
             "intermediate.dense", "output.dense", "output.LayerNorm")  # fmt: skip
    return all(_has(blocks[-1], name) for name in names) and not _has(blocks[-1], "crossattention")


def one_more_layer(config: Any) -> Any:
    """The configuration with room for the averaging block."""
    config.num_hidden_layers += 1
    return config


def layer_name(model: Any) -> str:
    """Full name of the averaging block: the last one of the encoder."""
    blocks = getattr(model, model.base_model_prefix).encoder.layer
    return f"{model.base_model_prefix}.encoder.layer.{len(blocks) - 1}"


def write_mean(model: Any) -> None:
    """Set the weights of the last block so that it averages, and the pooler so that it passes features on.

    A pooler that was never trained with mean pooling starts as half the identity, where tanh is nearly linear.
    """
    block = model.get_submodule(layer_name(model))
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        attention = block.attention
        attention.self.value.weight.copy_(torch.eye(len(attention.self.value.weight)))
        attention.output.dense.weight.copy_(GAIN * torch.eye(len(attention.output.dense.weight)))
        attention.output.LayerNorm.weight.fill_(1.0)
        block.output.LayerNorm.weight.fill_(1.0)
        pooler = getattr(getattr(model, model.base_model_prefix), "pooler", None)
        if pooler is not None:
            pooler.dense.weight.copy_(0.5 * torch.eye(len(pooler.dense.weight)))
            pooler.dense.bias.zero_()


def freeze_mean(model: Any, name: str) -> None:
    """Keep the averaging block as it is under an adapter; it is saved all the same."""
    for key, parameter in model.named_parameters():
        if f".{name}." in f".{key}":
            parameter.requires_grad_(False)


def refuse(choice: str, model: Any) -> None:
    """Raise UsageError when mean pooling was asked for and this architecture has no place for it."""
    if choice == "mean":
        raise UsageError(f"--pooling mean: {type(model).__name__} has no blocks of BERT's kind; use --pooling auto")


def side_file(name: str, source: str, revision: str | None) -> Any:
    """What a small JSON file beside a checkpoint's weights holds, in a folder or on the Hub; None when there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    path: str | Path = Path(source) / name
    try:
        if not Path(source).is_dir():
            path = hf_hub_download(source, name, revision=revision)
        return read_any_json(Path(path), source)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError):
        return None


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True
