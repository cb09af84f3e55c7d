"""Layouts of questions with several answers to choose from: one column for each, a list, or a list with keys."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import Layout, RowError

COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("sent1", "question", "question_stem", "ctx", "premise", "goal", "prompt", "query", "text", "sentence"),
    "context": ("context", "article", "passage", "support", "fact1"),
    "start": ("sent2", "startphrase"),
    "choices": ("choices", "endings", "options", "answers", "candidates"),
    "label": ("label", "labels", "answerKey", "answer_key", "answer", "correct", "gold", "target"),
}
"""Canonical names, and those they go by; `start` is how every choice begins (SWAG)."""
NUMBERED = re.compile(r"^(?P<stem>ending|choice|option|sol|solution|answer|hyp|hypothesis)_?(?P<number>\d|[A-Ea-e])$")
ANSWER = -1
"""The label of a row that does not say which choice is right."""


def layout_of(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """Prompt, choices and which is right: SWAG, CommonsenseQA and their kin. Raises UsageError when there are no choices."""
    lists = [n for n in (given.get("choices"), *COLUMNS["choices"]) if n in features and _is_list(first, str(n))]
    numbered = [] if given.get("choices") else _numbered(features)
    taken = set(numbered) | set(lists[:1])
    columns = {name: column for name in ("text", "context", "start", "label")
               if (column := given.get(name) or _find(name, features, taken))}  # fmt: skip
    if columns.get("text") == "question" and "premise" in features and "context" not in columns:
        columns["context"] = "premise"  # COPA asks for the cause or the effect of it
    if not (numbered or lists) or "text" not in columns:
        raise UsageError(_nothing("text" if numbered or lists else "choices", features))
    if not numbered:
        columns["choices"] = str(lists[0])
    shown = {**columns, **{column: column for column in numbered}}
    read = _Reader(columns, tuple(numbered))
    base = read.base(first)
    name = "one column a choice" if numbered else "a list of choices"
    return Layout(name + (", counted from 1" if base else ""), shown, lambda row: read(row, base))


class _Reader:
    """Reads raw rows of one layout."""

    def __init__(self, columns: Mapping[str, str], numbered: tuple[str, ...]) -> None:
        self.columns, self.numbered = columns, numbered

    def __call__(self, row: Mapping[str, Any], base: int) -> dict[str, Any]:
        """The canonical row: `text`, `choices`, `label` (-1: not said). Raises RowError."""
        choices, keys = self.choices(row)
        parts = [self._text(row, name) for name in ("context", "text") if name in self.columns]
        text = " ".join(part for part in parts if part)
        if not text:
            raise RowError(f'column "{self.columns["text"]}" is empty')
        if len(choices) < 2:
            raise RowError(f"{len(choices)} choice{'s' * (len(choices) != 1)}; expected at least 2")
        start = self._text(row, "start") if "start" in self.columns else ""
        whole = [f"{start} {choice}".strip() for choice in choices]
        found: dict[str, Any] = {"text": text, "choices": whole}
        if "label" in self.columns:
            found["label"] = _place(row[self.columns["label"]], choices, keys, base, self.columns["label"])
        return found

    def choices(self, row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Texts and keys of a row's choices; there are no keys where the data has none."""
        if self.numbered:
            values = [row[name] for name in self.numbered]
            texts = [_string(value, name) for value, name in zip(values, self.numbered, strict=True)]
            while texts and not texts[-1]:
                texts.pop()
            return texts, []
        value, name = row[self.columns["choices"]], self.columns["choices"]
        listed: Any
        keys: Any
        if isinstance(value, dict):
            listed, keys = value.get("text"), value.get("label")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            listed, keys = [one.get("text") for one in value], [one.get("label") for one in value]
        else:
            listed, keys = value, None
        if not isinstance(listed, list):
            raise RowError(f'column "{name}" holds {type(value).__name__}, expected a list of choices')
        return [_string(text, name) for text in listed], [str(key) for key in keys or []]

    def base(self, rows: Sequence[dict[str, Any]]) -> int:
        """1 where labels are plain numbers that run from 1 to the number of choices, else 0."""
        seen: Counter[str] = Counter()
        top = False
        for row in rows:
            try:
                choices, keys = self.choices(row)
            except RowError:
                continue
            label = str(row.get(self.columns.get("label", ""), "")).strip()
            if keys or label in choices:
                return 0
            seen[label] += 1
            top |= label == str(len(choices))
        return int(top and "0" not in seen)

    def _text(self, row: Mapping[str, Any], name: str) -> str:
        return _string(row[self.columns[name]], self.columns[name])


def _place(value: Any, choices: list[str], keys: list[str], base: int, column: str) -> int:
    """The choice, from 0, that a label names: its key, its number, its letter or its text; -1 when it says nothing."""
    said = str(value).strip() if value is not None else ""
    if said in ("", "-1"):
        return ANSWER
    if said in keys:
        return keys.index(said)
    if said in choices:
        return choices.index(said)
    number = int(said) - base if said.isdigit() else ord(said.upper()) - ord("A") if len(said) == 1 else -1
    if isinstance(value, float) and value == int(value):
        number = int(value) - base
    if not keys and 0 <= number < len(choices):
        return number
    known = ", ".join(keys) if keys else f"{base} to {base + len(choices) - 1}"
    raise RowError(f'column "{column}" is "{said[:40]}", which names none of the {len(choices)} choices ({known})')


def _string(value: Any, column: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        raise RowError(f'column "{column}" holds {type(value).__name__}, expected text')
    return str(value).strip()


def _numbered(features: Mapping[str, Any]) -> list[str]:
    """Columns that hold a choice each, in order; the largest family of names that differ in a number or letter."""
    families: dict[str, list[str]] = {}
    for name in features:
        if match := NUMBERED.match(name):
            families.setdefault(match["stem"], []).append(name)
    best = max(families.values(), key=len, default=[])
    return sorted(best) if len(best) > 1 else []


def _find(name: str, features: Mapping[str, Any], taken: set[Any]) -> str | None:
    return next((column for column in COLUMNS[name] if column in features and column not in taken), None)


def _is_list(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(isinstance(row.get(name), list | dict) for row in rows)


def _nothing(what: str, features: Mapping[str, Any]) -> str:
    wanted = {
        "choices": "no choices: expected columns such as ending0, ending1 …, or a list in `choices`",
        "text": "no prompt: expected a column such as sent1 or question",
    }[what]
    return f"{wanted}; found: {', '.join(features)}\nsay which: --columns {what}=COLUMN"
