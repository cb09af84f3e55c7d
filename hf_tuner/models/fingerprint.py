"""A short identity of a base model, so that an adapter is never put on another base unnoticed."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

VOLATILE = ("num_labels", "id2label", "label2id", "problem_type", "_name_or_path", "transformers_version", "dtype",
            "architectures", "pad_token_id", "quantization_config", "torch_dtype", "use_cache")  # fmt: skip
SAMPLED = 6


def base_fingerprint(model: Any, skip: Sequence[str] = ()) -> str:
    """16 hex digits from the shape-giving configuration and the bytes of a few weights.

    Weights below the modules named in `skip` (the head) are left out, and so are quantised ones: a fingerprint
    taken on a 4-bit model sees the embeddings and norms, which are not quantised.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in VOLATILE}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in _sampled(model, skip):
        digest.update(name.encode())
        digest.update(tensor.detach().float().flatten()[:4096].cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _sampled(model: Any, skip: Sequence[str]) -> list[tuple[str, Any]]:
    """Vectors (norms, biases) and the embedding: present and unquantised in every form of the same base."""
    plain = [
        (name, p)
        for name, p in sorted(model.named_parameters())
        if (p.ndim == 1 or "embed" in name) and not any(name == s or name.startswith(f"{s}.") for s in skip)
    ]
    step = max(1, len(plain) // SAMPLED)
    return plain[::step][: SAMPLED + 1]
