"""Batches of similar length, in an order that depends on nothing but the seed, the epoch and the global batch.

Padding is the largest waste of a text run: sorting by length within windows removes nearly all of it, and shuffling
whole batches keeps training random. One process with batch 8, four micro-batches of 2, and two processes with
batch 4 see the same rows in the same updates.
"""

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler, get_worker_info

from hf_tuner.errors import UsageError
from hf_tuner.faults import die_with_parent, plainly

WINDOW = 50
"""Batches that are sorted together; larger pads less and mixes less."""
EPOCH = 1 << 40
"""An index is epoch × EPOCH + row: data workers learn the epoch with the row, also those that outlive one."""


class Rows(Dataset):
    """Encoded rows with their number and epoch. A row past the end is filler: row 0 with its labels masked out."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.alone = False

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Rows at several indices at once, which is how a DataLoader asks."""
        if not self.alone and get_worker_info() is not None:
            die_with_parent(signal.SIGKILL)  # a data worker that hangs would outlive a killed run
            self.alone = True
        places = [divmod(index, EPOCH) for index in indices]
        count = len(self.data)
        rows = self._fetch([i if i < count else 0 for _, i in places])
        return [{**row, "row": i, "epoch": epoch} if i < count else {**filler(row), "epoch": epoch}
                for (epoch, i), row in zip(places, rows, strict=True)]  # fmt: skip

    def _fetch(self, indices: list[int]) -> list[dict[str, Any]]:
        try:
            return self.data.__getitems__(indices)
        except Exception as error:
            if plainly(error) is not error:
                raise
            for index in indices:
                try:
                    self.data.__getitems__([index])
                except Exception as alone:
                    said = f"row {index} (counted from 0): {type(alone).__name__}: {alone}"
                    raise UsageError(said) from error
            raise


class LengthBatches(Sampler[int]):
    """Row numbers in training order: every run of `update` numbers makes one optimiser update.

    `multiple` (processes × rows per process) is what the loader cuts at once: the last update is filled up to it
    with numbers past the end, which `Rows` turns into masked rows, so that no row is ever counted twice. Numbers carry
    the epoch (see `EPOCH`).
    """

    def __init__(self, lengths: np.ndarray, *, update: int, multiple: int = 1, seed: int = 0) -> None:
        self.lengths, self.update, self.multiple, self.seed, self.epoch = lengths, update, multiple, seed, 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.multiple) * self.multiple

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is dealt next."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """The rows of the epoch, without filler."""
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        span = WINDOW * self.update
        windows = [order[i : i + span] for i in range(0, len(order), span)]
        ordered = np.concatenate([w[np.argsort(self.lengths[w], kind="stable")] for w in windows]) if windows else order
        whole = len(ordered) // self.update * self.update
        batches = ordered[:whole].reshape(-1, self.update)
        return [*batches[random.permutation(len(batches))].ravel().tolist(), *ordered[whole:].tolist()]

    def __iter__(self) -> Iterator[int]:
        first, order = self.epoch * EPOCH, self.order()
        yield from (first + row for row in order)
        yield from range(first + len(order), first + len(self))


def filler(row: dict[str, Any]) -> dict[str, Any]:
    """A row that no loss and no count sees."""
    return {**row, **({"labels": masked(row["labels"])} if "labels" in row else {}), "row": -1}


def masked(label: Any) -> Any:
    """A label, or a nested list of labels, that no loss and no count sees."""
    return [masked(one) for one in label] if isinstance(label, list) else -100
