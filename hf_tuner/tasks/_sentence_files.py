"""The small files by which sentence-transformers opens a model: what they say of a checkpoint, and how they are written.

Formats of sentence-transformers 6; what earlier versions wrote is read as well.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hf_tuner.errors import UsageError

if TYPE_CHECKING:
    import torch

Read = Callable[[str], Any]
"""What a JSON file beside a checkpoint's weights holds, None where there is none."""
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MODES = tuple(OLD_MODES.values())
SIZES = ("hidden_size", "dim", "n_embd", "d_model")
"""What configurations call the size of a token's state."""
MODULES = ("Transformer", "Pooling", "Normalize")
ROOMS = {
    "Transformer": "sentence_transformers.base.modules.transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling",
    "Normalize": "sentence_transformers.base.modules.normalize",
}


def require_usable(read: Read) -> int:
    """The size of a checkpoint's embeddings.

    Raises UsageError for what has more modules than a transformer, a pooling and a normalisation, or a decoder beside
    its encoder, or does not say its size.
    """
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in _modules(read)]
    other = [kind for kind in kinds if kind not in MODULES]
    if other:
        raise UsageError(f"--model: its modules.json names a {other[0]} module after the transformer, which is not trained here; "
                         "use a model of a transformer and a pooling (and a normalisation)")  # fmt: skip
    config = read("config.json") or {}
    if config.get("is_encoder_decoder"):
        raise UsageError(f"--model: {config.get('model_type')} has a decoder, which embeddings do not need; use an encoder (BERT, "
                         "MiniLM, XLM-R, ModernBERT …) or a decoder-only model")  # fmt: skip
    for settings in (config, config.get("text_config") or {}):
        for name in SIZES:
            if isinstance(settings.get(name), int):
                return int(settings[name])
    raise UsageError(f"--model: its config.json does not say how large its embeddings are (none of {', '.join(SIZES)})")


def pooling_of(read: Read) -> str:
    """How a checkpoint pools. Raises UsageError for several ways at a time."""
    found = read("1_Pooling/config.json")
    if not isinstance(found, dict):
        return "mean"
    mode = found.get("pooling_mode") or [name for flag, name in OLD_MODES.items() if found.get(flag)] or "mean"
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) != 1 or modes[0] not in MODES:
        raise UsageError(f"--model: it pools by {' and '.join(map(str, modes))}; one of {', '.join(MODES)} can be trained here "
                         "(--pooling mean replaces it)")  # fmt: skip
    return str(modes[0])


def normalizes(read: Read) -> bool:
    """Whether a checkpoint scales its embeddings to length 1."""
    return any(str(module.get("type", "")).endswith("Normalize") for module in _modules(read))


def pool(states: "torch.Tensor", mask: "torch.Tensor", mode: str) -> "torch.Tensor":
    """States [texts, tokens, size] as embeddings [texts, size]; `mask` [texts, tokens] is 1 where there is a token."""
    if mode == "cls":
        # The first token: not the first place, where padding stands in front.
        return states[range(len(mask)), mask.argmax(dim=1)]
    if mode == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling

    pooled = Pooling(states.shape[-1], pooling_mode=mode)({"token_embeddings": states, "attention_mask": mask})  # type: ignore[arg-type]
    return pooled["sentence_embedding"]


def pooling_code(mode: str) -> tuple[str, ...]:
    """Lines that make `embeddings` of `states` [texts, tokens, size] and `mask` [texts, tokens, 1]."""
    if mode == "mean":
        return ("embeddings = (states * mask).sum(dim=1) / mask.sum(dim=1)",)
    if mode == "cls":
        return ("embeddings = states[range(len(texts)), mask[:, :, 0].argmax(dim=1)]",)
    return (
        "from sentence_transformers.sentence_transformer.modules import Pooling",
        f'pooling = Pooling(states.shape[-1], pooling_mode="{mode}")',
        'found = pooling({"token_embeddings": states, "attention_mask": mask[:, :, 0]})',
        'embeddings = found["sentence_embedding"]',
    )


def bi_encoder(pooling: str, size: int, normalize: bool, max_length: int) -> dict[str, str]:
    """Name → text of the files of an embedding model."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    whole: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    return {
        "modules.json": _module_list(modules),
        "config_sentence_transformers.json": _text(whole),
        "sentence_bert_config.json": _transformer(
            "feature-extraction", "last_hidden_state", "token_embeddings", max_length
        ),
        "1_Pooling/config.json": _text({"embedding_dimension": size, "pooling_mode": pooling, "include_prompt": True}),
        **({"2_Normalize/config.json": _text(NORMALIZED)} if normalize else {}),
    }


NORMALIZED = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def cross_encoder(max_length: int) -> dict[str, str]:
    """Name → text of the files of a reranker, whose scores are squashed to 0 … 1."""
    whole: dict[str, Any] = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None,
             "activation_fn": "torch.nn.modules.activation.Sigmoid"}  # fmt: skip
    return {
        "modules.json": _module_list([("Transformer", "")]),
        "config_sentence_transformers.json": _text(whole),
        "sentence_bert_config.json": _transformer("sequence-classification", "logits", "scores", max_length),
    }


def _modules(read: Read) -> list[dict[str, Any]]:
    found = read("modules.json")
    return [module for module in found if isinstance(module, dict)] if isinstance(found, list) else []


def _module_list(modules: list[tuple[str, str]]) -> str:
    return _text([
        {"idx": number, "name": str(number), "path": path, "type": f"{ROOMS[kind]}.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ])  # fmt: skip


def _transformer(task: str, output: str, name: str, max_length: int) -> str:
    text = {"method": "forward", "method_output_name": output}
    return _text({"transformer_task": task, "modality_config": {"text": text}, "module_output_name": name,
                  "max_seq_length": max_length})  # fmt: skip


def _text(data: Any) -> str:
    return json.dumps(data, indent=2) + "\n"
