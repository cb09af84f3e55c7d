"""Which method works for which task: docs/support.md, written by `make support` from a run of the matrix test.

`REFUSED` holds the cells that are refused and what the refusal says; the matrix test asks for exactly that error.
"""

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hf_tuner import catalog

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "support.md"
MATRIX = "test_method_trains_and_reloads_to_the_same_bits_or_says_why_not"
CELL = re.compile(rf"::{MATRIX}\[(?P<task>.+)\]$")
HEAD = """# Which method for which task

Written by `make support` from a run of the matrix test: each ✓ is a run of two updates on a tiny model of the task that
trained what it should, was measured, saved, and gave the same bits again when it was loaded twice. A number is a
refusal, with its reason below the table; ✗ is a cell whose test failed in that run.
"""

EXTRA: dict[str, dict[str, Any]] = {
    "peft": {"peft_type": "HRA"},
    "vera": {"r": 8},
    "oft": {"oft_block_size": 8},
    "adalora": {"max_steps": 12},
    "shira": {"r": 2},
    "miss": {"r": 8},
}
"""Settings that a method needs on models as small as those of the tests."""

SEGMENTS = ("instance-segmentation", "panoptic-segmentation")
REFUSED: dict[tuple[str, str], str] = {
    ("causal-lm", "head-only"): "has no head to train; use --method lora or full",
    ("causal-lm", "lp-ft"): "no one state a row that a probe is fitted on",
    ("sft", "head-only"): "has no head to train; use --method lora or full",
    ("sft", "lp-ft"): "no one state a row that a probe is fitted on",
    ("preference", "head-only"): "has no head to train; use --method lora or full",
    ("preference", "lp-ft"): "no one state a row that a probe is fitted on",
    ("masked-lm", "lp-ft"): "no one state a row that a probe is fitted on",
    ("multiple-choice", "lp-ft"): "no one state a row that a probe is fitted on",
    **{
        ("multiple-choice", m): "prompt methods work on text models with a known head"
        for m in ("p-tuning", "prefix", "prompt")
    },
    **{
        (task, m): "prompt methods work on text models with a known head"
        for task in ("image-classification", "semantic-segmentation")
        for m in ("p-tuning", "prefix", "prompt")
    },
    ("semantic-segmentation", "lp-ft"): "no one state a row that a probe is fitted on",
    ("question-answering", "lp-ft"): "no one state a row that a probe is fitted on",
    ("token-classification", "lp-ft"): "no one state a row that a probe is fitted on",
    ("summarization", "head-only"): "has no head to train; use --method lora or full",
    ("summarization", "lp-ft"): "no one state a row that a probe is fitted on",
    ("translation", "head-only"): "has no head to train; use --method lora or full",
    ("translation", "lp-ft"): "no one state a row that a probe is fitted on",
    ("reranking", "lp-ft"): "no one state a row that a probe is fitted on",
    ("object-detection", "lp-ft"): "no one state a row that a probe is fitted on",
    **{
        ("object-detection", m): "prompt methods work on text models with a known head"
        for m in ("p-tuning", "prefix", "prompt")
    },
    ("contrastive-image-text", "lp-ft"): "no one state a row that a probe is fitted on",
    **{
        ("contrastive-image-text", m): "prompt methods work on text models with a known head"
        for m in ("p-tuning", "prefix", "prompt")
    },
    ("image-text-to-text", "head-only"): "has no head to train; use --method lora or full",
    ("image-text-to-text", "lp-ft"): "no one state a row that a probe is fitted on",
    **{(task, "lp-ft"): "no one state a row that a probe is fitted on" for task in SEGMENTS},
    **{
        (task, m): "prompt methods work on text models with a known head"
        for task in SEGMENTS
        for m in ("p-tuning", "prefix", "prompt")
    },
    ("image-to-text", "head-only"): "has no head to train; use --method lora or full",
    ("image-to-text", "lp-ft"): "no one state a row that a probe is fitted on",
    **{
        ("image-to-text", m): "prompt methods work on text models with a known head"
        for m in ("p-tuning", "prefix", "prompt")
    },
    ("sentence-similarity", "head-only"): "has no head to train",
    ("sentence-similarity", "lp-ft"): "no one state a row that a probe is fitted on",
}
"""(task, method) → a part of what the refusal says; "*" stands for every task."""


def refusal(task: str, method: str) -> str:
    """Why a method is refused for a task, as the error says it; "" where it works."""
    return REFUSED.get((task, method), REFUSED.get(("*", method), ""))


@dataclass
class Cells:
    """A pytest plugin that remembers how each cell of the matrix ended."""

    endings: dict[tuple[str, str], str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a cell."""
        found = CELL.search(report.nodeid)
        if found and (report.when == "call" or not report.passed):
            self.endings[split_cell(found["task"])] = report.outcome


def split_cell(text: str) -> tuple[str, str]:
    """Task and method of a test's case, "text-classification-lora"."""
    tasks = sorted(catalog.names("tasks"), key=len, reverse=True)
    task = next(name for name in tasks if text.startswith(f"{name}-"))
    return task, text.removeprefix(f"{task}-")


def page(cells: Cells) -> str:
    """The whole page."""
    tasks, methods = catalog.names("tasks"), catalog.names("methods")
    reasons: list[str] = []

    def shown(task: str, method: str) -> str:
        if cells.endings.get((task, method)) != "passed":
            return "✗"
        why = refusal(task, method)
        if not why:
            return "✓"
        said = f"`{method}` for {task}: {why}"
        if said not in reasons:
            reasons.append(said)
        return f"({reasons.index(said) + 1})"

    lines = [HEAD, f"| method | {' | '.join(tasks)} |", "|---|" + "---|" * len(tasks)]
    lines += [f"| `{method}` | {' | '.join(shown(task, method) for task in tasks)} |" for method in methods]
    ran = sum(ending == "passed" for ending in cells.endings.values())
    lines += [
        "",
        f"{ran} of {len(tasks) * len(methods)} cells ran and ended as shown, {len(reasons)} of them in a refusal.",
    ]
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Run the matrix, in two processes, and write the page."""
    os.chdir(ROOT)
    cells = Cells()
    words = ["-q", "-p", "no:cacheprovider", "-n", "2", "-m", "", "tests/test_task_methods.py", "-k", MATRIX]
    pytest.main(words, plugins=[cells])
    PAGE.write_text(page(cells), encoding="utf-8")
    return 0 if cells.endings and all(ending == "passed" for ending in cells.endings.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
