"""What a model gives for encoded rows: batches of similar length, answers in row order, only what a task needs is kept."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from datasets import Image

from hf_tuner.console import Progress
from hf_tuner.errors import EnvironmentFault
from hf_tuner.machine import available

Kept = list[np.ndarray]
"""One array for each encoded row."""
WORTH_A_LOOK = 500_000_000
"""Bytes below which nobody asks what is free."""


def batches_by_length(rows: Any, batch_size: int) -> Iterator[np.ndarray]:
    """Row indices in batches of similar length, longest first: the first batch shows whether memory suffices."""
    lengths = np.asarray(rows.with_format(None)["length"])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def keep_outputs(
    model: Any,
    rows: Any,
    collate: Callable,
    outputs: Callable[[Any, dict[str, Any]], Kept],
    batch_size: int,
    *,
    alone: bool = False,
    each: Callable[[], Any] = lambda: None,
) -> Kept:
    """What `outputs` (a task's) keeps of every encoded row, in row order, without gradients and in evaluation mode.

    With several processes each takes its share of the batches and all get the whole result, unless `alone`; `each` is
    called before every batch. Raises EnvironmentFault when what is kept would not fit into memory.
    """
    rank, world = (0, 1) if alone else _rank_and_world()
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts: list[tuple[np.ndarray, Kept]] = []
    try:
        with torch.inference_mode():
            for index, batch in batches(rows, collate, batch_size, rank, world):
                each()  # at every batch, other processes' too: they may agree on something in it
                if batch is not None:
                    parts.append((index, outputs(model, to_device(batch, device))))
                if len(parts) == 1:
                    _require_room(parts[0][1], len(rows))
    finally:
        model.train(was_training)
    return _joined(_gathered(parts, world), len(rows))


Batches = Iterator[tuple[np.ndarray, dict[str, Any] | None]]
"""Row indices of every batch, and the batch where it is this process's."""


def batches(rows: Any, collate: Callable, batch_size: int, rank: int = 0, world: int = 1) -> Batches:
    """All batches by length, made where they are this rank's; of pictures the next one is made ahead."""
    order = ((index, k % world == rank) for k, index in enumerate(batches_by_length(rows, batch_size)))

    def make(index: np.ndarray, ours: bool) -> dict[str, Any] | None:
        return collate(take(rows, index)) if ours else None

    if any(isinstance(getattr(feature, "feature", feature), Image) for feature in rows.features.values()):
        return _ahead(order, make)
    return ((index, make(index, ours)) for index, ours in order)


def _ahead(
    order: Iterator[tuple[np.ndarray, bool]], make: Callable[[np.ndarray, bool], dict[str, Any] | None]
) -> Batches:
    """Each batch while a model looks at the one before: decoding pictures takes as long."""
    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[np.ndarray, Future] | None = None
        for index, ours in order:
            coming = index, pool.submit(make, index, ours)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def keep_told(what: str, model: Any, rows: Any, collate: Callable, outputs: Callable, batch_size: int) -> Kept:
    """As `keep_outputs`, which says how far it is when it takes long: writing texts does."""
    progress = Progress(what, -(-len(rows) // batch_size))
    kept = keep_outputs(model, rows, collate, outputs, batch_size, each=progress.step)
    progress.end()
    return kept


def _require_room(first: Kept, count: int) -> None:
    """Raise EnvironmentFault when what is kept of the first (longest) rows would not fit into memory for all of them."""
    need, free = count * max((row.nbytes for row in first), default=0), available()
    if need > WORTH_A_LOOK and need > free:
        raise EnvironmentFault(
            f"measuring {count:,} rows keeps up to {need / 1e9:.1f} GB, this machine has {free / 1e9:.1f} GB: "
            "measure fewer (--eval-dataset NAME#1000), or shorter ones (--max-length)"
        )


def take(rows: Any, index: Any) -> list[dict[str, Any]]:
    """Encoded rows at some indices, fetched in one go."""
    return rows.__getitems__([int(i) for i in index])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch's tensors on a device."""
    return {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}


def finite(kept: Kept) -> np.ndarray:
    """Which rows [rows] hold finite numbers only; a row that nothing was kept of does not."""
    return np.array([row is not None and bool(np.isfinite(row).all()) for row in kept], bool)


def _joined(parts: list[tuple[np.ndarray, Kept]], count: int) -> Kept:
    result: list[Any] = [None] * count
    for index, values in parts:
        for i, value in zip(index, values, strict=True):
            result[i] = value
    return result


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
