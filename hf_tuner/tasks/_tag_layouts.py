"""How words with tags, and texts with spans, come in data: canonical rows are `tokens` or `text`, and `tags`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import text_of
from hf_tuner.tasks._tags import Span, spans_to_tags
from hf_tuner.tasks._task import EmptyRow, Layout, RowError

NAMES = ("label", "type", "entity", "entity_group", "entity_type", "tag", "category")
STARTS, ENDS = ("start", "start_offset", "begin"), ("end", "end_offset", "stop")
TEXT = "text"
Given = Mapping[str, str]


def tag_layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Given, wanted: Mapping) -> Layout:
    """The layout of rows with words or a text, and with tags, spans or nothing to learn from.

    `wanted` are the task's columns. Raises UsageError when there are neither words nor a text.
    """
    found = dict(given)
    for name, accepted in wanted.items():
        column = _column(features, first, name, accepted, set(found.values()))
        if name not in found and column is not None:
            found[name] = column
    if "tokens" in found and not (TEXT in given or "spans" in given):
        columns = _only(found, "tokens", "tags")
        also = [c for c in features if c in wanted["tags"] and c not in columns.values()]
        more = f" (also possible: --columns tags={also[0]})" if also and "tags" in columns else ""
        return Layout(f"words{' and tags' if 'tags' in found else ''}{more}", columns, _words(columns, features))
    if TEXT in found and ("spans" in found or "tags" not in found):
        columns = _only(found, TEXT, "spans")
        return Layout(f"text{' and spans of characters' if 'spans' in found else ''}", columns, _text(columns))
    if TEXT in found:  # our own rows, as they are predicted again
        return Layout("text and tags", _only(found, TEXT, "tags"), _ready(found))
    close = next((c for n in ("tokens", TEXT) if (c := nearest(n, list(features)))), None)
    raise UsageError(
        f"no column of words or text; found: {', '.join(features)}\n"
        "expected words and tags (tokens, ner_tags), or a text and spans ([{start, end, label}]); "
        f"say which: --columns tokens={close or 'COLUMN'},tags=COLUMN"
    )


def _only(found: Given, *names: str) -> dict[str, str]:
    return {name: found[name] for name in names if name in found}


def _column(features: Mapping[str, Any], first: Sequence[dict[str, Any]], name: str, accepted: Sequence[str],
            taken: set[str]) -> str | None:  # fmt: skip
    """The first accepted column whose values can be what is looked for."""
    fits = {"tokens": _is_words, "tags": _is_words, "spans": _is_spans, TEXT: _is_text}[name]
    by_case = {column.lower(): column for column in reversed(list(features))}
    for word in accepted:
        column = by_case.get(word)
        if column and column not in taken and fits([row[column] for row in first]):
            return column
    return None


def _is_words(values: Sequence[Any]) -> bool:
    """Lists of words or numbers, or text that lists them."""
    known = [v for v in values if v]
    lists = [v for v in known if isinstance(v, list)]
    if lists:
        return not any(isinstance(item, list | dict) for value in lists for item in value)
    return bool(known) and all(isinstance(v, str) for v in known)


def _is_spans(values: Sequence[Any]) -> bool:
    known = [v for v in values if v]
    known = [json.loads(v) if isinstance(v, str) and v.startswith("[{") and _is_json(v) else v for v in known]
    return all(isinstance(v, list) and all(isinstance(item, dict) for item in v) for v in known)


def _is_text(values: Sequence[Any]) -> bool:
    return all(v is None or isinstance(v, str) for v in values)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _words(columns: Given, features: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    names = _class_names(features.get(columns.get("tags", "")))

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        tokens = _listed(row[columns["tokens"]])
        if "tags" not in columns:
            return {"tokens": tokens}
        tags = [_tag(value, names) for value in _listed(row[columns["tags"]], words=False)]
        if not tokens and not tags:
            raise EmptyRow("no words")
        if len(tokens) != len(tags):
            raise RowError(f"{len(tokens)} words but {len(tags)} tags; each word needs one")
        return {"tokens": tokens, "tags": tags}

    return convert


def _ready(found: Given) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {TEXT: row[found[TEXT]] or "", "tags": list(row[found["tags"]] or [])}


def _text(columns: Given) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        text = row[columns[TEXT]] or ""
        if "spans" not in columns:
            return {TEXT: text}
        if not text.strip():
            raise EmptyRow("the text is empty")
        value = row[columns["spans"]] or []
        try:
            spans = [_span(one, text) for one in (json.loads(value) if isinstance(value, str) else value)]
            return {TEXT: text, "tags": spans_to_tags(text, spans)}
        except ValueError as error:
            raise error if isinstance(error, RowError) else RowError(str(error)) from error

    return convert


def _span(value: Mapping[str, Any], text: str) -> Span:
    """One span of characters. Raises RowError for one that lacks a part, or whose own `text` is another."""
    start, end, name = (
        next((value[k] for k in keys if value.get(k) is not None), None) for keys in (STARTS, ENDS, NAMES)
    )
    if not isinstance(start, int) or not isinstance(end, int) or name is None:
        raise RowError(f"a span needs start, end and label; found {json.dumps(dict(value), default=str)[:80]}")
    said = value.get(TEXT)
    if said is not None and text[start:end] != said:
        raise RowError(
            f'span {start}–{end} ({name}) says "{str(said)[:40]}", but there stands "{text[start:end][:40]}"; '
            "are characters counted from 0, the end left out?"
        )
    return text_of(name), start, end


def _listed(value: Any, words: bool = True) -> list[Any]:
    """A list of words or tags; text that is a JSON list, or words with spaces between."""
    if value is None:
        return []
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") and _is_json(value) else value.split()
    if words and not all(isinstance(item, str) for item in value):
        odd = next(item for item in value if not isinstance(item, str))
        raise RowError(f"the word {odd!r} is not text")
    return list(value)


def _tag(value: Any, names: Sequence[str] | None) -> str:
    """A tag as text. Raises RowError for what is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowError("a word without a tag")
    if names is None or isinstance(value, str):
        return text_of(value).strip()
    if not 0 <= value < len(names):
        raise RowError(f"tag {value} is not one of the {len(names)} classes of the column; hidden tags cannot be used")
    return names[value]


def _class_names(feature: Any) -> Sequence[str] | None:
    """Names of a list of class labels."""
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else None)
    return getattr(inner, "names", None)
