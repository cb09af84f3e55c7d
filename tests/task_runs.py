"""Runs of every task on its tiny set-up, for the tests that hold for all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support_page import EXTRA
from tiny_tasks import Tiny

from hf_tuner import finetune
from hf_tuner.data.load import load_data
from hf_tuner.evaluation.evaluate import data_settings
from hf_tuner.evaluation.verify import held_rows
from hf_tuner.models.restore import restore

QUICK = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "warmup_steps": 0}


def train(task: str, method: str, tiny: Tiny, folder: Path, **settings: Any) -> Any:
    """The report of a run of a method for a task."""
    known = {**tiny.settings, **EXTRA.get(method, {}), **settings}
    return finetune(task, model=str(tiny.model), dataset=str(tiny.data), method=method, output_dir=str(folder), **known)


def weights(folder: Path) -> dict[str, Any]:
    """Every tensor that a run saved."""
    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def held(folder: Path) -> Any:
    """The run's test rows without their answers."""
    saved = restore(folder)
    return held_rows(load_data(data_settings(folder, saved.task), type(saved.task))["test"], saved.task.targets)


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def some(names: Sequence[str], part: int, first: int = 0) -> list[Any]:
    """Parameters of a test, of which one in `part` is quick; `make test-all` runs the others too."""
    return [pytest.param(name, marks=() if i % part == first else pytest.mark.slow) for i, name in enumerate(names)]


def with_methods(names: Sequence[str], part: int) -> list[Any]:
    """Each task with an adapter, and with whole models, of which one in `part` is quick."""
    whole = [(name, () if i % part == 0 else pytest.mark.slow) for i, name in enumerate(names)]
    return [*(pytest.param(name, "lora") for name in names), *(pytest.param(n, "full", marks=m) for n, m in whole)]
