"""Logits of a model on encoded rows: batches of similar length, answers in row order."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch


def batches_by_length(rows: Any, batch_size: int) -> Iterator[np.ndarray]:
    """Row indices in batches of similar length, longest first: the first batch shows whether memory suffices."""
    lengths = np.asarray(rows.with_format(None)["length"])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def predict_logits(
    model: Any, rows: Any, collate: Callable, batch_size: int = 64, *, alone: bool = False
) -> np.ndarray:
    """Logits [rows, classes], float32, of every row, without gradients and in evaluation mode.

    With several processes each takes its share of the batches and all get the whole result, unless `alone`.
    """
    rank, world = (0, 1) if alone else _rank_and_world()
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    with torch.inference_mode():
        for number, index in enumerate(batches_by_length(rows, batch_size)):
            if number % world != rank:
                continue
            batch = to_device(collate(take(rows, index)), device)
            batch.pop("labels", None)
            parts.append((index, model(**batch).logits.float().cpu().numpy()))
    model.train(was_training)
    return _joined(_gathered(parts, world), len(rows))


def take(rows: Any, index: Any) -> list[dict[str, Any]]:
    """Encoded rows at some indices, fetched in one go."""
    return rows.__getitems__([int(i) for i in index])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch's tensors on a device."""
    return {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    width = parts[0][1].shape[1] if parts else 0
    logits = np.full((count, width), np.nan, np.float32)
    for index, values in parts:
        logits[index] = values
    return logits


def _gathered(parts: list, world: int) -> list:
    if world == 1:
        return parts
    shares: list = [None] * world
    torch.distributed.all_gather_object(shares, parts)
    return [part for share in shares for part in share]


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
