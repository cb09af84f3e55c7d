"""Plain text files: a row for every paragraph, or with --separator file one for the whole file."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from hf_tuner.data import store
from hf_tuner.data.files import CHUNK_CHARACTERS, CHUNK_ROWS, Reading, check_text, text_lines
from hf_tuner.errors import UsageError

WHOLE = "file"


def read_text(path: Path, reading: Reading) -> list[pa.Table]:
    """Tables with one column `text`. Paragraphs are what blank lines separate; their own line ends stay.

    Raises UsageError for a file with nothing but blank lines.
    """
    whole = (reading.separator or "").lower() == WHOLE
    shelf, rows, size, total = store.Shelf(), [], 0, 0
    for text in _paragraphs(path, check_text(path, reading.encoding), whole):
        rows.append(text)
        size += len(text)
        total += 1
        if len(rows) == CHUNK_ROWS or size > CHUNK_CHARACTERS:
            shelf.put(pa.table({"text": pa.array(rows, pa.string())}))
            rows, size = [], 0
    if rows:
        shelf.put(pa.table({"text": pa.array(rows, pa.string())}))
    if not total:
        raise UsageError(f"{path.name} holds nothing but blank lines")
    if not whole and not any(note.startswith("text files") for note in reading.notes):
        reading.notes.append("text files: blank lines separate documents (--separator file: each file is one)")
    return shelf.tables()


def _paragraphs(path: Path, encoding: str, whole: bool) -> Iterator[str]:
    lines: list[str] = []
    for line in text_lines(path, encoding, watched=True):
        if line.strip() or whole:
            lines.append(line)
        elif lines:
            yield _joined(lines)
            lines = []
    if text := _joined(lines):
        yield text


def _joined(lines: list[str]) -> str:
    return "".join(lines).replace("\r\n", "\n").strip("\n")
