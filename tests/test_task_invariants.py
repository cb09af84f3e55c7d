"""What must not depend on how a task's run is cut, started or interrupted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command
from task_runs import QUICK, flags, some, train, weights
from tiny_tasks import Tiny

from hf_tuner import catalog
from hf_tuner.cli.main import main

ROOT = Path(__file__).parent.parent
TASKS = catalog.names("tasks")
# A batch norm that follows the batches, as a new one does by default, depends on how they are cut.
SGD = {"optim": "sgd", "learning_rate": 0.05, "warmup_steps": 0, "max_grad_norm": 0, "weight_decay": 0, "num_train_epochs": 1,
       "way_in": "random", "probe_rows": 0, "verify": False, "lr_scheduler_type": "constant", "save_strategy": "no",
       "bf16": False, "logging_steps": 1, "batch_norm": "eval"}  # fmt: skip


def additive(task: str, tiny: Any) -> Tiny:
    """The set-up of a task whose loss is a sum over rows; other tasks are skipped."""
    if not tiny(task).additive:
        pytest.skip("the rows of a micro-batch are each other's negatives: a cut is another loss")
    return tiny(task)


def require_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same tensors but for rounding."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_allclose(other[key], value, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("task", TASKS)
def test_update_does_not_depend_on_how_a_batch_is_cut(task: str, tiny: Any, tmp_path: Path) -> None:
    setup = additive(task, tiny)
    for name, batch, accumulate in (("whole", 8, 1), ("cut", 2, 4)):
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate}
        train(task, "full", setup, tmp_path / name, **{**SGD, **setup.settings, **cut})
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.parametrize("task", some(TASKS, 4, 1))
def test_two_processes_train_what_one_does(task: str, tiny: Any, tmp_path: Path) -> None:
    setup = additive(task, tiny)
    settings = {**SGD, **setup.settings}
    train(task, "full", setup, tmp_path / "one", **settings, per_device_train_batch_size=8)
    where = ["--model", setup.model, "--dataset", setup.data, "--output-dir", tmp_path / "two"]
    cut = flags({**settings, "per_device_train_batch_size": 4})
    done = command("full", "--task", task, *where, *cut, "--num-processes", 2)
    assert done.returncode == 0, done.stderr + done.stdout
    require_equal(weights(tmp_path / "one"), weights(tmp_path / "two"))


@pytest.mark.parametrize("task", some(TASKS, 4))
def test_every_door_gives_the_same_bytes(task: str, tiny: Any, tmp_path: Path) -> None:
    setup = tiny(task)
    words = [
        "--model",
        str(setup.model),
        "--dataset",
        str(setup.data),
        *flags({**QUICK, **setup.settings, "verify": False}),
    ]
    recipe = ROOT / "recipes" / f"{task.replace('-', '_')}.py"
    main(["lora", "--task", task, *words, "--output-dir", str(tmp_path / "cli")])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", str(recipe)]  # fmt: skip
    done = subprocess.run([*launch, *words, "--output-dir", str(tmp_path / "launched")], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    names = ("cli", "launched")
    assert len({(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in names}) == 1


@pytest.mark.parametrize("task", some(TASKS, 2, 1))
def test_interrupted_run_goes_on_bit_for_bit(task: str, tiny: Any, tmp_path: Path) -> None:
    settings = {**QUICK, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "verify": False}
    train(task, "lora", tiny(task), tmp_path / "whole", **settings)
    train(task, "lora", tiny(task), tmp_path / "cut", **settings)
    for name in ("manifest.json", "report.json", "README.md", "adapter_model.safetensors"):
        (tmp_path / "cut" / name).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    train(task, "lora", tiny(task), tmp_path / "cut", **settings)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all((whole[key] == cut[key]).all() for key in whole)


@pytest.mark.parametrize("task", ["contrastive-image-text", "multiple-choice", "reranking", "sentence-similarity"])
def test_best_checkpoint_of_a_task_without_a_loss_in_its_log_is_by_its_headline(
    task: str, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = {**QUICK, "save_strategy": "epoch", "eval_strategy": "epoch", "num_train_epochs": 2, "max_steps": -1}
    train(task, "lora", tiny(task), tmp_path / "run", **settings, load_best_model_at_end=True, verify=False)
    said = capsys.readouterr().out
    assert "loaded and verified" in said and "(loss" not in said
