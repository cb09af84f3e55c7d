"""CoNLL files: one word a line, its tag in the last column, an empty line between sentences.

Columns are separated by tabs or spaces. Lines that begin a document (-DOCSTART-) and comments (# id …) are skipped.
"""

import re
from itertools import islice
from pathlib import Path

import pyarrow as pa

from hf_tuner.data import store
from hf_tuner.data.files import CHUNK_ROWS, Reading, check_text, text_lines
from hf_tuner.errors import EnvironmentFault, UsageError

LOOKED_AT = 300
"""Lines by which a .txt file is told to be of this kind."""
TAG = re.compile(r"O|[BIESULM]-\S+")


def read_conll(path: Path, reading: Reading) -> list[pa.Table]:
    """Tables of `tokens` and, when lines have more than one column, `tags`: a row for each sentence.

    Raises UsageError with the line that has another number of columns than the first.
    """
    encoding = check_text(path, reading.encoding)
    shelf = store.Shelf()
    sentences: list[tuple[list[str], list[str]]] = []
    words: list[str] = []
    tags: list[str] = []
    columns = 0

    def end(force: bool = False) -> None:
        nonlocal words, tags
        if words:
            sentences.append((words, tags))
            words, tags = [], []
        if sentences and (force or len(sentences) >= CHUNK_ROWS):
            shelf.put(_table(sentences, columns > 1))
            sentences.clear()

    for number, line in enumerate(text_lines(path, encoding, watched=True), start=1):
        parts = _parts(line)
        if not parts or parts[0] == "-DOCSTART-":
            end()
            continue
        if line.startswith("# ") and (len(parts) != columns or not (words or TAG.fullmatch(parts[-1]))):
            continue  # a comment, not the word "#" with its tag
        columns = columns or len(parts)
        if len(parts) != columns:
            raise UsageError(
                f"{path.name} line {number}: {len(parts)} columns where the first line has {columns}; expected a word, "
                "then its tag in the last column, with an empty line between sentences"
            )
        words.append(parts[0])
        tags.append(parts[-1])
    end(force=True)
    tables = shelf.tables()
    if not tables:
        raise UsageError(f"{path.name} holds no words")
    return tables


def looks_tagged(path: Path) -> bool:
    """Whether the first lines of a text file are words with tags such as O, B-PER, I-PER in the last column."""
    try:
        lines = [_parts(line) for line in islice(text_lines(path, "utf-8-sig"), LOOKED_AT)]
    except (UsageError, EnvironmentFault, OSError):
        return False
    filled = [parts for parts in lines if parts and parts[0] != "-DOCSTART-"]
    return len(filled) > 1 and all(len(p) == len(filled[0]) > 1 and TAG.fullmatch(p[-1]) for p in filled)


def _parts(line: str) -> list[str]:
    plain = line.rstrip("\r\n")
    if not plain.strip():
        return []
    return [part.strip() for part in plain.split("\t")] if "\t" in plain else plain.split()


def _table(sentences: list[tuple[list[str], list[str]]], tagged: bool) -> pa.Table:
    kind = pa.list_(pa.string())
    columns = {"tokens": pa.array([words for words, _ in sentences], kind)}
    if tagged:
        columns["tags"] = pa.array([tags for _, tags in sentences], kind)
    return pa.table(columns)
