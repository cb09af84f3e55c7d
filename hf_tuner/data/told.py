"""What `load_data` says on the screen."""

from collections.abc import Mapping
from typing import Any

from hf_tuner import console
from hf_tuner.data.audit import Audit
from hf_tuner.tasks._labels import Labels


def also(others: Mapping[str, list[str]]) -> str:
    """Columns that could have been taken too, for the end of a line."""
    pairs = [f"{name}={column}" for name, columns in others.items() for column in columns]
    return f" (also possible: --columns {', '.join(pairs[:3])})" if pairs else ""


def labels_lines(labels: Labels | None, checked: Audit) -> dict[str, str]:
    """What the labels are and how many rows each class has."""
    if labels is None:
        return {}
    classes = checked.facts.get("classes")
    return {"labels": labels.note, **({"classes": _sizes(classes)} if classes else {})}


def tell(lines: Mapping[str, str], checked: Audit, notes: list[str]) -> None:
    """Print what was found: where from, which columns, how many rows, what labels, how long texts are."""
    first = {name: lines[name] for name in ("data", "columns") if name in lines}
    rows = ", ".join(f"{split} {console.count(rows.num_rows)}" for split, rows in checked.data.items())
    shown = {**first, "rows": rows, **{name: text for name, text in lines.items() if name not in first}}
    sizes = checked.facts.get("characters")
    if sizes:
        shown["repeats"] = _repeats(checked.facts)
        shown["texts"] = "half up to {p50:,} characters, 95 % up to {p95:,}, longest {max:,}".format(**sizes)
    for name, text in shown.items():
        console.say(f"{name:<9} {text}")
    for note in dict.fromkeys(notes):
        console.say(f"{'note':<9} {note}")
    for warning in (*checked.warnings, *checked.facts.get("examples", [])):
        console.warn(warning)


def _sizes(classes: Mapping[str, int]) -> str:
    """How many training rows the classes have."""
    ordered = sorted(classes.items(), key=lambda pair: -pair[1])
    if len(ordered) <= 6:
        return ", ".join(f"{name} {console.count(n)}" for name, n in ordered)
    (most, top), (least, low) = ordered[0], ordered[-1]
    return f"{console.count(low)} ({least}) to {console.count(top)} ({most}) rows each"


def _repeats(facts: Mapping[str, Any]) -> str:
    """How many rows repeat others, and how many evaluation rows stand in train."""
    again = f"{console.count(facts['duplicates'])} in train" if facts["duplicates"] else "none in train"
    leaked = [f"{console.count(n)} of {split} stand in train" for split, n in facts["leaked"].items() if n]
    clean = [split for split, n in facts["leaked"].items() if not n]
    return "; ".join([again, *leaked, *([f"no row of {' or '.join(clean)} stands in train"] if clean else [])])
