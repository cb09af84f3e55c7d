"""Every method for every task: trains two updates, saves, and reloads to the same bits, or is refused with the reason."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_tasks
from support_page import refusal
from task_runs import QUICK, held, train

from hf_tuner import catalog
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import kept_of
from hf_tuner.evaluation.verify import compare
from hf_tuner.models.restore import restore

TASKS = catalog.names("tasks")
METHODS = catalog.names("methods")
EVERYWHERE = ("full", "lora", "qlora", "head-only")
WHOLE = ("image-classification",)
"""All of text classification's stands in test_matrix.py."""
PART = 8
"""Of the other cells, one in so many is among the quick tests, each method with other tasks."""


def cells() -> Iterator[Any]:
    """Every task with every method; `make support` and `make test-all` run them all."""
    for i, task in enumerate(TASKS):
        for j, method in enumerate(METHODS):
            quick = method in EVERYWHERE or task in WHOLE or (i + j) % PART == 0
            yield pytest.param(task, method, marks=() if quick else pytest.mark.slow)


def test_every_task_has_a_tiny_set_up_and_a_recipe() -> None:
    assert tiny_tasks.names() == TASKS == catalog.names("recipes")


@pytest.mark.parametrize("task, method", list(cells()))
def test_method_trains_and_reloads_to_the_same_bits_or_says_why_not(
    task: str, method: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    why = refusal(task, method)
    if why:
        with pytest.raises(UsageError, match=re.escape(why)):
            train(task, method, tiny(task), tmp_path / "run", **QUICK, verify=False)
        return
    report = train(task, method, tiny(task), tmp_path / "run", **QUICK, verify=False)
    assert all(p["passed"] for p in report.proofs) and report.parameters["trainable"] > 0
    assert report.metrics["test"], "nothing was measured"
    first, again = restore(tmp_path / "run"), restore(tmp_path / "run")
    rows = held(tmp_path / "run")
    assert compare("twice", kept_of(first, rows)[0], kept_of(again, rows)[0], 0.0).passed
