"""Which column of the data is the text, which the second text, which the label."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError

PAIRS = (
    ("text", "text_pair"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
)
"""Names that together mean a text and its partner."""
SIDE_WORDS = {"id", "ids", "idx", "index", "length", "count", "date", "time", "url", "confidence", "lang", "name"}
"""Words that mark a column as something beside the text or label ("text_id", "label_confidence")."""


def match_columns(available: Sequence[str], task: type, given: str | None = None) -> dict[str, str]:
    """Canonical name → column of the data, for every column of `task.columns` that is there.

    `given` ("text=review,label=stars") goes first; the rest is found by exact name, without regard to case, then
    by likeness, in the task's order of preference. Raises UsageError that lists the columns and how to name one.
    """
    wanted: Mapping[str, Sequence[str]] = getattr(task, "columns")  # noqa: B009 - declared by convention
    optional: Sequence[str] = getattr(task, "optional", ())
    result = parse_columns(given, available, list(wanted))
    alone = "text" in result  # a text named by hand has no partner unless that is named too
    if "text" in wanted and "text_pair" in wanted and not {"text", "text_pair"} & set(result):
        result.update(_pair(available, set(result.values())))
    for name, accepted in wanted.items():
        # A second text is taken by a name that can mean nothing else; the ambiguous ones count in pairs only.
        names = accepted if name != "text_pair" else [a for a in accepted if a not in _PARTNERS]
        if name in result or (name == "text_pair" and alone):
            continue
        found = _find(available, names, set(result.values()), _others(wanted, name), name in optional)
        if found is not None:
            result[name] = found
    missing = [name for name in wanted if name not in result and name not in optional]
    if missing:
        raise UsageError(_not_found(missing, available, wanted, result))
    return {name: result[name] for name in wanted if name in result}


_PARTNERS = {second for _, second in PAIRS if second != "text_pair"}


def parse_columns(given: str | None, available: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Read "text=review,label=stars". Raises UsageError for a name that is not there, with the nearest."""
    result: dict[str, str] = {}
    for part in (given or "").split(","):
        if not part.strip():
            continue
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise UsageError(f'--columns "{part.strip()}": expected NAME=COLUMN, such as text=review,label=stars')
        if name not in known:
            close = nearest(name, list(known))
            hint = f'; did you mean "{close}"?' if close else ""
            raise UsageError(f'--columns: no "{name}" in this task{hint} Known: {", ".join(known)}')
        exact = column if column in available else _same_case(column, available)
        if exact is None:
            close = nearest(column, list(available))
            hint = f'; did you mean "{close}"?' if close else ";"
            raise UsageError(f'--columns {name}={column}: no column "{column}"{hint} found: {_listed(available)}')
        if exact in result.values():
            raise UsageError(f'--columns: column "{exact}" is given twice')
        result[name] = exact
    return result


def also_possible(available: Sequence[str], task: type, taken: Mapping[str, str]) -> dict[str, list[str]]:
    """Columns that could have been taken too, by canonical name: worth a word to the user."""
    wanted: Mapping[str, Sequence[str]] = getattr(task, "columns")  # noqa: B009
    rest = [column for column in available if column not in taken.values()]
    result = {}
    for name in ("text", "label"):
        words = {a.lower() for a in wanted.get(name, ())}
        others = [c for c in rest if c.lower() in words or (_tokens(c) & words and not _tokens(c) & SIDE_WORDS)]
        if name in taken and others:
            result[name] = others
    return result


def describe(taken: Mapping[str, str]) -> str:
    """What is read as what: "text, label <- coarse_label"."""
    return ", ".join(name if name == column else f"{name} <- {column}" for name, column in taken.items())


def _pair(available: Sequence[str], taken: set[str]) -> dict[str, str]:
    for first, second in PAIRS:
        columns = _same_case(first, available), _same_case(second, available)
        if columns[0] and columns[1] and not taken & set(columns):
            return {"text": columns[0], "text_pair": columns[1]}
    return {}


def _find(
    available: Sequence[str], accepted: Sequence[str], taken: set[str], others: set[str], strict: bool
) -> str | None:
    """The column for a list of accepted names; None when there is none, or several are equally like."""
    free = [column for column in available if column not in taken]
    for name in accepted:
        if name in free:
            return name
    for name in accepted:
        same = _same_case(name, free)
        if same:
            return same
    if strict:
        return None
    plain = [c for c in free if not _tokens(c) & (SIDE_WORDS | others) and not _is_value(c)]
    holding = [column for column in plain if _tokens(column) & set(accepted)]
    if len(holding) == 1:
        return holding[0]
    alike = [c for c in plain if len(c) > 3 and difflib.get_close_matches(c.lower(), accepted, n=1, cutoff=0.8)]
    return alike[0] if len(alike) == 1 and not holding else None


def _others(wanted: Mapping[str, Sequence[str]], name: str) -> set[str]:
    """Words that mean another column of the task: "label_text" is no text."""
    mine = set(wanted[name])
    return {word for other, words in wanted.items() if other != name for word in words} - mine


def _tokens(column: str) -> set[str]:
    """Words of a column name: "reviewText" and "Review Text" are review, text."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return {word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word}


def _same_case(name: str, available: Sequence[str]) -> str | None:
    same = [column for column in available if column.lower() == name.lower()]
    return next((column for column in same if column == name), same[0] if len(same) == 1 else None)


def _not_found(
    missing: list[str], available: Sequence[str], wanted: Mapping[str, Any], taken: Mapping[str, str]
) -> str:
    named = " and ".join(f'"{name}"' for name in missing)
    free = [column for column in available if column not in taken.values()]
    guesses = {m: _guess(wanted[m], free) or (free[0] if len(free) == 1 else "COLUMN") for m in missing}
    lines = [f"no column for {named}; found: {_listed(available)}"]
    if any(_is_value(column) for column in available):
        lines.append(
            f"the first line looks like data: is the header missing? It should name the columns ({','.join(wanted)})"
        )
    held = next((s for s in (",", ";", "\t", "|") if len(available) == 1 and s in available[0]), None)
    if held:
        lines.append(f'is the separator "{"tab" if held == chr(9) else held}" and not what --separator says?')
        return "\n".join(lines)
    lines.append(f"say which: --columns {','.join(f'{name}={column}' for name, column in guesses.items())}")
    return "\n".join(lines)


def _guess(accepted: Sequence[str], free: Sequence[str]) -> str | None:
    """The free column most like any accepted name."""
    scored = [
        (difflib.SequenceMatcher(None, column.lower(), name).ratio(), column) for column in free for name in accepted
    ]
    best = max(scored, default=(0.0, ""))
    return best[1] if best[0] >= 0.5 else None


def _is_value(column: str) -> bool:
    """Whether a column name reads like a cell: a sentence or a number."""
    return len(column.split()) >= 3 or len(column) > 60 or bool(re.fullmatch(r"[-+]?\d+([.,]\d+)?", column))


def _listed(columns: Sequence[str]) -> str:
    shown = [f'"{c[:40]}"' if " " in c or not c.isprintable() else c[:40] for c in columns[:20]]
    return ", ".join(shown) + (", …" if len(columns) > 20 else "")
