"""Encoded rows of a stream in training order: what `batching` does for rows at hand, window after window."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from datasets import concatenate_datasets
from torch.utils.data import IterableDataset

from hf_tuner.data.streams import Stream
from hf_tuner.training.batching import LengthBatches


class StreamedRows(IterableDataset):
    """Rows without end, each update's together, in an order that depends on seed and stream alone.

    Every window is encoded, sorted by length within itself, and dealt in whole updates; what is left over goes into the
    next. When the data ends it begins again.
    """

    def __init__(self, stream: Stream, head: Any, encode: Callable[[Any], Any], update: int, seed: int) -> None:
        self.stream, self.head, self.encode, self.update, self.seed = stream, head, encode, update, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        left, number, window = None, 0, 0
        while True:
            for rows in self.stream.windows(self.head):
                ready = self.encode(rows)
                ready = ready if left is None else concatenate_datasets([left, ready])
                order = LengthBatches(np.asarray(ready.with_format(None)["length"]), update=self.update, seed=self.seed)
                order.set_epoch(window)
                dealt = order.order()
                whole = len(dealt) // self.update * self.update
                for start in range(0, whole, self.update):
                    chosen = dealt[start : start + self.update]
                    for index, row in zip(chosen, ready.__getitems__(chosen), strict=True):
                        yield {**row, "row": number + index, "epoch": 0}
                left = ready.select(sorted(dealt[whole:])) if whole < len(dealt) else None
                number, window = number + whole, window + 1
