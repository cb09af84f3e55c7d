"""A name for the content of a data set: the same rows give the same name wherever the file lies."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Audio, Dataset, Image

ROWS = 10_000
"""Rows hashed at a time. Part of the definition: another number would give other fingerprints."""


def fingerprint(dataset: Dataset) -> str:
    """First 16 hexadecimal digits of the sha256 over column names (sorted), class names and all values in order.

    Independent of path, time, file format, chunking and index mappings; images count by their bytes.
    """
    digest = hashlib.sha256()
    names = sorted(dataset.column_names)
    classes = {name: getattr(dataset.features[name], "names", None) for name in names}
    digest.update(json.dumps([dataset.num_rows, classes]).encode())
    for batch in dataset.with_format("arrow").iter(ROWS):
        for name in names:
            column = batch[name]
            _update(
                digest,
                column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column,
                dataset.features[name],
            )
    return digest.hexdigest()[:16]


def fingerprints(data: Mapping[str, Dataset]) -> dict[str, str]:
    """The fingerprint of each split."""
    return {str(name): fingerprint(split) for name, split in data.items()}


def picture_digest(rows: Dataset) -> bytes:
    """A digest of a data set's only column, pictures with what they are: bytes, or a file's name, size and time."""
    digest = hashlib.sha256()
    for batch in rows.with_format("arrow").iter(ROWS):
        for value in batch[rows.column_names[0]].to_pylist():
            data, place = (value or {}).get("bytes"), (value or {}).get("path")
            state = Path(place).stat() if data is None and place else None
            known = data if state is None else f"{place} {state.st_size} {state.st_mtime_ns}".encode()
            digest.update(hashlib.sha256(known or b"").digest())
    return digest.digest()


def _update(digest: Any, column: pa.Array, feature: Any) -> None:
    if isinstance(column, pa.ChunkedArray):  # more text than one array can hold
        for chunk in column.chunks:
            _update(digest, chunk, feature)
        return
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.cast(pa.large_string())
        lengths = pc.fill_null(pc.binary_length(column), -1)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        digest.update(_characters(pc.fill_null(column, "")))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        wide = pa.int64() if pa.types.is_integer(kind) else pa.float64()
        digest.update(pc.is_null(column).to_numpy(zero_copy_only=False).tobytes())
        digest.update(pc.fill_null(column.cast(wide, safe=False), 0).to_numpy(zero_copy_only=False).tobytes())
    elif isinstance(feature, Image | Audio):
        for value in column.to_pylist():
            digest.update(_media(value))
    else:
        digest.update(repr(column.to_pylist()).encode("utf-8", "surrogatepass"))


def _characters(column: pa.Array) -> memoryview:
    """The bytes of all texts, one after the other."""
    offsets = memoryview(column.buffers()[1]).cast("q")
    start, end = offsets[column.offset], offsets[column.offset + len(column)]
    data = column.buffers()[2]
    return memoryview(data)[start:end] if data is not None else memoryview(b"")


def _media(value: Mapping[str, Any] | None) -> bytes:
    """Digest of one picture or sound, from its bytes or its file."""
    if value is None:
        return b"null"
    data = value.get("bytes")
    return hashlib.sha256(Path(value["path"]).read_bytes() if data is None else data).digest()
