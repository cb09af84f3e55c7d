"""Chat templates: which one is used, where the assistant speaks in what it makes, and what ends a turn.

Templates are strangers' programs: they are rendered by `tokenizer.tuner_render`, in a process of their own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._conversations import Message, for_template
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN

GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
SPOKEN = "Good morning to you."
TRIAL = ({"role": "user", "content": "Good morning."}, {"role": "assistant", "content": SPOKEN})
CALLS = "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
BUILT_IN = {
    "chatml": (
        "{% if tools %}{{ '<|im_start|>tools\\n' ~ (tools | tojson) ~ '<|im_end|>\\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}" + CALLS + "{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ m.content ~ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "plain": (
        "{{ bos_token }}{% if tools %}{{ '### Tools:\\n' ~ (tools | tojson) ~ '\\n\\n' }}{% endif %}"
        "{% for m in messages %}{{ '### ' ~ m.role | capitalize ~ ':\\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}" + CALLS + "{{ eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
        "{% else %}{{ m.content ~ '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
    ),
}
"""Templates for models that have none, with marks around what the assistant says."""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Chat:
    """How conversations become tokens; a plain value."""

    template: str
    """For training: with generation marks where there are any for this template."""
    end: int
    """The token that ends a turn, and at which generation stops."""
    special: tuple[tuple[str, str], ...]
    """Special tokens that the template may read."""


@dataclass
class Encoded:
    """One conversation as tokens."""

    ids: list[int]
    labels: list[int]
    """-100 where nothing is learnt."""
    turns: int
    """Turns of the assistant that the loss covers to their end."""
    ends: int
    """How often the token that ends a turn is learnt."""


def dress(tokenizer: Any, choice: str, trial: Sequence[Mapping[str, Any]] = TRIAL) -> str:
    """Give the tokenizer its chat template, and make the token that ends a turn its end token; says what was done.

    `choice` is "auto" (the model's own, else chatml or plain), a built-in name or a template; `trial` a conversation as the
    template reads it, whose last answer is SPOKEN. Raises UsageError when the template cannot be used.
    """
    template, said = _chosen(tokenizer, choice)
    tokenizer.chat_template = template
    end = _turn_end(tokenizer, template, trial)
    if end is not None and end != tokenizer.eos_token_id:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.eos_token_id is None:
        raise UsageError("the tokenizer has no token that ends a text, and the chat template ends turns with none: the model "
                         "could not learn to stop; use a model with an eos_token")  # fmt: skip
    marks = "marked in it" if marked(training_template(template)) else "found by comparing what it renders"
    by = "" if end is not None else ", added to its turns"
    return f"{said}; turns of the assistant are {marks} and end with {tokenizer.eos_token}{by}"


def template_text(choice: str) -> str:
    """What --chat-template names: auto, a built-in name, or the text of a file. Raises UsageError."""
    if choice in ("auto", *BUILT_IN) or "{" in choice:
        return choice
    path = Path(choice).expanduser()
    if not path.is_file():
        raise UsageError(
            f"--chat-template {choice}: no such file; expected auto, {', '.join(BUILT_IN)} or a Jinja file"
        )
    return path.read_text(encoding="utf-8")


def chat_of(tokenizer: Any) -> Chat:
    """How a dressed tokenizer reads conversations."""
    own = _default(tokenizer.chat_template)
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
    return Chat(training_template(own), int(tokenizer.eos_token_id), tuple(sorted(special.items())))


def training_template(template: str) -> str:
    """The same template with generation marks, where one is known: built in here, or among trl's. Else as it is."""
    if marked(template):
        return template
    ours = {GENERATION.sub("", text): text for text in BUILT_IN.values()}
    return ours.get(template) or _of_trl(template) or template


def marked(template: str) -> bool:
    """Whether a template marks what the assistant says."""
    return GENERATION.search(template) is not None


def encode(
    tokenizer: Any, chat: Chat, rows: Sequence[tuple[list[Message], list[Message], str]], loss_on: str, limit: int
) -> list[Encoded]:
    """Conversations (prompt, completion, tools as JSON) as tokens, at most `limit` each, with what the loss covers.

    `loss_on`: "assistant" every turn of the assistant, "completion" the completion's, "all" every token. Each turn that
    is covered ends with `chat.end`, which is learnt once. Raises UsageError when the template refuses a conversation or
    where the assistant speaks cannot be told.
    """
    texts, spans = located(tokenizer, chat, rows, loss_on)
    cut = [text[: limit * CHARACTERS_PER_TOKEN] for text in texts]
    tokens = tokenised(tokenizer, cut)
    return [
        labelled(tokenizer, tokens, i, spans[i], (chat.end, loss_on == "all", (len(cut[i]), len(texts[i])), limit))
        for i in range(len(cut))
    ]


def tokenised(tokenizer: Any, texts: list[str]) -> Any:
    """The tokens of texts that are complete, with the characters they stand for. Raises UsageError for a slow tokenizer."""
    if not tokenizer.is_fast:
        raise UsageError("the tokenizer cannot say which characters a token stands for (it is a slow one): where the "
                         "assistant speaks is not found; use a model with a tokenizer.json")  # fmt: skip
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)


def labelled(
    tokenizer: Any, tokens: Any, row: int, spans: list[tuple[int, int]], how: tuple[int, bool, tuple[int, int], int]
) -> Encoded:
    """One of the texts that were `tokenised`, with labels where `spans` (characters) lie.

    `how`: the token that ends a turn, whether everything is learnt, how many characters were tokenised of how many, and
    how many tokens are kept.
    """
    end, everything, (read, length), limit = how
    ids = list(tokens["input_ids"][row])
    return _labelled(tokenizer, ids, _token_spans(tokens, row, spans, read), end, (everything, read < length, limit))


def prompt_texts(tokenizer: Any, rows: Sequence[tuple[list[Message], str]]) -> list[str]:
    """Texts up to where the assistant begins to answer, by the tokenizer's own template. Raises UsageError."""
    own, special = _default(tokenizer.chat_template), chat_of(tokenizer).special
    return _rendered(tokenizer, own, [_values(messages, tools, special, ask=True) for messages, tools in rows])


def prompt_ids(tokenizer: Any, rows: Sequence[tuple[list[Message], str]]) -> list[list[int]]:
    """Token ids up to where the assistant begins to answer, by the tokenizer's own template. Raises UsageError."""
    texts = prompt_texts(tokenizer, rows)
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False, return_attention_mask=False,
                                           verbose=False)["input_ids"]]  # fmt: skip


def located(
    tokenizer: Any, chat: Chat, rows: Sequence[tuple[list[Message], list[Message], str]], loss_on: str
) -> tuple[list[str], list[list[tuple[int, int]]]]:
    """Texts of conversations and, in characters, the turns that are learnt."""
    whole = [_values([*prompt, *answer], tools, chat.special) for prompt, answer, tools in rows]
    if marked(chat.template):
        made = tokenizer.tuner_render(chat.template, whole)
        _require_rendered(made)
        spans = [_joined([(a, b) for a, b in one.spans if b > a]) for one in made]
        if loss_on == "completion":
            spans = [
                found[-_spoken(row[1]) :] if _spoken(row[1]) else [] for found, row in zip(spans, rows, strict=True)
            ]
        return [one.text for one in made], spans
    return _by_prefixes(tokenizer, chat, rows, whole, loss_on == "completion")


def _by_prefixes(
    tokenizer: Any, chat: Chat, rows: Sequence[tuple[list[Message], list[Message], str]], whole: list[dict[str, Any]],
    last: bool,
) -> tuple[list[str], list[list[tuple[int, int]]]]:  # fmt: skip
    """Texts and turns of a template without marks: an answer is what is added to what stands before it."""
    values, places = list(whole), []
    for number, (prompt, answer, tools) in enumerate(rows):
        messages = [*prompt, *answer]
        for turn, message in enumerate(messages):
            if message["role"] == "assistant" and turn and (not last or turn >= len(prompt)):
                places.append(number)
                values.append(_values(messages[:turn], tools, chat.special, ask=True))
                values.append(_values(messages[: turn + 1], tools, chat.special))
    texts = _rendered(tokenizer, chat.template, values)
    spans: list[list[tuple[int, int]]] = [[] for _ in rows]
    pairs = zip(texts[len(rows) :: 2], texts[len(rows) + 1 :: 2], strict=True)
    for number, (before, after) in zip(places, pairs, strict=True):
        if not (after.startswith(before) and texts[number].startswith(after)):
            raise UsageError(
                "the chat template marks no turns of the assistant, and writes earlier turns otherwise once others follow: "
                "where the assistant speaks cannot be told\n"
                "choose another: --chat-template chatml (or plain, or a FILE with {% generation %} marks)"
                + ("" if last else "; or learn the last answer alone: --loss-on completion")
            )
        spans[number].append((len(before), max(len(before), len(after.rstrip()))))  # a line end is not the answer's
    return texts[: len(rows)], spans


def _labelled(
    tokenizer: Any, ids: list[int], spans: list[tuple[int, int]], end: int, how: tuple[bool, bool, int]
) -> Encoded:
    """Tokens with their labels: each span is learnt with its end token, which is put there where it is missing.

    `how`: whether everything is learnt, whether the text was cut, how many tokens are kept.
    """
    everything, cut, limit = how
    learnt = [False] * len(ids)
    closing: list[int] = []
    for start, stop in reversed(spans):
        inside = ids[start:stop].count(end)
        if inside > 1:
            raise UsageError(f"an answer holds {tokenizer.convert_ids_to_tokens(end)} itself, the token that ends a turn: "
                             f'"{tokenizer.decode(ids[start:stop])[:60]}"; take it out of the text')  # fmt: skip
        if not inside and not (cut and stop == len(ids)):
            blank = ids[stop + 1 : stop + 2] == [end] and not tokenizer.decode(ids[stop : stop + 1]).strip()
            if not blank and ids[stop : stop + 1] != [end]:
                ids.insert(stop, end)
                learnt.insert(stop, False)
                closing = [place + 1 for place in closing]
            stop += 1 + blank
        learnt[start:stop] = [True] * (stop - start)
        closing += [start + ids[start:stop].index(end)] if end in ids[start:stop] else []
    labels = [token if on or everything else -100 for token, on in zip(ids, learnt, strict=True)][:limit]
    labels[:1] = [-100]  # nothing stands before the first token that could predict it
    found = sum(label == end and on for label, on in zip(labels, learnt, strict=False))
    return Encoded(ids[:limit], labels, sum(place < limit for place in closing), found)


def _token_spans(tokens: Any, row: int, spans: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Spans in tokens; characters that no token stands for (spaces that are dropped) are stepped over."""
    found = []
    for start, stop in spans:
        inside = range(start, min(stop, length))
        first = next((t for c in inside if (t := tokens.char_to_token(row, c)) is not None), None)
        last = next((t for c in reversed(inside) if (t := tokens.char_to_token(row, c)) is not None), None)
        if first is not None and last is not None:
            found.append((first, last + 1))
    return found


def _chosen(tokenizer: Any, choice: str) -> tuple[str, str]:
    own = _default(tokenizer.chat_template)
    chatml = all(token in tokenizer.get_vocab() for token in CHATML_TOKENS)
    if choice == "auto" and own:
        return own, "the model's own"
    if choice == "chatml" and not chatml:
        raise UsageError("--chat-template chatml: the tokenizer has no tokens <|im_start|> and <|im_end|>; "
                         "--chat-template plain needs none")  # fmt: skip
    if choice in ("auto", *BUILT_IN):
        name = choice if choice != "auto" else "chatml" if chatml else "plain"
        why = "the model has none" if not own else "as asked, instead of the model's own"
        return GENERATION.sub("", BUILT_IN[name]), f"{name} ({why}), saved with the tokenizer"
    return choice, "as given, saved with the tokenizer"


def _turn_end(tokenizer: Any, template: str, trial: Sequence[Mapping[str, Any]]) -> int | None:
    """The special token that stands first behind an answer; None when the template ends turns with none."""
    special = tuple((k, str(v)) for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str))
    text = _rendered(tokenizer, template, [_values(trial, "", special)])[0]
    if SPOKEN not in text:
        raise UsageError("the chat template leaves out what the assistant says: nothing could be learnt from it")
    tail = tokenizer(text.rpartition(SPOKEN)[2], add_special_tokens=False)["input_ids"]
    kinds = tokenizer.added_tokens_decoder
    known = {i for i, token in kinds.items() if token.special} | {tokenizer.eos_token_id}
    first = next((i for i in tail if tokenizer.decode([i]).strip() or i in known), None)
    return first if first in known else None


def _values(messages: Any, tools: str, special: Sequence[tuple[str, str]], *, ask: bool = False) -> dict[str, Any]:
    import json

    return {"messages": for_template({"more": "", **m} for m in messages), "tools": json.loads(tools) if tools else None,
            "add_generation_prompt": ask, **dict(special)}  # fmt: skip


def _rendered(tokenizer: Any, template: str, values: list[dict[str, Any]]) -> list[str]:
    made = tokenizer.tuner_render(template, values)
    _require_rendered(made)
    return [one.text for one in made]


def _require_rendered(made: Sequence[Any]) -> None:
    refused = [one.refused for one in made if one.refused]
    if refused:
        raise UsageError(f"the chat template refuses {len(refused)} of {len(made)} conversations: {refused[0]}\n"
                         "`hf-tuner check` names rows whose roles are out of order; --chat-template chatml or plain takes "
                         "any order")  # fmt: skip


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that touch as one: some templates mark an answer and its end apart."""
    result: list[tuple[int, int]] = []
    for start, end in spans:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


def _spoken(messages: Sequence[Message]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


def _default(template: str | Mapping[str, str] | None) -> str:
    return str((template.get("default", "") if isinstance(template, Mapping) else template) or "")


def _of_trl(template: str) -> str:
    """trl keeps templates of well-known models in pairs of files, x.jinja and x_training.jinja."""
    import importlib.util

    found = importlib.util.find_spec("trl")
    folder = Path(found.origin).parent / "chat_templates" if found and found.origin else None
    for path in sorted(folder.glob("*_training.jinja")) if folder else ():
        plain = path.with_name(path.name.replace("_training", ""))
        if plain.is_file() and plain.read_text(encoding="utf-8") == template:
            return path.read_text(encoding="utf-8")
    return ""
