"""Rows of a source and a target text: which columns they stand in, several references included, and what is odd."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from hf_tuner import catalog
from hf_tuner.errors import UsageError
from hf_tuner.tasks._languages import two_letters
from hf_tuner.tasks._task import EmptyRow, Findings, Layout, RowError

DICTIONARIES = ("translation", "translations")
"""Columns that hold the same sentence by language."""
SHOWN = 20
"""At most so many column names stand in an error."""
ODD_RATIO = 4.0
"""A row is an outlier when its lengths are this many times further apart than those of the middle row."""
SHORT = 20
"""Texts of fewer characters are no outliers: "Yes." may be a sentence elsewhere."""
LOOKED_AT = 50_000
"""Rows whose words are counted."""
FEW = 20
"""With fewer rows, words tell nothing about languages."""
WORDS = re.compile(r"\w+")


def find(wanted: Sequence[str], names: Sequence[str], taken: Sequence[str] = ()) -> str | None:
    """The first wanted name among column names, without regard to case."""
    free = {name.lower(): name for name in names if name not in taken}
    return next((free[name] for name in wanted if name in free), None)


def pair_layout(what: str, columns: Mapping[str, Sequence[str]], names: Sequence[str], given: Mapping[str, str],
                first: Sequence[dict[str, Any]]) -> Layout:  # fmt: skip
    """Rows with a column `text`, one `target`, and perhaps a list of `references`. Raises UsageError without a `text`."""
    found = {name: given[name] for name in columns if name in given}
    for name, wanted in columns.items():
        column = None if name in found else find(wanted, names, list(found.values()))
        if column:
            found[name] = column
    if "text" not in found:
        raise _no_text(what, columns["text"], names)
    several = "references" in found or _is_list(first, found.get("target"))

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"text": joined(row[found["text"]], found["text"])}
        known = texts_of(row[found["references"]], found["references"]) if "references" in found else []
        if "target" in found:
            own = texts_of(row[found["target"]], found["target"])
            made["target"], known = own[0], known or own
        elif known:
            made["target"] = known[0]
        return {**made, **({"references": known} if several else {})}

    return Layout(what + (", several references a row" if several else ""), found, convert)


def language_layout(
    column: str, source: str, target: str, given: Mapping[str, str], keys: Sequence[str], asked: bool
) -> Layout:
    """Rows whose column holds one sentence by language; `target` may be missing from rows to translate."""

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        cell = row[column]
        if not isinstance(cell, Mapping):
            raise RowError(f'"{column}" is {type(cell).__name__}; expected one text for each language')
        made = {"text": joined(cell.get(source), f"{column}.{source}")}
        return {**made, **({"target": joined(cell.get(target), f"{column}.{target}")} if target in keys else {})}

    why = "" if asked else f" (the order they stand in; --source-language {target} turns it round)"
    found = {"text": f"{column}.{source}", **({"target": f"{column}.{target}"} if target in keys else {})}
    return Layout(f"sentences by language, {source} → {target}{why}", found, convert)


def joined(value: Any, column: str) -> str:
    """One text: as it is, or sentences joined. Raises EmptyRow when there is none, RowError for what is no text."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        value = " ".join(one.strip() for one in value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise EmptyRow(f'"{column}" is empty')
    if not isinstance(value, str):
        raise RowError(f'"{column}" holds {type(value).__name__} {str(value)[:40]!r}; expected a text')
    return value


def texts_of(value: Any, column: str) -> list[str]:
    """One or several texts as a list, without the empty ones. Raises EmptyRow when none is left."""
    if not isinstance(value, list | tuple):
        return [joined(value, column)]
    kept = [joined(one, column) for one in value if one is not None and (not isinstance(one, str) or one.strip())]
    if not kept:
        raise EmptyRow(f'"{column}" is empty')
    return kept


def audit_pairs(data: Mapping[str, Any], *, languages: bool) -> Findings:
    """What is odd in rows with `text` and `target`: equal sides, lengths out of proportion, languages changed over.

    Raises UsageError when there is no target to learn.
    """
    if "target" not in data["train"].column_names:
        raise UsageError("no column holds the target texts; name it: --columns text=COLUMN,target=COLUMN")
    found = Findings()
    for split, rows in data.items():
        if "target" not in rows.column_names:
            found.errors.append((split, 0, "this split has no target texts; leave it out, or name another"))
            continue
        few = rows.select(range(min(len(rows), LOOKED_AT)))
        pairs = list(zip(few["text"][:], few["target"][:], strict=True))
        counts = {
            "the same text on both sides": sum(a.strip() == b.strip() for a, b in pairs),
            "a target longer than its source": 0 if languages else sum(len(b) > len(a) for a, b in pairs),
            f"lengths over {ODD_RATIO:g} times out of the usual proportion": len(outliers(pairs)) if languages else 0,
            "source and target changed over, going by their words": len(swapped(pairs)) if languages else 0,
        }
        found.facts.setdefault("odd_rows", {})[split] = counts
        found.warnings += [f"{split}: {n:,} of {len(pairs):,} rows have {what}" for what, n in counts.items() if n]
    found.lines["lengths"] = _lengths(data["train"])
    return found


def outliers(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Rows whose target is far longer or shorter than usual beside its source, by characters; short texts left out."""
    if not pairs:
        return []
    usual = median((len(b) + 1) / (len(a) + 1) for a, b in pairs)
    long = [max(len(a), len(b)) >= SHORT for a, b in pairs]
    ratios = [(len(b) + 1) / (len(a) + 1) / usual for a, b in pairs]
    return [i for i, r in enumerate(ratios) if long[i] and not 1 / ODD_RATIO <= r <= ODD_RATIO]


def swapped(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Rows whose source is made of words that stand in targets elsewhere, and whose target of those of sources.

    Each side's words are counted over all other rows; a row is named when both its sides would be twice as likely per
    word, on the average, on the other side.
    """
    if len(pairs) < FEW:
        return []
    words = [tuple([w.lower() for w in WORDS.findall(side)] for side in pair) for pair in pairs]
    left, right = (Counter(w for pair in words for w in pair[side]) for side in (0, 1))

    def leans(own: list[str], mine: Counter[str], others: Counter[str]) -> bool:
        here = Counter(own)
        shares = [(others[w] + 0.5) / (mine[w] - here[w] + 0.5) for w in own]
        product = sum(_log2(share) for share in shares)
        return bool(own) and product > len(own)

    return [i for i, (a, b) in enumerate(words) if leans(a, left, right) and leans(b, right, left)]


def languages_of(columns: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Source and target language, where the names of the columns say them: translation.en, de, text_fr."""
    return tuple(_language(columns.get(side, "")) for side in ("text", "target"))  # type: ignore[return-value]


def _language(column: str) -> str | None:
    """The language code at the end (or start) of a column's name, as it stands there."""
    inner = column.rpartition(".")[2]
    parts = [inner, inner.rpartition("_")[2], inner.partition("_")[0]]
    return next((p for p in parts if 2 <= len(p) <= 8 and len(re.split("[_-]", p)[0]) <= 3 and two_letters(p)), None)


def _log2(value: float) -> float:
    from math import log2

    return log2(value)


def _is_list(first: Sequence[dict[str, Any]], column: str | None) -> bool:
    return column is not None and any(isinstance(row.get(column), list) for row in first)


def _lengths(rows: Any) -> str:
    few = rows.select(range(min(len(rows), LOOKED_AT)))
    words = [(len(a.split()), len(b.split())) for a, b in zip(few["text"][:], few["target"][:], strict=True)]
    source, target = (sum(pair[side] for pair in words) / max(1, len(words)) for side in (0, 1))
    return f"sources have {source:.0f} words on the average, targets {target:.0f}"


def _no_text(what: str, wanted: Sequence[str], names: Sequence[str]) -> UsageError:
    close = next((near for name in wanted if (near := catalog.nearest(name, list(names)))), None)
    hint = f'; is it "{close}"?' if close else ""
    listed = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return UsageError(f"{what}: no column holds the source texts (looked for {', '.join(wanted[:6])} …){hint}\n"
                      f"found: {listed}\nsay which: --columns text=COLUMN,target=COLUMN")  # fmt: skip
