"""Rows on disk instead of in memory: what grows past a limit goes into an unnamed file that is mapped.

The file has no name, so it is gone when the process is, however that ends. Pages that were looked at are given back
now and then, so that a pass over many rows does not count as memory.
"""

import contextlib
import mmap
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features
from datasets.fingerprint import generate_random_fingerprint

from hf_tuner.errors import EnvironmentFault

BATCH = 10_000
"""Rows that are looked at together."""
SPILL = 64_000_000
"""Bytes of rows that are held in memory before they move into a file."""
FORGET = 50
"""Batches after which pages are given back."""
_OPEN: list[weakref.ref] = []


class Shelf:
    """Takes tables one after the other and gives them back together, from memory or from a mapped file."""

    def __init__(self) -> None:
        self.held: list[pa.Table] = []
        self.size = 0
        self.file: Any = None
        self.parts: list[tuple[int, int]] = []

    def put(self, table: pa.Table) -> None:
        """Add rows. Raises EnvironmentFault when the disk is full."""
        self.held.append(table)
        self.size += table.nbytes
        if self.file is not None or self.size > SPILL:
            self._write()

    def tables(self) -> list[pa.Table]:
        """All tables in their order."""
        if self.file is None:
            return self.held
        with _no_room(), self.file as file:
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _OPEN.append(weakref.ref(mapped, _OPEN.remove))
        buffer = pa.py_buffer(mapped)
        return [pa.ipc.open_stream(buffer.slice(start, size)).read_all() for start, size in self.parts]

    def _write(self) -> None:
        with _no_room():
            if self.file is None:
                self.file = tempfile.TemporaryFile(prefix="hf-tuner-rows-")  # noqa: SIM115 - closed by tables()
            for table in self.held:
                start = self.file.tell()
                with pa.ipc.new_stream(self.file, table.schema) as stream:
                    stream.write_table(table)
                end = self.file.tell()
                self.parts.append((start, end - start))
                self.file.write(bytes(-end % 64))
        self.held = []


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            f"the rows do not fit into {tempfile.gettempdir()}: {error.strerror or error}; free space there, or set TMPDIR "
            "to another folder"
        ) from error


def dataset(tables: Iterable[pa.Table], features: Features | None = None) -> Dataset:
    """Rows of tables of one schema, without copying them."""
    whole = pa.concat_tables(list(tables))
    # Without a fingerprint given, `datasets` would pickle the whole table to make one.
    return Dataset(whole, info=DatasetInfo(features=features), fingerprint=generate_random_fingerprint())


def batches(rows: Dataset, columns: list[str]) -> Iterator[tuple[int, Mapping[str, pa.Array]]]:
    """(index of the first row, Arrow arrays by column) for every `BATCH` rows."""
    narrow = rows.select_columns(columns).with_format("arrow")
    for number, start in enumerate(range(0, rows.num_rows, BATCH)):
        table = narrow[start : start + BATCH].combine_chunks()
        for part in table.to_batches():  # several when there is more text than one array can hold
            yield start, dict(zip(part.schema.names, part.columns, strict=True))
            start += part.num_rows
        if number % FORGET == FORGET - 1:
            forget()


def column(rows: Dataset, name: str) -> Iterator[tuple[int, pa.Array]]:
    """(index of the first row, Arrow array) for every `BATCH` rows of a column."""
    yield from ((start, arrays[name]) for start, arrays in batches(rows, [name]))


def numbers(rows: Dataset, name: str) -> np.ndarray:
    """A numeric column [rows]."""
    parts = [array.to_numpy(zero_copy_only=False) for _, array in column(rows, name)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def forget() -> None:
    """Give the pages of all mapped rows back; they are read again from the file when they are needed."""
    for reference in list(_OPEN):
        mapped = reference()
        if mapped is not None and hasattr(mapped, "madvise"):
            with contextlib.suppress(OSError, ValueError):
                mapped.madvise(mmap.MADV_DONTNEED)
