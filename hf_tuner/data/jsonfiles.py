"""Read JSON Lines (one object a line) and JSON arrays of objects, with the line of every fault."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_tuner.data import store
from hf_tuner.data.files import CHUNK_CHARACTERS, CHUNK_ROWS, Reading, check_text, open_bytes, text_lines
from hf_tuner.errors import UsageError

WHOLE_LIMIT = 1_000_000_000
"""Largest file, in bytes, that is parsed in one piece. JSON Lines have no limit."""


def read_json(path: Path, reading: Reading) -> list[pa.Table]:
    """One column for each key. A key that a row lacks is null there; a column of mixed types goes to `faults`.

    Raises UsageError with the line number for what is not JSON or not an object.
    """
    encoding = check_text(path, reading.encoding)
    rows = _whole(path, encoding) if _is_whole(path, encoding) else _lines(path, encoding)
    builder = _Builder(path, reading)
    for place, size, row in rows:
        builder.add(place, size, row)
    return builder.tables()


class _Builder:
    """Gathers rows into Arrow chunks and watches that each column keeps its type."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.kinds: dict[str, tuple[str, str]] = {}
        self.shelf = store.Shelf()
        self.chunk: list[tuple[str, Mapping[str, Any]]] = []
        self.size = 0

    def add(self, place: str, size: int, row: Mapping[str, Any]) -> None:
        """Take one row; `place` ("line 7") is how a fault in it is named."""
        for key, value in row.items():
            kind = _kind(value)
            if "\0" in key:
                raise UsageError(
                    f"{self.path.name} {place}: the key {json.dumps(key)[:60]} holds a zero byte; rename it"
                )
            if kind is None:
                continue
            first, where = self.kinds.setdefault(key, (kind, place))
            if "a list" in (first, kind) and first.startswith("a list") and kind.startswith("a list"):
                self.kinds[key] = (max(first, kind), where)  # an empty list goes with every list
            elif first != kind:
                self.fault(key, f'{place}: "{key}" is {kind} ({_short(value)}) but {first} on {where}')
        self.chunk.append((place, row))
        self.size += size
        if len(self.chunk) >= CHUNK_ROWS or self.size > CHUNK_CHARACTERS:
            self.flush()

    def fault(self, key: str, message: str) -> None:
        """Remember the first fault of a column."""
        self.reading.faults.setdefault(key, f"{self.path.name} {message}")

    def flush(self) -> None:
        """Turn the waiting rows into a table."""
        keys = dict.fromkeys(key for _, row in self.chunk for key in row)
        columns = {}
        for key in keys:
            if key not in self.reading.faults:
                array = self.array(key)
                if array is not None:
                    columns[key] = array
        self.shelf.put(pa.table(columns))
        self.chunk, self.size = [], 0

    def array(self, key: str) -> pa.Array | None:
        """One column of the waiting rows; None, and a fault, when Arrow cannot hold it."""
        values = [row.get(key) for _, row in self.chunk]
        try:
            return pa.array(values)
        except UnicodeEncodeError:
            place = next(p for p, row in self.chunk if _has_surrogate(row.get(key)))
            self.fault(key, f'{place}: "{key}" holds half of a surrogate pair (\\ud800 to \\udfff), which is no text')
        except (pa.ArrowException, OverflowError, TypeError) as error:
            if any(values) and all(isinstance(value, list | None) for value in values):
                # Messages whose contents are texts here and lists of parts there: they are read from JSON as well.
                return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])
            cause = " ".join(str(error).split())[:120]
            self.fault(key, f'{self.chunk[0][0]} or after: "{key}" holds values of mixed types ({cause})')
        return None

    def tables(self) -> list[pa.Table]:
        """All rows. Raises UsageError when there are none."""
        if self.chunk:
            self.flush()
        tables = self.shelf.tables()
        if not tables:
            raise UsageError(f"{self.path.name} holds no rows")
        kept = [t.drop_columns([k for k in t.column_names if k in self.reading.faults]) for t in tables]
        try:
            return [pa.concat_tables(kept, promote_options="permissive")]
        except pa.ArrowException as error:
            raise UsageError(f"{self.path.name}: columns change their type within the file ({error})") from error


def _is_whole(path: Path, encoding: str) -> bool:
    """Whether the file is one JSON value over all its lines, rather than one value a line."""
    first = next((line for line in text_lines(path, encoding) if line.strip()), "").strip()
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        # An opened bracket on its own line: the value goes on. Anything else is a broken first line.
        return first in ("[", "{") or (
            first.startswith("[") and path.name.lower().removesuffix(".gz").endswith(".json")
        )
    several = isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    columns = isinstance(value, dict) and any(_rows_or_columns(value))
    return several or (columns and path.name.lower().removesuffix(".gz").endswith(".json"))


def _rows_or_columns(value: Mapping[str, Any]) -> Iterator[bool]:
    """True for each key that holds a list of objects (`{"data": [{…}, …]}`)."""
    for rows in value.values():
        yield isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) for row in rows)


def _lines(path: Path, encoding: str) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for number, line in enumerate(text_lines(path, encoding, watched=True), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            cause = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
            raise UsageError(f"{path.name} line {number}: not valid JSON ({cause}): {_short(line.strip())}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path.name} line {number}: JSON nested too deep or a number too long") from error
        yield f"line {number}", len(line), _object(path, f"line {number}", row)


def _whole(path: Path, encoding: str) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    if path.stat().st_size > WHOLE_LIMIT:
        raise UsageError(f"{path.name}: a JSON array over 1 GB; write one object a line (.jsonl), which streams")
    with open_bytes(path) as stream:
        data = stream.read(WHOLE_LIMIT + 1)
    if len(data) > WHOLE_LIMIT:
        raise UsageError(f"{path.name}: a JSON array over 1 GB; write one object a line (.jsonl), which streams")
    try:
        value = json.loads(data.decode(encoding))
    except UnicodeDecodeError:
        list(text_lines(path, encoding))  # raises with the line
        raise
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path.name} line {error.lineno}: not valid JSON ({error.msg.removesuffix(' at')} at column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name}: JSON nested too deep or a number too long") from error
    for number, row in enumerate(_rows(path, value), start=1):
        yield f"row {number}", 0, _object(path, f"row {number}", row)


def _rows(path: Path, value: Any) -> list[Any]:
    """The list of rows of a whole JSON value: an array, `{"data": [...]}`, or columns of equal length."""
    if isinstance(value, list):
        return value
    lists = {k: v for k, v in value.items() if isinstance(v, list)} if isinstance(value, dict) else {}
    nested = [v for v in lists.values() if v and isinstance(v[0], dict)]
    if len(nested) == 1:
        return nested[0]
    if lists and not nested and len(lists) == len(value) and len({len(v) for v in lists.values()}) == 1:
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    raise UsageError(f'{path.name}: expected a list of rows, [{{"text": …, "label": …}}, …], or one row a line')


def _object(path: Path, place: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(
            f'{path.name} {place}: expected an object such as {{"text": …, "label": …}}, found {_short(row)}'
        )
    return row


def _kind(value: Any) -> str | None:
    """What a value is, in words; None for null and for lists that do not show their kind."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "an object"
    inner = next((k for k in map(_kind, value) if k), None)
    return f"a list of {inner.removeprefix('a ')}" if inner else "a list"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
