"""How questions, contexts and answers come in data: SQuAD's own file, its flat form on the Hub, one answer a row."""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import EmptyRow, Layout, RowError

Given = Mapping[str, str]
IMPOSSIBLE = ("is_impossible", "impossible")
YES = ("true", "1", "1.0", "yes")


def answer_layout(
    features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Given, wanted: Mapping
) -> Layout:
    """The layout of rows with questions and contexts, and with answers or without.

    `wanted` are the task's columns. Raises UsageError when a question or context is missing.
    """
    names = {column.lower(): column for column in reversed(list(features))}
    if not given and ("paragraphs" in names or ("qas" in names and "context" in names)):
        place = names.get("paragraphs")
        columns = {"question": place or names["qas"], "context": place or names["context"]}
        inside = {"question": "question", "context": "context", "answers": "answers", "id": "id"}
        return Layout("SQuAD, questions inside articles", columns, _rows(inside), _questions)
    found = dict(given)
    for name, accepted in wanted.items():
        column = next((names[word] for word in accepted if word in names and names[word] not in found.values()), None)
        if name not in found and column is not None:
            found[name] = column
    missing = [name for name in ("question", "context") if name not in found]
    if missing:
        raise UsageError(
            f"no column for {' and '.join(missing)}; found: {', '.join(features)}\n"
            f"say which: --columns {','.join(f'{name}=COLUMN' for name in missing)}"
        )
    if "answers" not in found:
        found.pop("answer_start", None)
        return Layout("questions and contexts", found, _rows(found))
    nested = any(not isinstance(row[found["answers"]], str | None) for row in first)
    if nested:
        found.pop("answer_start", None)
    how = "SQuAD" if nested else "one answer a row" + ("" if "answer_start" in found else ", found in its context")
    return Layout(how, found, _rows(found))


def _questions(raw: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The questions of an article, or of one of its paragraphs, each with its context."""
    for paragraph in raw.get("paragraphs") or ([raw] if raw.get("qas") else []):
        for question in paragraph.get("qas") or []:
            yield {**question, "context": paragraph.get("context"), "answers": question.get("answers") or []}


def _rows(columns: Given) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        question, context = (row[columns[name]] for name in ("question", "context"))
        for name, text in (("question", question), ("context", context)):
            if text is not None and not isinstance(text, str):
                raise RowError(f"the {name} is {type(text).__name__}, not text")
            if not (text or "").strip():
                raise EmptyRow(f"the {name} is empty")
        result: dict[str, Any] = {"question": question, "context": context}
        if "id" in columns:
            result["id"] = str(row[columns["id"]])
        if "answers" in columns:
            possible = not any(str(row.get(name) or "").strip().lower() in YES for name in IMPOSSIBLE)
            texts, starts = _answers(row, columns) if possible else ([], [])
            placed = [_placed(context, *answer) for answer in zip(texts, starts, strict=True)]
            moved = sum(start is not None and start != at for start, at in zip(starts, placed, strict=True))
            return {**result, "answers": {"text": texts, "answer_start": placed}, "moved": moved}
        return result

    return convert


def _answers(row: Mapping[str, Any], columns: Given) -> tuple[list[str], list[int | None]]:
    """Texts and places of a row's answers, without the white space around them."""
    value = row[columns["answers"]]
    if isinstance(value, str) and value.startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        texts, starts = value.get("text") or [], value.get("answer_start") or []
        pairs = list(zip(texts, starts, strict=True)) if len(texts) == len(starts) else [(text, None) for text in texts]
    elif isinstance(value, list):
        pairs = [
            (one.get("text"), one.get("answer_start")) if isinstance(one, Mapping) else (one, None) for one in value
        ]
    else:
        pairs = [(value, row[columns["answer_start"]] if "answer_start" in columns else None)]
    found = []
    for text, start in pairs:
        if isinstance(text, str) and text.strip():
            lead = len(text) - len(text.lstrip())
            found.append(
                (text.strip(), None if start is None or str(start).strip() in ("", "-1") else int(start) + lead)
            )
    return [text for text, _ in found], [start for _, start in found]


def _placed(context: str, text: str, start: int | None) -> int:
    """Where an answer stands in its context. Raises RowError when it doesn't, or where it cannot be told."""
    if start is not None and start >= 0 and context[start : start + len(text)] == text:
        return start
    places = context.count(text)
    shown = text if len(text) <= 60 else text[:59] + "…"
    if places == 1:
        return context.index(text)
    if places == 0:
        raise RowError(f'the answer "{shown}" does not stand in its context; is it copied exactly?')
    if start is None:
        return context.index(text)
    there = context[max(0, start) : max(0, start) + 20]
    raise RowError(
        f'the answer "{shown}" is not at character {start} (there is "{there}") but at {places} other places'
    )
