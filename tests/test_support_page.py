"""docs/support.md shows every task and method there is, no failed cell, and the reasons the tests ask for."""

from support_page import PAGE, REFUSED

from hf_tuner import catalog


def test_page_has_a_row_for_each_method_and_a_column_for_each_task() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][1:] == catalog.names("tasks"), "docs/support.md is stale: run make support"
    assert [row[0].strip("`") for row in cells[1:]] == catalog.names("methods")
    assert not [row[0] for row in cells[1:] if "✗" in row]


def test_page_gives_every_reason() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not [why for why in REFUSED.values() if why not in text]
