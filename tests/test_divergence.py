"""Training that goes wrong stops at that step, with exit code 5 and the last checkpoint from before."""

import runpy
import sys
from pathlib import Path

import pytest
from forks import Ended, forked

from hf_tuner.errors import DivergedError
from hf_tuner.folder import newest_checkpoint
from hf_tuner.training.divergence import PATIENCE, WINDOW, LossLimit, require_finite

RECIPE = Path(__file__).with_name("faulty_recipe.py")


def run(model: Path, data: Path, folder: Path, fault: str, *extra: object) -> Ended:
    """The recipe with a fault, in a fork."""
    words = ["--model", model, "--dataset", data, "--output-dir", folder, "--no-verify", "--max-steps", 24, "--bf16", "false",
             "--per-device-train-batch-size", 4, "--save-strategy", "steps", "--save-steps", 2, "--probe-rows", 0,
             *extra]  # fmt: skip

    def work() -> None:
        sys.argv = [str(RECIPE), *map(str, words)]
        runpy.run_path(str(RECIPE), run_name="__main__")

    return forked(work, FAULT=fault)


@pytest.mark.fault(30)
def test_a_loss_that_is_not_a_number_stops_at_its_step(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = run(tiny_model, tiny_data, folder, "nan:0:12")
    assert ended.code == 5, ended.text
    error = ended.text[ended.text.index("error:") :]
    assert error.startswith("error: training diverged: the loss is nan at step 12 (training rows ")
    assert f"; the last good checkpoint is {folder / 'checkpoint-10'}." in error
    assert len(error.strip().splitlines()) == 2 and "Traceback" not in ended.text
    assert not (folder / "adapter_model.safetensors").exists() and not (folder / "report.json").exists()


@pytest.mark.fault(30)
def test_a_gradient_that_is_not_finite_stops_before_the_update(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def work() -> None:
        import torch

        from hf_tuner import finetune
        from hf_tuner.training.trainer import TunerTrainer

        plain = TunerTrainer.training_step

        def spoiled(self: TunerTrainer, model: torch.nn.Module, *rest: object) -> torch.Tensor:
            loss = plain(self, model, *rest)
            if self.state.global_step + 1 == 3:
                next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("inf"))
            return loss

        TunerTrainer.training_step = spoiled  # type: ignore[method-assign]
        try:
            finetune(model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), verify=False,
                     probe_rows=0, max_steps=8, per_device_train_batch_size=4, gradient_accumulation_steps=2)  # fmt: skip
        except DivergedError as error:
            print(error)
            raise SystemExit(error.exit_code) from None

    ended = forked(work)
    assert ended.code == 5, ended.text
    said = next(line for line in ended.text.splitlines() if "diverged" in line)
    assert "the gradient norm is" in said and "at step 3" in said
    rows = said.partition("training rows ")[2].partition(", counted")[0].split(", ")
    assert len(rows) == 8  # both micro-batches of the update


@pytest.mark.fault(30, 41)
def test_a_metric_that_is_not_a_number_stops_instead_of_choosing_a_best_checkpoint(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    choose = ("--eval-split", "25%", "--eval-strategy", "steps", "--eval-steps", 2, "--load-best-model-at-end", "true",
              "--metric-for-best-model", "loss")  # fmt: skip
    ended = run(tiny_model, tiny_data, tmp_path / "run", "nan-evaluation:0:6", *choose)
    assert ended.code == 5, ended.text
    error = ended.text[ended.text.index("error:") :]
    assert error.startswith("error: training diverged: loss of the validation rows is nan at step 6; ")
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint-4'}" in error
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


@pytest.mark.fault(30)
def test_stop_above_ends_a_run_whose_loss_stays_high(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    ended = run(tiny_model, tiny_data, tmp_path / "run", "none:9:0", "--stop-above", "0.5", "--learning-rate", "1e-9")
    assert ended.code == 5, ended.text
    assert f"at step {WINDOW + PATIENCE - 1} the loss, averaged over {WINDOW} updates, is 1.0" in ended.text
    assert f"above --stop-above 0.5 for {PATIENCE} updates; the last good checkpoint is" in ended.text


def test_stop_above_forgives_a_short_rise() -> None:
    limit, folder = LossLimit(1.0), Path("nowhere")
    for step, loss in enumerate([0.5] * 5 + [9.0] + [0.5] * 20):
        limit.add(loss, step, folder)
    for step in range(100, 99 + PATIENCE + 1):  # 3 of 5 of the average are needed to lift it above 1
        limit.add(3.0, step, folder)
    with pytest.raises(DivergedError, match=f"at step {100 + PATIENCE}"):
        limit.add(3.0, 100 + PATIENCE, folder)


def test_the_whole_update_counts_for_stop_above(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Two micro-batches of an update are one loss: a limit above it, and below twice it, does not stop the run."""
    ended = run(tiny_model, tiny_data, tmp_path / "run", "none:9:0", "--stop-above", "1.5", "--learning-rate", "1e-9",
                "--gradient-accumulation-steps", 2)  # fmt: skip
    assert ended.code == 0, ended.text


def test_only_measured_numbers_must_be_finite() -> None:
    require_finite({"eval_loss": 1.0, "eval_note": "nan", "epoch": float("nan")}, 1, "nowhere")
    with pytest.raises(DivergedError, match="accuracy of the validation rows is inf at step 4"):
        require_finite({"eval_accuracy": float("inf")}, 4, "nowhere")


@pytest.mark.fault(21)
def test_the_newest_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    import os

    for step, age in ((9, 1), (100, 3), (20, 2)):
        made = tmp_path / f"checkpoint-{step}"
        made.mkdir()
        (made / "checkpoint.json").write_text('{"files": {"optimizer.pt": {}}}')
        os.utime(made, (1e9 - age, 1e9 - age))
    (tmp_path / "checkpoint-200").mkdir()  # half written
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-300").symlink_to(tmp_path / "checkpoint-9")  # not ours
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert newest_checkpoint(tmp_path / "nothing") is None
