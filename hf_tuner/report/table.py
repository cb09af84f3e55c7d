"""The closing table: what came out, beside what comes free, in at most 25 lines of 100 columns."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_tuner.console import count, duration
from hf_tuner.report import wording

if TYPE_CHECKING:
    from hf_tuner.report.report import Report

WIDTH = 100
# Lines of each block at most; together with heads, verdict and costs they are 25.
METRICS = 7
PROOFS = 6
FILES = 3


def table(report: "Report", whole: bool = False) -> str:
    """Title, scores with intervals beside the baselines, proofs, time, parameters, where the files are.

    Lines are cut to fit a terminal, unless they are wanted `whole`.
    """
    closing = [*_costs(report), *_files(report.files)]
    blocks = [[_title(report, whole)], _scores(report), _proofs(report.proofs), closing]
    lines = [line for block in blocks if block for line in ["", *block]][1:]
    return "\n".join(lines if whole else map(_cut, lines))


def _cut(line: str) -> str:
    """A line of at most 100 columns."""
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def headline_split(report: "Report") -> str | None:
    """The split whose numbers count: test, else validation, else what there is."""
    splits = wording.ordered(wording.SPLITS, report.metrics)
    return splits[0] if splits else None


def verdict(report: "Report") -> str:
    """One sentence that sets the headline score beside the probe's, or the majority's when there is no probe."""
    split = headline_split(report)
    who = next((b for b in reversed(wording.BASELINES) if split in report.baselines.get(b, {})), None)
    if split is None or who is None or not report.metrics[split]:
        return ""
    first = wording.ordered(wording.ORDER, report.metrics[split])[0]
    return wording.comparison(first, report.metrics[split][first], report.baselines[who][split].get(first), who)


def _title(report: "Report", whole: bool) -> str:
    if whole:
        return f"{report.method} · {report.model} · {report.dataset}"
    return f"{report.method} · {wording.shorten(report.model, 40)} · {wording.shorten(report.dataset, 40)}"


def _scores(report: "Report") -> list[str]:
    splits = wording.ordered(wording.SPLITS, report.metrics)[:2]
    if not splits:
        return []
    names = wording.ordered(wording.ORDER, report.metrics[splits[0]])
    columns = [_split_column(report, split, names) for split in splits]
    for baseline in wording.ordered(wording.BASELINES, report.baselines)[:2]:
        scores = report.baselines[baseline].get(splits[0], {})
        columns.append([baseline, *(wording.number(wording.value(scores.get(n))) for n in names)])
    lines = _aligned([["", *(wording.name(n) for n in names)], *columns])
    shown = len(names) if len(names) <= METRICS else METRICS - 1
    more = [f"  … {len(names) - shown} more in the report"] if shown < len(names) else []
    compared = verdict(report)
    return [*lines[: 2 + shown], *more, *([f"  {compared}"] if compared else [])]


def _split_column(report: "Report", split: str, names: list[str]) -> list[str]:
    rows = report.rows.get(split)
    head = f"{split} ({count(rows)} rows)" if rows is not None else split
    return [head, *(wording.with_interval(report.metrics[split].get(n)) for n in names)]


def _aligned(columns: list[list[str]]) -> list[str]:
    """Columns as lines, with a rule under the heads; every column after the first two splits aligns left too."""
    widths = [max(map(len, column)) for column in columns]
    rows = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in zip(*columns, strict=True)]
    rule = "  ".join("─" * w for w in widths)
    return ["  " + line.rstrip() for line in [rows[0], rule, *rows[1:]]]


def _proofs(proofs: Any) -> list[str]:
    """A line for each proof, failed ones first; what does not fit is counted."""
    failed = [p for p in proofs if not p["passed"]]
    passed = [p for p in proofs if p["passed"]]
    shown = [*failed, *passed][: PROOFS if len(proofs) <= PROOFS else PROOFS - 1]
    width = max((len(p["name"]) for p in shown), default=0)
    lines = [f"  {'✓' if p['passed'] else '✗'} {p['name'].ljust(width)}  {p.get('detail', '')}".rstrip() for p in shown]
    rest = len(proofs) - len(shown)
    worst = "✗" if len(failed) > len(shown) else "✓"
    return [*lines, f"  {worst} {rest} more in the report"] if rest else lines


def _costs(report: "Report") -> list[str]:
    lines = []
    if report.time:
        phases = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.time.items() if name != "total")
        total = report.time.get("total", sum(report.time.values()))
        lines.append(f"  time        {duration(total)}" + (f" ({phases})" if phases else ""))
    peak = report.memory.get("peak_mb")
    memory = f"; peak memory {wording.size(int(peak * 1e6))}" if peak else ""
    if "total" in report.parameters:
        lines.append(f"  parameters  {_parameters(report.parameters)}{memory}")
    return lines


def _parameters(parameters: Mapping[str, int]) -> str:
    total, trained = parameters["total"], parameters.get("trainable", 0)
    percent = 100 * trained / total if total else 0.0
    share = f" ({percent:.2g} %)" if 0 < percent < 10 else f" ({percent:.0f} %)" if total else ""
    saved = f", {wording.size(parameters['saved_bytes'])} saved" if "saved_bytes" in parameters else ""
    return f"{count(trained)} of {count(total)} trained{share}{saved}"


def _files(files: Mapping[str, Any]) -> list[str]:
    shown = list(files.items())[: FILES if len(files) <= FILES else FILES - 1]
    width = max((len(name) for name, _ in shown), default=0)
    lines = [f"  {name.ljust(max(width, 10))}  {wording.size(what)}".rstrip() for name, what in shown]
    rest = len(files) - len(shown)
    return [*lines, f"  … {rest} more in the report"] if rest else lines
