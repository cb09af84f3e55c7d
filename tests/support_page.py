"""Which method works for which task: the page docs/support.md, and the reasons of what is refused.

Written by `python tests/support_page.py` from the results of the tests in test_tasks.py, never by hand.
"""

from typing import Any

EXTRA: dict[str, dict[str, Any]] = {
    "peft": {"peft_type": "HRA"},
    "vera": {"r": 8},
    "oft": {"oft_block_size": 8},
    "adalora": {"max_steps": 12},
    "shira": {"r": 2},
    "miss": {"r": 8},
}
"""Settings that a method needs on models as small as those of the tests."""

REFUSED: dict[tuple[str, str], str] = {}
"""(task, method) → what the refusal says; "*" stands for every task."""


def refusal(task: str, method: str) -> str:
    """Why a method is refused for a task, as the error says it; "" where it works."""
    return REFUSED.get((task, method), REFUSED.get(("*", method), ""))
