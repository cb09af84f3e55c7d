"""Conversations in any of their layouts as rows of `prompt`, `completion` and `tools`.

A message is {"role", "content", "more"}: `more` holds what else the message has (tool calls, reasoning, a name) as JSON,
"" for none, so that all messages have one type in a table.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_tuner import catalog
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import EmptyRow, Layout, RowError

Message = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
SPOKEN = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant",
          "function": "tool", "function_call": "assistant", "observation": "tool", "ipython": "tool"}  # fmt: skip
"""Other words for the roles."""
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
COLUMNS = {
    "prompt": ("prompt", "instruction", "question", "query", "input"),
    "messages": MESSAGES,
    "completion": ("completion", "response", "output", "answer", "reply", "target"),
    "input": ("input", "context"),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}
PAIRS = (
    ("prompts and completions", ("prompt",), ("completion", "response", "output", "answer", "target")),
    ("instructions (alpaca)", ("instruction",), ("output", "response", "completion", "answer")),
    ("questions and answers", ("question", "query"), ("answer", "response", "completion", "output")),
    ("inputs and outputs", ("input",), ("output", "target", "response")),
)
"""Layouts of two columns: name, names of what is asked, names of what is answered."""


def conversation_layout(
    features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]
) -> Layout:
    """The layout of chat messages, ShareGPT conversations, instructions, prompts or questions.

    Raises UsageError when none fits.
    """
    names = list(features)
    beside = {name: given.get(name) or _named(names, COLUMNS[name]) for name in ("system", "tools")}
    beside = {name: column for name, column in beside.items() if column}
    asked = "prompt" in given or "completion" in given
    chat = given.get("messages") or ("" if asked else _named([n for n in names if _is_chat(first, n)], MESSAGES))
    if not chat and not asked and "prompt" not in names:
        chat = next((name for name in names if _is_chat(first, name)), "")
    if not chat and not asked and not _fits(names):
        chat = _named(names, MESSAGES)  # no row of it holds a conversation: each says so itself
    if chat:
        shared = any("from" in message for message in _first_chat(first, chat))
        kind = "ShareGPT conversations" if shared else "chat messages"
        return Layout(kind, {"messages": chat, **beside}, lambda row: whole(messages_of(row.get(chat)), row, beside))
    kind, prompt, completion = _pair(names, given)
    extra = given.get("input") or (_named(names, COLUMNS["input"]) if kind.startswith("instructions") else "")
    columns = {"prompt": prompt, **({"completion": completion} if completion else {}), **beside}
    if extra and extra != prompt:
        columns["input"] = extra

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        asks = said(row.get(prompt), "user", prompt)
        if columns.get("input") and str(row.get(extra) or "").strip():
            asks[-1] = {**asks[-1], "content": f"{asks[-1]['content']}\n\n{row[extra]}"}
        answer = said(row.get(completion), "assistant", completion) if completion else []
        return whole(asks, row, beside, answer)

    return Layout(kind, columns, convert)


def whole(
    messages: list[Message], row: Mapping[str, Any], beside: Mapping[str, str], answer: list[Message] | None = None
) -> dict[str, Any]:
    """A canonical row: the last answer apart from what leads to it, tools as JSON."""
    system = row.get(beside.get("system", ""))
    if system and str(system).strip() and (not messages or messages[0]["role"] != "system"):
        messages = [plain("system", str(system)), *messages]
    if not messages:
        raise EmptyRow("no messages")
    if answer is None:
        ends = len(messages) - (messages[-1]["role"] == "assistant" and len(messages) > 1)
        messages, answer = messages[:ends], messages[ends:]
    return {"prompt": messages, "completion": answer, "tools": tools_of(row.get(beside.get("tools", "")))}


def said(value: Any, role: str, column: str) -> list[Message]:
    """Messages of a cell: those it holds, or its text as one message of `role`. Raises EmptyRow, RowError."""
    if isinstance(value, list):
        return messages_of(value)
    if value is None or not str(value).strip():
        raise EmptyRow(f'"{column}" is empty')
    return [plain(role, str(value))]


def messages_of(value: Any) -> list[Message]:
    """Messages of a list of {"role", "content"} or {"from", "value"}. Raises EmptyRow for none, RowError for others."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError("the messages are text, and no JSON") from error
    if not value:
        raise EmptyRow("no messages")
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RowError(f"expected a list of messages, found {str(value)[:60]}")
    return [_message(one) for one in value]


def plain(role: str, content: str) -> Message:
    """A message of text alone."""
    return {"role": role, "content": content, "more": ""}


def tools_of(value: Any) -> str:
    """Tools as JSON, "" for none. Raises RowError for text that is no JSON."""
    if not value:
        return ""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError("the tools are text, and no JSON") from error
    return json.dumps(without_none(value), ensure_ascii=False) if value else ""


def for_template(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as a chat template reads them."""
    return [{"role": m["role"], "content": m["content"], **(json.loads(m["more"]) if m["more"] else {})}
            for m in messages]  # fmt: skip


def without_none(value: Any) -> Any:
    """The value without keys of nothing: a table gives every record the keys of all the others."""
    if isinstance(value, dict):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list) else value


def out_of_order(messages: Sequence[Message]) -> str:
    """What is odd about the order of roles; "" when a user and an assistant take turns, tools answering calls."""
    last = ""
    for message in messages:
        role = message["role"]
        if role == last and role in ("user", "assistant"):
            return f"{role} after {role}"
        if role in ("system", "developer") and last not in ("", "system", "developer"):
            return f"{role} after {last}"
        if role == "assistant" and last in ("", "system", "developer"):
            return "the assistant speaks first"
        if role == "tool" and last not in ("assistant", "tool"):
            return f"a tool answers after {last or 'nothing'}"
        last = role
    return ""


def text_of(messages: Iterable[Message]) -> str:
    """Messages as a person reads them, a line each."""
    return "\n".join(f"{m['role']}: {m['content'] or m['more']}" for m in messages)


def _message(one: Mapping[str, Any]) -> Message:
    found = without_none(dict(one))
    role = str(found.pop("role", None) or found.pop("from", ""))
    role = SPOKEN.get(role.lower(), role.lower())
    if role not in ROLES:
        raise RowError(catalog.unknown("role", role, list(ROLES)))
    content = found.pop("content", None)
    content = _text(content if content is not None else found.pop("value", None))
    more = found.pop("more", "")
    more = more if isinstance(more, str) and more else json.dumps(found, ensure_ascii=False) if found else ""
    if not content.strip() and not more and role != "system":
        raise EmptyRow(f"an empty turn of the {role}")
    return {"role": role, "content": content, "more": more}


def _text(content: Any) -> str:
    if not isinstance(content, list):
        return "" if content is None else str(content)
    strange = [str(p.get("type")) for p in content if isinstance(p, dict) and p.get("type", "text") != "text"]
    if strange:
        raise RowError(f"a message holds a part of type {strange[0]}; only text is read")
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in content)


def _first_chat(first: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found: Iterable[Any] = (row[name] for row in first if row.get(name))
    value: Any = next(iter(found), [])
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            value = []
    return [m for m in value if isinstance(m, dict)] if isinstance(value, list) else []


def _is_chat(first: Sequence[dict[str, Any]], name: str) -> bool:
    return any({"role", "content"} <= m.keys() or {"from", "value"} <= m.keys() for m in _first_chat(first, name))


def _pair(names: Sequence[str], given: Mapping[str, str]) -> tuple[str, str, str]:
    """Name of the layout and its two columns; the second is "" where there are no answers."""
    if "prompt" in given:
        return (
            "prompts and completions",
            given["prompt"],
            given.get("completion") or _named(names, COLUMNS["completion"]),
        )
    if found := _fits(names, given.get("completion", "")):
        return found
    raise UsageError(
        f"no conversations in these columns: {', '.join(names)}; expected messages (a list of role and content), "
        "conversations (from and value), prompt and completion, instruction and output, or question and answer. "
        "--columns prompt=COLUMN,completion=COLUMN says which"
    )


def _fits(names: Sequence[str], completion: str = "") -> tuple[str, str, str] | None:
    """The first of PAIRS that has its columns, else one that has what is asked; `completion` is given."""
    for both in (True, False):
        for kind, asks, answers in PAIRS:
            prompt, answer = _named(names, asks), completion or _named(names, answers)
            if prompt and answer != prompt and (answer or not both):
                return kind, prompt, answer
    return None


def _named(names: Iterable[str], wanted: Sequence[str]) -> str:
    """The first of `wanted` among the names, whatever their case."""
    found = {name.lower(): name for name in names}
    return next((found[name] for name in wanted if name in found), "")
