"""Read CSV, TSV, JSON, JSON Lines, Parquet and CoNLL files, and say exactly what is wrong with a broken one.

Files are streamed into Arrow, text line by line; what is more than a few megabytes lies on disk (see `store`).
Cells of a CSV file stay the text they are: "NA", "null" and "007" are not turned into anything.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from hf_tuner.catalog import nearest
from hf_tuner.console import Progress
from hf_tuner.data import store
from hf_tuner.data.archives import DamagedArchive
from hf_tuner.data.archives import check as check_archive
from hf_tuner.errors import EnvironmentFault, UsageError

KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".conll": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bio": "conll",
}
LINE_LIMIT = 16_000_000
"""Longest line, and longest field, in characters."""
CHUNK_ROWS, CHUNK_CHARACTERS = 10_000, 16_000_000
WATCH = 20_000
"""Lines between two looks at how far a file is read."""
SEPARATORS = (",", ";", "\t", "|")
SPOKEN = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel file; export it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF": "a PDF",
    b"\x80\x04": "a Python pickle, which may run code when it is read; export it as CSV or Parquet",
    b"\x80\x05": "a Python pickle, which may run code when it is read; export it as CSV or Parquet",
}


@dataclass
class Reading:
    """How text files are to be read, and what was met on the way."""

    encoding: str | None = None
    separator: str | None = None
    notes: list[str] = field(default_factory=list)
    """What the user should know, such as a sniffed separator."""
    faults: dict[str, str] = field(default_factory=dict)
    """Columns that could not be read, and why. It matters only if such a column is needed."""


def kind_of(path: Path) -> str | None:
    """Kind of a file by its name: csv, json, parquet, text, or conll (also a .txt that looks so); None for what is not read."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix == ".txt" and _looks_tagged(path):
        return "conll"
    return KINDS.get(suffix)


def _looks_tagged(path: Path) -> bool:
    from hf_tuner.data.conll import looks_tagged

    return looks_tagged(path)


def read_file(path: Path, reading: Reading | None = None) -> Dataset:
    """Rows of one file, in order.

    Raises UsageError with the file, the line, the likely cause and the cure; EnvironmentFault when the system
    refuses the file. Without a `reading` every unreadable column is an error.
    """
    mine = reading or Reading()
    kind = kind_of(path)
    if kind is None:
        raise UsageError(f"{path.name}: not a kind that is read; known: {', '.join(sorted(KINDS))} (also with .gz)")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path.name} is empty (0 bytes)")
        with suppress(DamagedArchive):  # said below, as of any broken data file
            check_archive(path)
        tables = _READERS[kind](path, mine)
    except OSError as error:
        raise EnvironmentFault(f"cannot read {path}: {error.strerror or error}") from error
    if reading is None and mine.faults:
        raise UsageError(next(iter(mine.faults.values())))
    return store.dataset(tables)


def read_csv(path: Path, reading: Reading) -> list[pa.Table]:
    """Tables of strings, one column for each field of the header."""
    limit = csv.field_size_limit(LINE_LIMIT)  # a setting of the whole module: put back below
    try:
        encoding = check_text(path, reading.encoding)
        separator = _separator(path, encoding, reading)
        literal = separator == "\t" and _quotes_are_text(path, encoding)
        if literal:
            reading.notes.append(f"{path.name}: quotes do not pair up, so they are read as plain text")
        rows = _records(path, encoding, separator, literal)
        names = _header(path, next(rows, (1, []))[1])
        return _collect(path, names, rows, separator)
    finally:
        csv.field_size_limit(limit)


def check_text(path: Path, encoding: str | None) -> str:
    """The codec to read a text file with. Raises UsageError for binary files, and UTF-16 that was not announced."""
    with open_bytes(path) as stream:
        head = stream.read(4096)
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            raise UsageError(f"{path.name} is not a text file: it looks like {what}")
    if encoding is not None:
        return _codec(encoding)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path.name} line 1: looks like UTF-16: --encoding utf-16")
    zeros = head.count(0)
    if zeros > len(head) // 4:
        # One zero in every pair is what Western text looks like in UTF-16 without its mark.
        even = head[0::2].count(0) > head[1::2].count(0)
        raise UsageError(f"{path.name} line 1: looks like UTF-16: --encoding utf-16{'-be' if even else '-le'}")
    return "utf-8-sig"


def text_lines(path: Path, encoding: str, *, watched: bool = False) -> Iterator[str]:
    """Lines with their ends, read one at a time. Raises UsageError at bytes that are no text and at endless lines.

    A `watched` reading shows how far it is when it takes long.
    """
    progress = Progress(f"reading {path.name}", path.stat().st_size) if watched else None
    try:
        with path.open("rb") as raw:
            stream = io.TextIOWrapper(_unpacked(raw), encoding=encoding, newline="")  # type: ignore[type-var]
            number = 0
            while line := stream.readline(LINE_LIMIT):
                number += 1
                if progress and number % WATCH == 0:
                    progress.at(raw.tell(), f"{number:,} lines")
                if len(line) >= LINE_LIMIT:
                    raise UsageError(
                        f"{path.name} line {number} is longer than {LINE_LIMIT // 10**6} million characters"
                    )
                yield line
    except UnicodeError as error:
        raise UsageError(_undecodable(path, encoding)) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path.name}: the compressed file is damaged or cut short ({error})") from error
    finally:
        if progress:
            progress.end()


@contextmanager
def open_bytes(path: Path) -> Iterator[Any]:
    """The bytes of a file, unpacked when it is gzip whatever its name says.

    Raises UsageError when what is inside is damaged.
    """
    try:
        with path.open("rb") as raw:
            yield _unpacked(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path.name}: the compressed file is damaged or cut short ({error})") from error


def _unpacked(raw: Any) -> Any:
    packed = raw.peek(2)[:2] == b"\x1f\x8b"
    return gzip.GzipFile(fileobj=raw) if packed else raw


def _codec(name: str) -> str:
    try:
        found = codecs.lookup(name)
        io.TextIOWrapper(io.BytesIO(), encoding=name).read()  # codecs such as "hex" are not between bytes and text
    except (LookupError, ValueError) as error:
        known = ["utf-8", "utf-16", "latin-1", "cp1252", "iso-8859-15", "shift_jis", "gb18030", "big5", "koi8-r"]
        close = nearest(name, known)
        hint = f'; did you mean "{close}"?' if close else f"; such as {', '.join(known)}"
        raise UsageError(f'--encoding: no text encoding named "{name}"{hint}') from error
    return "utf-8-sig" if found.name == "utf-8" else found.name


def _undecodable(path: Path, encoding: str) -> str:
    if encoding != "utf-8-sig":
        return f"{path.name} cannot be read as {encoding}; leave --encoding out if the file is UTF-8"
    with open_bytes(path) as stream:
        number, line, at = 0, b"", 0
        while line := stream.readline(LINE_LIMIT):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = error.start
                break
    # 0x80 to 0x9f are control codes in Latin-1 but curly quotes, dashes and the euro sign in Windows-1252.
    windows = any(0x80 <= byte <= 0x9F for byte in line)
    guess = "Windows-1252: --encoding cp1252" if windows else "Latin-1: --encoding latin-1"
    byte = f"0x{line[at]:02x}" if line else "at the end"
    return f"{path.name} line {number}: byte {byte} is not UTF-8; looks like {guess}"


def _separator(path: Path, encoding: str, reading: Reading) -> str:
    if reading.separator is not None:
        given = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}.get(
            reading.separator.lower(), reading.separator
        )
        if len(given) != 1:
            raise UsageError(f"--separator {reading.separator!r}: expected one character, or tab")
        return given
    sample = _sample(path, encoding)
    first = "\t" if ".tsv" in path.name.lower() else ","
    candidates = sorted(SEPARATORS, key=lambda s: s != first)
    best = max(candidates, key=lambda s: _agreement(sample, s))
    if best != first:
        reading.notes.append(f"{path.name}: separator taken as {SPOKEN[best]} (--separator says otherwise)")
    return best


def _sample(path: Path, encoding: str) -> list[str]:
    """The first lines of a file, whole."""
    lines, size = [], 0
    for line in text_lines(path, encoding):
        lines.append(line)
        size += len(line)
        if size > 64_000 or len(lines) == 200:
            break
    return lines


def _agreement(lines: list[str], separator: str) -> float:
    """Share of the rows that have as many fields as the header, for a header of two fields or more."""
    try:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error:  # it is said, with its line, when the rows are read
        return 0.0
    if not counts or counts[0] < 2:
        return 0.0
    return sum(c == counts[0] for c in counts) / len(counts)


def _quotes_are_text(path: Path, encoding: str) -> bool:
    """Whether a tab-separated file (as GLUE's) uses quotes as plain characters: one row a line, quotes unpaired."""
    tabs, unpaired = None, False
    for line in text_lines(path, encoding):
        if not line.strip():
            continue
        tabs = line.count("\t") if tabs is None else tabs
        if line.count("\t") != tabs:
            return False
        if '"' in line and not unpaired:
            try:
                list(csv.reader([line], delimiter="\t", strict=True))
            except csv.Error:
                unpaired = True
    return unpaired


def _records(path: Path, encoding: str, separator: str, literal: bool) -> Iterator[tuple[int, list[str]]]:
    """First line number and fields of each record; blank lines are skipped."""
    lines = text_lines(path, encoding, watched=True)
    quoting: Any = csv.QUOTE_NONE if literal else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        reach = f" (read as far as line {reader.line_num})" if reader.line_num > start else ""
        raise UsageError(
            f'{path.name} line {start}: the quotes (") of this row do not pair up{reach}; '
            'a quote inside a quoted text is written twice ("")'
        ) from error


def _header(path: Path, fields: list[str]) -> list[str]:
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(fields)]
    if not any(name.strip() for name in fields):
        raise UsageError(f"{path.name} line 1: expected a header with the column names, such as text,label")
    if any("\0" in name for name in names):
        raise UsageError(
            f"{path.name} line 1: a column's name holds a zero byte; is this a text file, and its --encoding?"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f'{path.name} line 1: duplicate column "{twice[0]}" ({", ".join(names)}); rename one')
    return names


def _collect(path: Path, names: list[str], rows: Iterator[tuple[int, list[str]]], separator: str) -> list[pa.Table]:
    schema = pa.schema([(name, pa.string()) for name in names])
    shelf = store.Shelf()
    chunk: list[list[str]] = []
    size = 0

    def flush() -> None:
        columns = [pa.array(column, pa.string()) for column in zip(*chunk, strict=True)]
        shelf.put(pa.Table.from_arrays(columns, schema=schema))
        chunk.clear()

    for line, fields in rows:
        if len(fields) != len(names):
            raise UsageError(_ragged(path, line, fields, names, separator))
        chunk.append(fields)
        size += sum(map(len, fields))
        if len(chunk) == CHUNK_ROWS or size > CHUNK_CHARACTERS:
            flush()
            size = 0
    if chunk:
        flush()
    tables = shelf.tables()
    if not tables:
        raise UsageError(f"{path.name} has a header but no rows (columns: {', '.join(names)[:200]})")
    return tables


def _ragged(path: Path, line: int, fields: list[str], names: list[str], separator: str) -> str:
    found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
    shown = ", ".join(names)[:120]
    cause = (
        f'a text that holds a {SPOKEN.get(separator, separator)} must stand in quotes ("…")'
        if len(fields) > len(names)
        else "is the line cut short, or the separator another one (--separator)?"
    )
    return f"{path.name} line {line}: {found} where the header has {len(names)} ({shown}); {cause}"


def _read_json(path: Path, reading: Reading) -> list[pa.Table]:
    from hf_tuner.data.jsonfiles import read_json

    return read_json(path, reading)


def _read_parquet(path: Path, reading: Reading) -> list[pa.Table]:
    shelf = store.Shelf()
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            total, done = file.metadata.num_rows, 0
            progress = Progress(f"reading {path.name}", total)
            for batch in file.iter_batches(CHUNK_ROWS):
                shelf.put(_without_dictionaries(pa.Table.from_batches([batch])))
                done += batch.num_rows
                progress.at(done, f"{done:,} rows")
            progress.end()
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        cause = " ".join(str(error).split())[:160]
        raise UsageError(f"{path.name} is not a readable Parquet file ({cause}); write it again") from error
    tables = shelf.tables()
    if not tables:
        raise UsageError(f"{path.name} holds no rows")
    return tables


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """pandas writes categories as dictionaries, which `datasets` does not take."""
    for index, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(index, column.name, table[index].cast(column.type.value_type))
    return table


def _read_lines(path: Path, reading: Reading) -> list[pa.Table]:
    from hf_tuner.data import conll, textfiles

    return (conll.read_conll if kind_of(path) == "conll" else textfiles.read_text)(path, reading)


_READERS = {"csv": read_csv, "json": _read_json, "parquet": _read_parquet, "text": _read_lines, "conll": _read_lines}
