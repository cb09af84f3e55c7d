"""The average of the weights: its numbers, that it is what is measured and saved, and that a resumed run keeps it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fork_server import ForkServer
from safetensors.torch import load_file
from task_runs import train

from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.training.averaging import FILE, Average

STEPS = ("--max-steps", 12, "--save-strategy", "steps", "--save-steps", 4, "--eval-strategy", "steps", "--eval-steps", 4,
         "--eval-split", "20%", "--no-verify", "--bf16", "false")  # fmt: skip


def step(average: Average, number: int) -> None:
    """Update `number` is over."""
    average.on_step_end(None, SimpleNamespace(global_step=number), None)


def test_average_is_the_one_worked_out_by_hand() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    model[1].requires_grad_(False)
    average = Average(model, 0.5)
    average.on_train_begin(None, None, None)
    weight, statistic = model[0].weight, model[1].running_mean
    expected = [float(weight), 0.0]
    for number in (1, 2, 20):
        with torch.no_grad():
            weight.fill_(number)
            statistic.fill_(10 * number)
        step(average, number)
        keep = min(0.5, (1 + number) / (10 + number))
        expected = [keep * e + (1 - keep) * v for e, v in zip(expected, (number, 10 * number), strict=True)]
    with average.instead():
        assert [float(weight), float(statistic)] == pytest.approx(expected)
    assert [float(weight), float(statistic)] == [20, 200]
    assert average.values.keys() == {"0.weight", "1.running_mean", "1.running_var"}
    average.settle(20)
    assert [float(weight), float(statistic)] == pytest.approx(expected)


def test_average_goes_through_a_folder_and_refuses_another_models(tmp_path: Path) -> None:
    first, second = (Average(torch.nn.Linear(2, 2), 0.9) for _ in range(2))
    first.on_train_begin(None, None, None)
    step(first, 1)
    first.save(tmp_path)
    second.load(tmp_path)
    second.on_train_begin(None, None, None)
    assert all(torch.equal(first.values[name], second.values[name]) for name in ("weight", "bias"))
    with pytest.raises(ArtifactError, match="belongs to another model: bias"):
        Average(torch.nn.Linear(3, 3), 0.9).load(tmp_path)
    with pytest.raises(ArtifactError, match="holds no average of the weights"):
        second.load(tmp_path / "nowhere")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_killed_run_goes_on_with_its_average(
    method: str, forks: ForkServer, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def words(folder: str) -> list[object]:
        return [
            method,
            "--model",
            tiny_model,
            "--dataset",
            tiny_data,
            "--output-dir",
            tmp_path / folder,
            "--ema",
            0.9,
            *STEPS,
        ]

    code, text = forks.run(words("whole"))
    assert code == 0 and "average   of the weights over 12 updates, decay 0.9" in text, text
    assert forks.run(words("killed"), "crash_points:kill_at_step=7")[0] == 137
    code, text = forks.run(words("killed"))
    assert code == 0 and "going on from" in text, text
    files = [next((tmp_path / name).glob("*model.safetensors")) for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    last, saved, raw = (load_file(path) for path in (
        tmp_path / "whole" / "checkpoint-12" / FILE, files[0], tmp_path / "whole" / "checkpoint-12" / files[0].name))  # fmt: skip
    moved = [name for name in saved if not torch.equal(saved[name], raw[name])]
    assert moved
    if method == "full":
        assert all(torch.equal(saved[name], last[name]) for name in moved)


def test_the_best_checkpoint_is_measured_and_kept_as_average(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    from hf_tuner import finetune

    settings: dict[str, Any] = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps",
                                "eval_steps": 4, "load_best_model_at_end": True, "metric_for_best_model": "loss",
                                "learning_rate": 1e-2, "eval_split": "20%", "ema": 0.5}  # fmt: skip
    report = finetune(
        method="full", model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path), **settings
    )
    assert next(p for p in report.proofs if p["name"] == "saved = measured")["passed"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = min(losses, key=lambda number: losses[number])
    average, saved = load_file(tmp_path / f"checkpoint-{best}" / FILE), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[name], average[name]) for name in saved)


@pytest.mark.parametrize("decay", [0, 1, 1.5])
def test_a_decay_is_a_share(decay: float, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a share above 0 and below 1"):
        train("text-classification", "full", tiny("text-classification"), tmp_path, ema=decay)
