"""A detector's own loss as a sum over boxes, and its outputs as boxes with scores.

transformers divides box losses by the boxes of the batch, in several processes by a mean over them that it divides once
more, and the softmax class loss by the weight of all queries. Averages of averages: an update would depend on how its
pictures are cut into batches. Here every part becomes a sum; whoever calls divides by the boxes of the whole update.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

MOST = 100
"""Detections that are kept of a picture, as COCO counts."""


def targets(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the models of transformers take as labels: {"class_labels" [boxes], "boxes" [boxes, 4]} for each picture."""
    known = batch["class_labels"].ge(0)
    return [{"class_labels": ids[k], "boxes": boxes[k]}
            for ids, boxes, k in zip(batch["class_labels"], batch["boxes"], known, strict=True)]  # fmt: skip


def inputs(model: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the model reads: pixels, and their mask where it takes one."""
    takes = inspect.signature(bare(model).forward).parameters
    return {name: batch[name] for name in ("pixel_values", "pixel_mask") if name in takes}


def bare(model: Any) -> Any:
    """The transformers model inside wrappers of torch and peft."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def summed_loss(model: Any, batch: Mapping[str, Any], density: float) -> Any:
    """The loss as a sum over boxes, a scalar tensor.

    The class loss of models with a class "nothing" is a mean over queries, weighted by class; its sum is divided by the
    weight that a box has on average in pictures with `density` boxes. So it is on the same scale, and additive.
    """
    labels = targets(batch)
    with _boxes_of_this_batch():
        made = model(**inputs(model, batch), labels=labels)
    boxes = max(1, sum(len(one["class_labels"]) for one in labels))
    total = made["loss"] * boxes
    config, logits = bare(model).config, made["logits"]
    if is_softmax(logits, config):
        queries, nothing = logits.shape[1], float(config.eos_coefficient)
        found = sum(min(queries, len(one["class_labels"])) for one in labels)
        weight = nothing * (queries * len(labels) - found) + found
        usual = nothing * (queries - min(queries, density)) + min(queries, density)
        classes = sum(value for name, value in made["loss_dict"].items() if name.startswith("loss_ce"))
        total = total + classes * (weight * density / usual - boxes)
    return total if bool(batch["counted"].any()) else total * 0


def is_softmax(logits: Any, config: Any) -> bool:
    """Whether the last of the logits stands for "nothing"."""
    return bool(logits.shape[-1] == len(config.id2label) + 1)


def detections(made: Any, config: Any, sizes: Any) -> Any:
    """The likeliest boxes of each picture [pictures, detections, 6]: corners in pixels, score, class.

    As `post_process_object_detection` of the models' processors: one class a query where "nothing" is a class, else the
    likeliest pairs of query and class. They keep the order of the queries, so that two runs compare. `sizes` [pictures, 2]
    are height and width in pixels.
    """
    import torch

    logits, boxes = made["logits"].float(), made["pred_boxes"].float()
    if is_softmax(logits, config):
        score, label = logits.softmax(-1)[..., :-1].max(-1)
        queries = torch.arange(score.shape[1], device=score.device).expand_as(score)
    else:
        score = logits.sigmoid().flatten(1)
        pairs = torch.arange(score.shape[1], device=score.device).expand_as(score)
        queries, label = pairs // logits.shape[-1], pairs % logits.shape[-1]
    top = score.topk(min(MOST, score.shape[1]), dim=1).indices.sort(dim=1).values
    score, label, queries = (one.gather(1, top) for one in (score, label, queries))
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = torch.cat([centre - half, centre + half], dim=-1) * sizes.flip(1).repeat(1, 2)[:, None].float()
    corners = corners.gather(1, queries[..., None].expand(-1, -1, 4))
    return torch.cat([corners, score[..., None], label[..., None].float()], dim=-1)


@contextmanager
def _boxes_of_this_batch() -> Iterator[None]:
    """Let the loss count the boxes of its own batch only, without asking the other processes."""
    from transformers.loss import loss_for_object_detection as module

    known = module.is_accelerate_available
    module.is_accelerate_available = lambda: False  # type: ignore[assignment]
    try:
        yield
    finally:
        module.is_accelerate_available = known
