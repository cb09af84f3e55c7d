"""A short identity of a base model, so that an adapter is never put on another base unnoticed."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

VOLATILE = ("num_labels", "id2label", "label2id", "problem_type", "_name_or_path", "transformers_version", "dtype",
            "architectures", "pad_token_id", "quantization_config", "torch_dtype", "use_cache")  # fmt: skip
SAMPLED = 256
"""About how many numbers of each weight are looked at."""


def base_fingerprint(model: Any, skip: Sequence[str] = ()) -> str:
    """16 hex digits from the shape-giving configuration and some numbers of every weight; 8 for a quantised model.

    Weights below the modules named in `skip` (the head) are left out. The second half speaks for the matrices, which
    quantisation changes.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in VOLATILE}
    vectors, matrices = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()), hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if any(name == s or name.startswith(f"{s}.") for s in skip):
            continue
        (vectors if weight.ndim == 1 or "embed" in name else matrices).update(name.encode() + _some(weight))
    quantized = bool(getattr(model, "is_quantized", False))
    return vectors.hexdigest()[:8] + ("" if quantized else matrices.hexdigest()[:8])


def same_base(found: str, expected: str) -> bool:
    """Whether two fingerprints can be of one base: a quantised one speaks for its first half only."""
    length = min(len(found), len(expected))
    return found[:length] == expected[:length]


def weights_digest(model: Any) -> str:
    """Digest of some numbers of every weight and buffer, head included: the key of what is computed with this very model."""
    digest = hashlib.sha256()
    for name, weight in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(name.encode() + _some(weight))
    return digest.hexdigest()


def _some(weight: Any) -> bytes:
    flat = weight.detach().flatten()
    return flat[:: max(1, len(flat) // SAMPLED)].float().cpu().numpy().tobytes()
