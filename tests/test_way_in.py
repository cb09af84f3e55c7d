"""How a new head starts: from the frozen features where they know the task, else from noise; and at what rate."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from hf_tuner import console, finetune
from hf_tuner.catalog import task_class
from hf_tuner.config import Run
from hf_tuner.evaluation import predict
from hf_tuner.training import way_in
from hf_tuner.training.arguments import FROM_NOISE, settle_rate, training_arguments
from hf_tuner.training.features import Reader

SETTINGS = {"max_steps": 1, "verify": False, "learning_rate": 1e-9, "warmup_steps": 0}


def test_what_a_head_explains_is_its_share_of_the_majoritys_loss() -> None:
    targets = np.array([0, 1] * 10)
    sure, lost = 20.0 * np.eye(2)[targets], np.zeros((20, 2))
    assert way_in.explained(sure, targets, "single", 2) == pytest.approx(1.0, abs=1e-6)
    assert way_in.explained(lost, targets, "single", 2) == pytest.approx(0.0, abs=1e-6)
    numbers = np.arange(10, dtype=np.float32)
    half = (numbers + numbers.mean()) / 2  # half of the distance, a quarter of the squares
    assert way_in.explained(half[:, None], numbers, "regression", 1) == pytest.approx(0.75)


@pytest.mark.parametrize("explained, rate", [(1.0, 1e-4), (0.0, 1e-4 * FROM_NOISE), (0.5, 2e-4)])
def test_the_rate_rises_with_what_is_left_to_learn(explained: float, rate: float) -> None:
    arguments = SimpleNamespace(learning_rate=1e-4)
    settle_rate(Run(output_dir="x"), arguments, explained)
    assert arguments.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize("task, rows, given, expected", [
    ("text-classification", 100, {}, (32, 5)),
    ("text-classification", 100_000, {}, (32, 1)),
    ("object-detection", 200, {}, (8, 10)),
    ("semantic-segmentation", 3_200, {}, (8, 1)),
    ("panoptic-segmentation", 3_200, {"per_device_train_batch_size": 16}, (16, 2)),
    ("instance-segmentation", 200, {"num_train_epochs": 3}, (8, 3)),
])  # fmt: skip
def test_a_run_makes_about_400_updates_within_the_passes_of_its_task(
    task: str, rows: int, given: dict[str, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    run = Run(task=task, method="full", output_dir=str(tmp_path), training=given)
    arguments = training_arguments(run, 1_000_000, rows, False)
    assert (arguments.per_device_train_batch_size, arguments.num_train_epochs) == expected


@pytest.mark.parametrize("task, given, rows", [
    ("text-classification", None, 64), ("object-detection", None, 16), ("image-text-to-text", None, 8),
    ("object-detection", 3, 3),
])  # fmt: skip
def test_as_many_rows_are_measured_and_answered_at_once_as_the_task_says(
    task: str, given: int | None, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of detectors are large: sixty-four of them would not fit."""
    asked = {} if given is None else {"per_device_eval_batch_size": given}
    run = Run(task=task, method="full", output_dir=str(tmp_path), training=asked)
    assert training_arguments(run, 1_000_000, 100, False).per_device_eval_batch_size == rows
    monkeypatch.setattr(predict, "encoded", lambda *_: [])
    monkeypatch.setattr(predict, "keep_told", lambda *words: words[-1])
    saved = SimpleNamespace(
        task=SimpleNamespace(at_once=task_class(task).at_once, collate=lambda _: None, outputs=None),
        processor=None, model=None, manifest=SimpleNamespace(max_length=0),
    )  # fmt: skip
    assert predict.kept_of(saved, [], given)[0] == rows  # type: ignore[arg-type]


def test_a_rate_that_was_asked_for_stays() -> None:
    arguments = SimpleNamespace(learning_rate=1e-4)
    settle_rate(Run(output_dir="x", training={"learning_rate": 1e-4}), arguments, 0.0)
    assert arguments.learning_rate == 1e-4


def test_reading_features_says_how_far_it_is_and_keeps_the_order_of_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Minutes of it, for many pictures, are not silent."""
    monkeypatch.setattr(console.Progress, "AFTER", -1000.0)
    rows = Dataset.from_dict({"length": [1, 3, 2, 1, 3, 2], "number": range(6)})
    reader = SimpleNamespace(model=torch.nn.Linear(1, 1), bare=SimpleNamespace(device=torch.device("cpu")),
                             read=lambda batch: (batch["x"], batch["x"]))  # fmt: skip
    found = Reader.features(reader, rows, lambda some: {"x": torch.tensor([[row["number"]] for row in some])}, 2)  # type: ignore[arg-type]
    assert found is not None and found.mean[:, 0].tolist() == list(range(6))
    assert "reading features: 33%" in capsys.readouterr().err


@pytest.mark.parametrize("knows, said", [(0.0, "the head starts from them"), (1.1, "the head starts from noise")])
def test_the_probe_sets_the_head_where_it_knows_enough(
    knows: float, said: str, tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(way_in, "KNOWS", knows)
    finetune(model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), **SETTINGS)
    assert said in capsys.readouterr().out


def test_who_asks_for_the_probe_gets_it(
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(way_in, "KNOWS", 1.1)
    finetune(
        model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), way_in="probe", **SETTINGS
    )
    assert "the head starts from them" in capsys.readouterr().out


def test_a_head_for_numbers_starts_at_their_mean(tiny_model: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [{"text": f"rain {i}", "label": float(v)} for i, v in enumerate(random.normal(40, 1, 60))]
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(r) for r in part))
    finetune(model=str(tiny_model), dataset=str(tmp_path), output_dir=str(tmp_path / "run"), method="full", way_in="random",
             **SETTINGS)  # fmt: skip
    bias = float(load_file(tmp_path / "run" / "model.safetensors")["classifier.bias"][0])
    assert bias == pytest.approx(np.mean([r["label"] for r in rows[:40]]), abs=1e-3)
