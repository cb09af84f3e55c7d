"""The page of a run, self-contained: scores, proofs, curves, pictures, settings; see `frame`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_tuner.report import plots, table, wording
from hf_tuner.report.frame import embedded, rendered

if TYPE_CHECKING:
    from hf_tuner.report.plots import Picture
    from hf_tuner.report.report import Report

PAIRS_SHOWN = 15
WORDS = {"p50": "half up to", "p95": "95 % up to", "max": "longest", "looked_at": "rows looked at", "limit": "at most",
         "cut": "share cut", "pieces": "pieces a row", "ids": "ids of the tokenizer", "embeddings": "rows of embeddings",
         "checkpoints": "checkpoints", "checkpoint_bytes": "bytes of one", "result_bytes": "bytes of the result"}  # fmt: skip
"""What the audit's shorter names mean."""
STRIP = 220
"""Width of the line from 0 to 1, in pixels."""


def render(report: "Report", figures: Mapping[str, "Picture"]) -> str:
    """The page of a report as HTML, with its figures inside."""
    return rendered(
        "page.html.j2",
        report=report,
        details=report.details,
        tables=score_tables(report),
        verdict=table.verdict(report),
        figures={name: _embedded(picture) for name, picture in figures.items()},
        drawn=[(one, embedded(plots.png(one.image))) for one in report.details.get("drawn", ())],
        pairs=confused_pairs(report.details.get("confusion")),
        flat=_flat,
        audit=_flat(_worded(report.audit)),
        on_a_line=any(line["strip"] for shown in score_tables(report) for line in shown["lines"]),
    )


def score_tables(report: "Report") -> list[dict[str, Any]]:
    """For each split, headline first: its name, rows, baselines' names and one line for each metric."""
    result = []
    for split in wording.ordered(wording.SPLITS, report.metrics):
        baselines = [b for b in wording.ordered(wording.BASELINES, report.baselines) if split in report.baselines[b]]
        lines = []
        for name in wording.ordered(wording.ORDER, report.metrics[split]):
            score = report.metrics[split][name]
            others = [report.baselines[b][split].get(name) for b in baselines]
            drawn = None if name in (*wording.LOWER_IS_BETTER, *wording.UNBOUNDED) else strip(score, others)
            lines.append({"name": name, "score": score, "others": others, "strip": drawn})
        result.append({"split": split, "rows": report.rows.get(split), "baselines": baselines, "lines": lines})
    return result


def strip(score: Mapping[str, Any], others: list[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Where a score, its bounds and the baselines stand on a line from 0 to 1, in pixels; None when it does not fit."""
    value, low, high = (score.get(k) for k in ("value", "low", "high"))
    if value is None or not 0 <= value <= 1:
        return None
    marks = [wording.value(other) for other in others]
    bounds = (low, high) if low is not None and high is not None else (value, value)
    left, right = (STRIP * min(max(b, 0.0), 1.0) for b in bounds)
    return {"value": STRIP * value, "low": left, "width": right - left,
            "marks": [STRIP * m for m in marks if m is not None and 0 <= m <= 1]}  # fmt: skip


def confused_pairs(confusion: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The most frequent wrong answers: expected, predicted, how many, and the share of the expected class."""
    if not confusion:
        return []
    names, pairs = confusion["names"], []
    for row, counts in enumerate(confusion["matrix"]):
        total = sum(counts)
        pairs += [
            {"expected": names[row], "predicted": names[column], "count": number, "share": number / total}
            for column, number in enumerate(counts)
            if number and column != row
        ]
    return sorted(pairs, key=lambda p: -p["count"])[:PAIRS_SHOWN]


def _worded(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the audit under names that people read; those that the data gave, such as classes, stay as they are."""
    return {
        key.replace("_", " "): {WORDS.get(name, name): one for name, one in value.items()}
        if isinstance(value, Mapping)
        else value
        for key, value in audit.items()
    }


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings with their values, each under its path."""
    lines: list[tuple[str, Any]] = []
    for key, value in data.items():
        nested = isinstance(value, Mapping) and value
        lines += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return lines


def _embedded(picture: "Picture") -> dict[str, Any]:
    return {
        "light": embedded(picture.light),
        "dark": embedded(picture.dark),
        "text": picture.text,
        "width": picture.width,
    }
