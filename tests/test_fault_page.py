"""docs/faults.md says what is true: every row has a test or a reason, and the page names exactly the tests there are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fault_page import PAGE, Proofs, page, table_of
from fault_rows import NOTES, rows

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def proofs(request: pytest.FixtureRequest) -> Proofs:
    """Which tests prove which rows: of this session when it collected every file, of a session of its own if not."""
    seen: Proofs = request.config.pluginmanager.get_plugin("faults")
    if {p.name for p in HERE.glob("test_*.py")} <= seen.files:
        return seen
    done = subprocess.run(
        [sys.executable, "tests/fault_page.py", "--collect"], cwd=HERE.parent, capture_output=True, text=True
    )
    return Proofs(tests=json.loads(done.stdout.splitlines()[-1]))


def test_every_row_is_proved_or_has_a_reason(proofs: Proofs) -> None:
    unexplained = [row.id for row in rows() if not proofs.of(row) and row.id not in NOTES]
    assert not unexplained, f"rows without a test and without a reason: {', '.join(unexplained)}"
    known = {row.id for row in rows()}
    strange = {node: ids for node, ids in proofs.tests.items() if set(ids) - known}
    assert not strange and not set(NOTES) - known


def test_the_page_names_the_rows_and_the_tests_there_are(proofs: Proofs) -> None:
    written, now = table_of(PAGE.read_text(encoding="utf-8")), table_of(page(proofs))
    stale = [f"- {line}" for line in written if line not in now] + [f"+ {line}" for line in now if line not in written]
    assert written == now, "\n".join(["docs/faults.md is stale: run make faults", *stale[:10]])


def test_no_test_on_the_page_failed() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(lines) > len(rows())  # the tables' heads as well
    wrong = ("failed", "error", "not run")
    bad = [line for line in lines if any(word in line.rsplit(" | ", 2)[1] for word in wrong)]
    assert not bad, "\n".join(bad)
