"""Conversations about pictures, in any of their layouts, as rows of `prompt`, `completion`, `tools` and `references`.

In the text of a message the character PICTURE stands where a picture is shown; the pictures themselves, one or a list of
them, go along in the column `images`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks import _conversations as conversations
from hf_tuner.tasks._conversations import Message, plain
from hf_tuner.tasks._task import EmptyRow, Layout, RowError
from hf_tuner.tasks._vision import PICTURES, picture_columns

PICTURE = "\ufffc"
"""Unicode's own sign for an object within a text."""
WRITTEN = "<image>"
"""How texts of other collections mark a picture."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "images": ("images", "pictures", "photos", *PICTURES),
    **conversations.COLUMNS,
    "question": ("question", "query", "question_text"),
    "answer": ("multiple_choice_answer", "answer", "response"),
    "references": ("references", "answers", "captions", "sentences"),
    "caption": ("caption", "text", "description", "sentence"),
}
INSIDE = ("answer", "text", "caption", "raw")
"""Where an answer stands that is a record."""


def picture_talk(
    features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str], ask: str
) -> Layout:
    """The layout of chat messages, prompts, questions or captions beside a column of pictures.

    `ask` is what is said of pictures that come without a question. Raises UsageError when none fits.
    """
    named = {"images": given["images"]} if "images" in given else {}
    column = picture_columns(features, named, {"images": COLUMNS["images"]}, "images")["images"]
    rest = {name: feature for name, feature in features.items() if name != column}
    known = {
        name: given.get(name) or _named(rest, COLUMNS[name]) for name in ("question", "answer", "references", "caption")
    }
    if _is_chat(rest, first, given):
        return _chat(rest, first, given, column, known["references"] if "completion" in rest else "")
    if known["question"] and not {"prompt", "instruction"} & {name.lower() for name in rest}:
        columns = {n: c for n in ("question", "answer", "references") if (c := known[n])}
        return _answered("questions about pictures", {"images": column, **columns}, "")
    if any(_named(rest, conversations.COLUMNS[name]) for name in ("prompt",)) or "prompt" in given:
        return _chat(rest, first, given, column, "")
    columns = {n: c for n in ("caption", "references") if (c := known[n])}
    return _answered("pictures with captions" if columns else "pictures", {"images": column, **columns}, ask)


def _chat(
    features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str], column: str, references: str
) -> Layout:
    """Messages, or prompts and completions, whose parts may be pictures."""
    own = {name: c for name, c in given.items() if name in conversations.COLUMNS}
    inner = conversations.conversation_layout(features, [_without_pictures(row) for row in first], own)

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        made = inner.convert({**row, **{c: flattened(row.get(c)) for c in inner.columns.values() if c in row}})
        return {**made, **({"references": texts_of(row[references])} if references else {})}

    known = {"references": references} if references else {}
    return Layout(f"{inner.name} with pictures", {"images": column, **inner.columns, **known}, convert)


def _answered(name: str, columns: Mapping[str, str], ask: str) -> Layout:
    """A question, or what is asked of every picture, and its answers."""
    target = columns.get("answer") or columns.get("caption")
    several = columns.get("references")

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        question = ask or str(row[columns["question"]] or "").strip()
        if not question:
            raise EmptyRow(f'"{columns["question"]}" is empty')
        found = texts_of(row[several]) if several else []
        own = texts_of(row[target]) if target else []
        if (target or several) and not (own or found):
            raise EmptyRow(f'"{target or several}" is empty')
        best = own[0] if own else Counter(found).most_common(1)[0][0] if found else ""
        answer = [plain("assistant", best)] if best else []
        asked = {"prompt": [plain("user", clean(question))], "completion": answer, "tools": ""}
        return {**asked, **({"references": found or own} if target or several else {})}

    return Layout(name, columns, convert)


def texts_of(value: Any) -> list[str]:
    """Answers in any of their forms: a text or number, a list of them, records, a record of lists; empty ones left out."""
    if isinstance(value, Mapping):
        inside = next((value[name] for name in INSIDE if name in value), None)
        return texts_of(inside) if inside is not None else []
    if isinstance(value, list):
        return [text for one in value for text in texts_of(one)]
    return [clean(str(value)).strip()] if value is not None and str(value).strip() else []


def clean(text: str) -> str:
    """A text in which nothing but a picture is written as one."""
    return text.replace(PICTURE, "")


def flattened(value: Any) -> Any:
    """Messages whose contents are texts with PICTURE where a picture is shown. Raises RowError for parts of other kinds."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, str):
        return _marked(value)
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        return value
    return [_flat(one) for one in value]


def _flat(message: Mapping[str, Any]) -> dict[str, Any]:
    """One message; that of a user may mark pictures as `<image>` in its text."""
    key = "content" if message.get("content") is not None else "value"
    content = message.get(key)
    speaks = str(message.get("role") or message.get("from") or "").lower()
    if isinstance(content, list):
        text = "".join(_part(one) for one in content)
    else:
        text = str(content or "")
        text = text if PICTURE in text or speaks not in ("user", "human") else _marked(text)
    if PICTURE in text and speaks in ("assistant", "gpt"):
        raise RowError("the assistant shows a picture; it can only write")
    return {**message, key: text}


def _part(part: Any) -> str:
    if isinstance(part, str):
        return clean(part)
    kind = str(part.get("type") or "text")
    if kind == "text":
        return clean(str(part.get("text") or ""))
    if kind not in ("image", "image_url"):
        raise RowError(f"a message holds a part of type {kind}; expected text and image")
    if any(part.get(name) for name in ("image", "url", "path", "base64", "image_url")):
        raise RowError('a message holds its picture itself; put pictures into a column "images", in their order, and only '
                       '{"type": "image"} into the message')  # fmt: skip
    return PICTURE


def _marked(text: str) -> str:
    """A text with `<image>`, and a line end beside it, as PICTURE."""
    return text.replace(f"{WRITTEN}\n", PICTURE).replace(f"\n{WRITTEN}", PICTURE).replace(WRITTEN, PICTURE)


def placed(messages: Sequence[Message], count: int) -> list[Message]:
    """Messages that show `count` pictures: those in which none is marked begin with all of them.

    Raises UsageError when as many are marked as there are not.
    """
    marked = sum(message["content"].count(PICTURE) for message in messages)
    if marked == count:
        return list(messages)
    if marked:
        raise UsageError(mismatch(marked, count))
    at = next((i for i, message in enumerate(messages) if message["role"] == "user"), 0)
    return [{**m, "content": PICTURE * count + m["content"]} if i == at else m for i, m in enumerate(messages)]


def mismatch(marked: int, count: int) -> str:
    """That a row marks another number of pictures than it has."""
    return f"its messages show {marked} picture{'s' * (marked != 1)}, the row has {count}"


def in_parts(messages: Sequence[Message]) -> list[Message]:
    """Messages as templates of models that see read them: contents are lists of text and image parts."""
    return [{**message, "content": _parts(message["content"])} for message in messages]


def _parts(text: str) -> list[dict[str, str]]:
    made: list[dict[str, str]] = []
    for number, piece in enumerate(text.split(PICTURE)):
        made += [{"type": "image"}] if number else []
        made += [{"type": "text", "text": piece}] if piece or PICTURE not in text else []
    return made


def pictures_of(value: Any) -> list[Mapping[str, Any]]:
    """A row's pictures, each {"bytes", "path"}: none, one or a list."""
    if value is None or (isinstance(value, Mapping) and value.get("bytes") is None and not value.get("path")):
        return []
    return list(value) if isinstance(value, list) else [value]


def _is_chat(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> bool:
    """Whether some column holds messages."""
    if "messages" in given:
        return True
    return any(_holds_messages(row.get(name)) for name in features for row in first)


def _holds_messages(value: Any) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return False
    one = value[0] if isinstance(value, list) and value else None
    return isinstance(one, Mapping) and ({"role", "content"} <= one.keys() or {"from", "value"} <= one.keys())


def _without_pictures(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which layouts of plain conversations are recognised."""
    made: dict[str, Any] = {}
    for name, value in row.items():
        try:
            made[name] = flattened(value)
        except RowError:
            made[name] = value
    return made


def _named(features: Mapping[str, Any], wanted: Sequence[str]) -> str:
    found = {name.lower(): name for name in features}
    return next((found[name] for name in wanted if name in found), "")
