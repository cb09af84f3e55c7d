"""Models of two towers, one for pictures and one for texts, whose embeddings meet in one space: CLIP, SigLIP and their kin.

The losses are those they were trained with: the symmetric softmax (InfoNCE) of CLIP (Radford et al. 2021, arXiv
2103.00020) and the sigmoid of every pair of SigLIP (Zhai et al. 2023, arXiv 2303.15343). Both take the other rows of a
micro-batch for wrong answers, but for those that are right as well.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._picture_models import class_of

if TYPE_CHECKING:
    import torch

KIN = "CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, MetaCLIP 2 and VisionTextDualEncoder do"


def require_two_towers(config: Any) -> None:
    """Raise UsageError for a model that gives no embedding for a picture and one for a text."""
    kind = class_of(config, "AutoModel")
    both = hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")
    if not both or "return_loss" not in inspect.signature(kind.forward).parameters:
        raise UsageError(f"{config.model_type} has no two towers that put pictures and texts into one space; {KIN}")


def is_pairwise(model: Any) -> bool:
    """Whether a model judges every pair by itself, as SigLIP does: it then has a bias for how rare right pairs are."""
    return _weight(model, "logit_bias") is not None


def embeddings(model: Any, batch: Mapping[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
    """Embeddings [pictures, size] and [texts, size] in float32, of length 1."""
    outputs = model(**batch)
    return outputs["image_embeds"].float(), outputs["text_embeds"].float()


def logits(model: Any, pictures: "torch.Tensor", texts: "torch.Tensor") -> "torch.Tensor":
    """How well texts go with pictures [pictures, texts] in the model's own scale, in float32.

    The model gives them too, but under autocast in half precision, where logits of about 100 are rounded to a half.
    """
    import torch

    scale, heat, bias = (_weight(model, name) for name in ("logit_scale", "temperature", "logit_bias"))
    with torch.autocast(pictures.device.type, enabled=False):
        cosines = pictures @ texts.T
        scaled = cosines * scale.float().exp() if scale is not None else cosines / heat.float()  # type: ignore[union-attr]
        return scaled if bias is None else scaled + bias.float()


def contrastive(scores: "torch.Tensor", belongs: "torch.Tensor", pairwise: bool) -> "torch.Tensor":
    """The loss summed over rows, from logits [rows, rows] of every picture with every row's caption.

    `belongs` [rows, rows] says which captions are right for a picture. A row's own is what it learns; the others are
    neither right nor wrong. Of the softmax it is the mean of both directions.
    """
    import torch
    from torch.nn import functional

    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    never = belongs & ~own
    if pairwise:
        signs = own.float() * 2 - 1
        return -functional.logsigmoid(scores * signs).masked_fill(never, 0.0).sum()
    right = torch.arange(len(scores), device=scores.device)
    left = scores.masked_fill(never, -torch.inf)
    back = scores.T.masked_fill(never.T, -torch.inf)
    both = functional.cross_entropy(left, right, reduction="sum") + functional.cross_entropy(
        back, right, reduction="sum"
    )
    return both / 2


def belonging(pictures: Sequence[str], known: Sequence[Any], dealt: Sequence[Any]) -> "torch.Tensor":
    """Which dealt caption is right for which row's picture [rows, rows].

    Right are all captions of a row (`known`, some each) and of every other row with the same picture.
    """
    import torch

    captions: dict[str, set[Any]] = {}
    for picture, own in zip(pictures, known, strict=True):
        captions.setdefault(picture, set()).update(own)
    columns: dict[Any, list[int]] = {}
    for column, caption in enumerate(dealt):
        columns.setdefault(caption, []).append(column)
    belongs = torch.zeros(len(pictures), len(dealt), dtype=torch.bool)
    for row, picture in enumerate(pictures):
        belongs[row, [column for caption in captions[picture] for column in columns.get(caption, ())]] = True
    return belongs


def picture_key(value: Mapping[str, Any]) -> str:
    """What tells a stored picture, {"bytes", "path"}, from another one: a digest of its file."""
    data = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _weight(model: Any, name: str) -> Any:
    """The weight that hangs on the model itself under a name, whatever is wrapped around it; None when there is none."""
    return next((p for n, p in model.named_parameters() if n.rpartition(".")[2] == name), None)
