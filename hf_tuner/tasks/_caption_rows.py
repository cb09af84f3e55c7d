"""What rows of a picture and its captions look like: one text, a list of them, or numbered columns."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import EmptyRow, Findings, Layout, RowError
from hf_tuner.tasks._vision import PICTURES, columns_of, picture_columns

COLUMNS: dict[str, tuple[str, ...]] = {
    "image": PICTURES,
    "text": ("captions", "caption", "texts", "text", "sentences", "sentence", "raw", "alt_text", "alt", "description",
             "descriptions", "title", "query"),
}  # fmt: skip
NUMBERED = re.compile(r"^(caption|text|sentence|comment)s?_?\d+$")
"""caption_0, caption_1 …: one caption a column."""
RAW = ("raw", "caption", "text")
"""Where a caption stands that is a record of its own, as in COCO."""


def layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """A column of pictures or paths, and captions where there are any. Raises UsageError when there is no picture."""
    found = picture_columns(features, given, COLUMNS)
    columns = [found["text"]] if "text" in found else [name for name in features if NUMBERED.match(name.lower())]
    if not columns:
        return Layout("pictures", found, lambda row: {})
    found["text"] = ", ".join(columns)
    several = len(columns) > 1 or any(len(list(_texts(row[columns[0]], columns[0]))) > 1 for row in first)
    return Layout(f"pictures with {'captions' if several else 'a caption each'}", found, _converter(columns))


def captions_of(values: Sequence[Any], columns: Sequence[str]) -> list[str]:
    """The captions that the columns of a row hold, each once. Raises EmptyRow for none, RowError for what is no text."""
    found = [text for value, column in zip(values, columns, strict=True) for text in _texts(value, column)]
    if not found:
        raise EmptyRow(f'column "{", ".join(columns)}" is empty')
    return list(dict.fromkeys(found))


def audit(data: Mapping[str, Any]) -> Findings:
    """How many captions there are and how many differ. Raises UsageError when there are none, or only one."""
    found = Findings()
    if "text" not in data["train"].column_names:
        names = columns_of(data["train"])
        close = nearest("caption", names.split(", "))
        hint = f'; did you mean "{close}"?' if close else ""
        raise UsageError(f"no column with captions; found: {names}{hint}\nName it: --columns text=COLUMN")
    rows = data["train"]["text"][:]
    captions = [text for row in rows for text in row]
    different = len(set(captions))
    if different < 2:
        raise UsageError(f'every picture has the same caption ("{captions[0][:60]}"): there is nothing to tell apart')
    found.facts["captions"] = {"train": len(captions), "different": different}
    found.lines["captions"] = f"{len(captions) / len(rows):.3g} a picture, {different:,} different ones in train"
    if different < len(captions) / 2:
        found.warnings.append(
            f"train: {len(captions):,} captions are {different:,} different ones; rows of the same caption teach "
            "nothing about each other"
        )
    return found


def _converter(columns: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        return {"text": captions_of([row[column] for column in columns], columns)}

    return convert


def _texts(value: Any, column: str) -> Iterator[str]:
    """The captions in a value: a text, a record with one, or a list of either; what is blank is none."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Mapping):
            one = next((one[name] for name in RAW if name in one), one)
        if one is None:
            continue
        if not isinstance(one, str):
            raise RowError(f'column "{column}" holds {str(one)[:40]!r}, expected a text or a list of texts')
        if one.strip():
            yield one
