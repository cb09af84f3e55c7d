"""A segmenter's own loss as a sum over masks, and its outputs as segments.

transformers divides mask losses by the masks of the batch (in several processes by a mean over them) and the class loss by
the weight of all queries, and draws the points at which masks are compared from the process's random numbers. Here every
part is a sum, picture by picture, and each picture draws by a seed of its own: an update depends neither on how its
pictures are cut into batches nor on what was drawn before. Whoever calls divides by the masks of the whole update.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._box_loss import bare

MOST = 100
"""Segments that are kept of a picture, as COCO counts."""
KINDS = ("mask2former", "maskformer", "eomt", "eomt_dinov3")
"""Model types whose outputs are classes and masks of queries, and whose loss is matched masks and nothing else."""
AT_ONCE = 16
"""Masks that are brought to a picture's size together."""


def require_known(config: Any, image_size: int) -> None:
    """Raise UsageError for a model that is trained otherwise, or that reads pictures of one size only."""
    kind = getattr(config, "model_type", "")
    if kind not in KINDS:
        more = ": it reads a text with each picture" if kind == "oneformer" else ""
        raise UsageError(f"a model of type {kind or 'unknown'} is not among those whose masks can be trained{more}; expected "
                         f"{', '.join(KINDS)}, such as facebook/mask2former-swin-tiny-coco-instance")  # fmt: skip
    own = getattr(config, "image_size", 0)
    if kind.startswith("eomt") and image_size and image_size != own:
        raise UsageError(f"--image-size {image_size}: this model reads pictures of {own} pixels only; leave it out")


def summed_loss(model: Any, batch: Mapping[str, Any], density: float) -> Any:
    """The loss as a sum over masks, a scalar tensor.

    The class loss is a mean over queries, weighted by class; its sum is divided by the weight that a mask has on average
    in pictures with `density` masks. So it is on the same scale as the model's own, and additive.
    """
    known = batch["class_labels"].ge(0)
    labels = [ids[k] for ids, k in zip(batch["class_labels"], known, strict=True)]
    masks = [one[k].float() for one, k in zip(batch["mask_labels"], known, strict=True)]
    with _by_picture(bare(model).criterion, batch["seeds"].tolist(), density):
        total = model(pixel_values=batch["pixel_values"], mask_labels=masks, class_labels=labels)["loss"]
    return total if bool(batch["counted"].any()) else total * 0


@contextmanager
def _by_picture(criterion: Any, seeds: list[int], density: float) -> Iterator[None]:
    """Let a criterion give sums over masks, one picture at a time."""
    criterion.forward = _sums(criterion, seeds, density)
    try:
        yield
    finally:
        del criterion.forward  # the class's own is there again


def _sums(criterion: Any, seeds: list[int], density: float) -> Callable[..., dict[str, Any]]:
    import torch

    def forward(masks_queries_logits: Any, class_queries_logits: Any, mask_labels: Any, class_labels: Any,
                auxiliary_predictions: Any = None) -> dict[str, Any]:  # fmt: skip
        layers = [{"masks_queries_logits": masks_queries_logits, "class_queries_logits": class_queries_logits}]
        total: dict[str, Any] = {}
        devices = [masks_queries_logits.device] if masks_queries_logits.device.type == "cuda" else []
        for place, seed in enumerate(seeds):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed)
                for layer, made in enumerate([*layers, *(auxiliary_predictions or [])]):
                    end = f"_{layer - 1}" if layer else ""
                    masks, classes = (made[name][place : place + 1].float() for name in layers[0])
                    right = mask_labels[place], class_labels[place]
                    for name, value in _of_picture(criterion, (masks, classes), right, density).items():
                        total[name + end] = total[name + end] + value if name + end in total else value
        return total

    return forward


def _of_picture(criterion: Any, given: tuple[Any, Any], right: tuple[Any, Any], density: float) -> dict[str, Any]:
    """The unweighted losses of one picture's queries (their mask and class logits), summed over its masks."""
    (masks, classes), (mask_labels, class_labels) = given, right
    indices = criterion.matcher(masks, classes, [mask_labels], [class_labels])
    queries, found = classes.shape[1], min(classes.shape[1], len(class_labels))
    nothing = float(criterion.eos_coef)
    weight = nothing * (queries - found) + found
    usual = nothing * (queries - min(queries, density)) + min(queries, density)
    made = criterion.loss_labels(classes, [class_labels], indices)
    made = {name: value * (weight * density / usual) for name, value in made.items()}
    if found:
        return {**criterion.loss_masks(masks, [mask_labels], indices, 1), **made}
    return {"loss_mask": masks.sum() * 0, "loss_dice": masks.sum() * 0, **made}


def resized(logits: Any, canvas: Any, inside: tuple[int, int], size: tuple[int, int]) -> Any:
    """Mask logits [masks, height, width] of a padded picture in the picture's own size."""
    from torch.nn import functional

    if tuple(inside) != tuple(canvas):
        logits = functional.interpolate(logits[None], tuple(canvas), mode="bilinear", align_corners=False)[0]
        logits = logits[:, : inside[0], : inside[1]]
    return functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]


def instances(classes: Any, masks: Any, at_size: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    """The likeliest pairs of query and class of one picture: masks bool [n, height, width], scores and classes [n].

    A score is the class's probability times the mean probability inside the mask, as Mask2Former's authors have it. Pairs
    keep the order of the queries, so that two runs compare; those without a pixel are left out.
    """
    import torch

    chances = classes.float().softmax(-1)[:, :-1]
    pairs = chances.flatten().topk(min(MOST, chances.numel())).indices.sort().values
    queries, label = pairs // chances.shape[1], pairs % chances.shape[1]
    score, made = chances.flatten()[pairs], []
    inside = torch.zeros_like(score)
    for start in range(0, len(pairs), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        logits = at_size(masks[queries[part]].float())
        mask = logits > 0
        made.append(mask.cpu())
        inside[part] = (logits.sigmoid() * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    whole = torch.cat(made)
    there = whole.flatten(1).any(1)
    return whole[there].numpy(), (score * inside).cpu()[there].numpy(), label.cpu()[there].numpy()


def panoptic(classes: Any, masks: Any, at_size: Callable[[Any], Any], stuff: set[int], limits: tuple[float, float],
             ) -> tuple[Any, Any, Any]:  # fmt: skip
    """Segments of one picture that share no pixel: masks bool [n, height, width], scores and classes [n].

    `limits` are the probability of a class from which a query counts, and the share of its mask that must not lie behind
    others. Each pixel goes to the query of the largest probability of class times mask; queries of the same class of
    `stuff` are one segment. So Mask2Former's authors have it (Cheng et al. 2022, arXiv 2112.01527).
    """
    import torch

    chances, label = classes.float().softmax(-1).max(-1)
    sure = (label < classes.shape[1] - 1) & (chances > limits[0])
    chances, label = chances[sure], label[sure]
    height, width = at_size(masks[:1].float()).shape[1:]
    owner = torch.full((height, width), -1, device=masks.device)
    best = torch.zeros(height, width, device=masks.device)
    own, kept = masks[sure], []
    for index in range(len(label)):  # one mask at a time: all at a picture's size may not fit
        chance = at_size(own[index : index + 1].float()).sigmoid()[0] * chances[index]
        owner[chance > best] = index
        best = torch.maximum(best, chance)
    for index in range(len(label)):
        whole = at_size(own[index : index + 1].float())[0] >= 0
        mine = owner == index
        if (mine & whole).any() and int(mine.sum()) >= limits[1] * int(whole.sum()):
            kept.append((mine & whole, float(chances[index]), int(label[index])))
    return _fused(kept, stuff, (height, width))


def _fused(kept: list[tuple[Any, float, int]], stuff: set[int], size: tuple[int, int]) -> tuple[Any, Any, Any]:
    import numpy as np

    made: dict[int, list[Any]] = {}
    for place, (mask, score, label) in enumerate(kept):
        key = -1 - label if label in stuff else place
        before = made.get(key)
        made[key] = [mask if before is None else before[0] | mask, max(score, before[1] if before else 0.0), label]
    whole = [one[0].cpu().numpy() for one in made.values()]
    return (np.stack(whole) if whole else np.zeros((0, *size), bool),
            np.array([one[1] for one in made.values()]), np.array([one[2] for one in made.values()], np.int64))  # fmt: skip
