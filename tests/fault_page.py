"""Run the tests that prove rows of the fault matrix and write docs/faults.md: row, tests, result, seconds.

`make faults` does it. Tests say what they prove by `@pytest.mark.fault(1, "S3")`; the rows are in fault_rows.csv.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_rows import NOTES, Row, rows

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults

What goes wrong in fine-tuning, what happens then, and the tests that prove it. The page is written by `make faults`
from a run of these very tests; the rows are in `tests/fault_rows.csv`, and a test says which it proves by
`@pytest.mark.fault`. Priority A is what loses work or gives wrong numbers; C runs for long. "slow" is a test that this
run left out (`make test-all` has it).
"""


@dataclass(eq=False)
class Proofs:
    """A pytest plugin that remembers which tests prove which rows, how they ended and how long they took."""

    tests: dict[str, list[str]] = field(default_factory=dict)
    """Node id → rows."""
    files: set[str] = field(default_factory=set)
    """Names of all files that were collected, with and without such tests."""
    slow: set[str] = field(default_factory=set)
    """Node ids of the tests that only `make test-all` and `make faults` run."""
    endings: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        """Look at all that was collected, before anything is left out."""
        for item in items:
            self.files.add(item.path.name)
            ids = [str(row) for mark in item.iter_markers("fault") for row in mark.args]
            if ids:
                self.tests[item.nodeid] = ids
                self.slow |= {item.nodeid} if item.get_closest_marker("slow") else set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test."""
        self.seconds[report.nodeid] += report.duration
        if report.when == "call" or not report.passed:
            self.endings[report.nodeid] = report.outcome if self.endings.get(report.nodeid) != "failed" else "failed"

    def of(self, row: Row) -> list[str]:
        """Node ids of the tests of a row."""
        return [node for node, ids in self.tests.items() if row.id in ids]


def function(node: str) -> str:
    """file.py::test_name of a node id: without folder and case."""
    return node.rpartition("/")[2].partition("[")[0]


def names(nodes: Iterable[str]) -> str:
    """The tests of a row, as the page shows them: without their cases."""
    return "<br>".join(f"`{name}`" for name in dict.fromkeys(map(function, nodes)))


def left_columns(row: Row, nodes: list[str]) -> str:
    """What of a row's line does not depend on how its tests ended."""
    note = NOTES.get(row.id, "")
    shown = "<br>".join(part for part in (names(nodes), note) if part)
    return " | ".join([f"| {row.id}", row.priority, row.scenario, row.expected, shown]).replace("\n", " ")


def page(proofs: Proofs) -> str:
    """The whole page."""
    lines, part = [HEAD, summary(proofs)], ""
    for row in rows():
        if row.part != part:
            part = row.part
            lines += ["", f"## {part}", "", "| # | | what happens | what should follow | proved by | result | seconds |",
                      "|---|---|---|---|---|---|---|"]  # fmt: skip
        nodes = proofs.of(row)
        counts = Counter(proofs.endings.get(node, "slow" if node in proofs.slow else "not run") for node in nodes)
        result = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items())) or "–"
        seconds = f"{sum(proofs.seconds[node] for node in nodes):.0f}" if nodes else "–"
        lines.append(f"{left_columns(row, nodes)} | {result} | {seconds} |")
    return "\n".join(lines) + "\n"


def summary(proofs: Proofs) -> str:
    """How many rows are proved by how many tests, and how long all of them take."""
    proved = sum(1 for row in rows() if proofs.of(row))
    seconds = sum(proofs.seconds[node] for node in proofs.tests)
    open_rows = [row.id for row in rows() if not proofs.of(row)]
    left = f" Not proved yet, for the reason given: {', '.join(open_rows)}." if open_rows else ""
    return (f"{proved} of {len(rows())} rows are proved, by {len(proofs.tests)} tests that take {seconds / 60:.0f} minutes "
            f"one after the other on a CPU.{left}")  # fmt: skip


def table_of(text: str) -> list[str]:
    """The rows of a page without results and seconds."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| #")]
    return [line.rsplit(" | ", 2)[0] for line in lines]


def gather(*words: str) -> Proofs:
    """Collect the tests that prove something, with pytest's own words, and return what was seen."""
    proofs = Proofs()
    pytest.main(["-qq", "-p", "no:cacheprovider", "-m", "fault", "--collect-only", *words], plugins=[proofs])
    return proofs


def run(proofs: Proofs, *words: str) -> None:
    """Run what was collected, in two processes, and note how it ended."""
    pytest.main(["-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", *words], plugins=[proofs])


def main(words: list[str]) -> int:
    """`--collect` prints which tests prove which rows; otherwise all of them run and the page is written."""
    os.chdir(ROOT)
    if words == ["--collect"]:
        print(json.dumps(gather().tests))
        return 0
    proofs = gather(*words)
    run(proofs, *words)
    PAGE.write_text(page(proofs), encoding="utf-8")
    bad = [node for node, ending in proofs.endings.items() if ending == "failed"]
    return 1 if bad or not proofs.tests else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
