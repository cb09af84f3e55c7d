"""A run that was interrupted ends as the one that was not: the same weights, log and answers, bit for bit."""

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from fork_server import ForkServer

STEPS = 30
COMMON = ("--no-verify", "--max-steps", STEPS, "--save-strategy", "steps", "--save-steps", 10, "--logging-steps", 4,
          "--per-device-train-batch-size", 4, "--per-device-eval-batch-size", 2,
          "--eval-strategy", "steps", "--eval-steps", 15, "--bf16", "false")  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with dropout, so that random numbers matter."""
    return make_tiny_model(tmp_path_factory.mktemp("dropout"), dropout=0.1)


@pytest.fixture(scope="module")
def whole(forks: ForkServer, model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An uninterrupted run of each method."""
    found = {}
    for method in ("lora", "full"):
        found[method] = tmp_path_factory.mktemp("whole") / method
        code, text = forks.run(line(method, model, tiny_data, found[method]))
        assert code == 0, text
    return found


def line(method: str, model: Path, data: Path, folder: Path, *more: object) -> list[object]:
    """The words of a run."""
    return [method, "--model", model, "--dataset", data, "--eval-split", "20%", "--output-dir", folder, *COMMON, *more]


def weights(folder: Path) -> str:
    """One hash for the weights a run saved."""
    return hashlib.sha256(next(folder.glob("*model.safetensors")).read_bytes()).hexdigest()


def log(folder: Path) -> list[dict[str, Any]]:
    """The log of a run without what the clock says."""
    clock = ("time", "runtime", "second")
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(entry).items() if not any(c in k for c in clock)} for entry in lines]


def assert_same(interrupted: Path, whole: Path) -> None:
    """The same weights, the same log, the same numbers in the report."""
    assert weights(interrupted) == weights(whole)
    assert log(interrupted) == log(whole)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (interrupted, whole)]
    assert reports[0]["metrics"] == reports[1]["metrics"]
    assert len(reports[0]["proofs"]) == len(reports[1]["proofs"])


@pytest.mark.fault(1)
@pytest.mark.parametrize("step", [3, 17, 28])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_kill_at_a_step(
    method: str, step: int, forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line(method, model, tiny_data, tmp_path / "run")
    assert forks.run(words, f"crash_points:kill_at_step={step}")[0] == 137
    code, text = forks.run(words)
    assert code == 0, text
    assert ("going on from" in text) == (step > 10)
    assert_same(tmp_path / "run", whole[method])


@pytest.mark.fault(3)
@pytest.mark.parametrize("place", ["model", "optimizer", "rng", "state", "list", "commit", "rotate"])
def test_kill_in_a_save(
    place: str, forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = line("lora", model, tiny_data, folder)
    code, text = forks.run(words, f"crash_points:kill_in_save={place}")
    assert code == 137, text
    before = sorted(p.name for p in folder.glob("checkpoint-*"))
    code, text = forks.run(words)
    assert code == 0, text
    assert f"going on from {folder}/{before[-1]}" in text and "passed over" not in text
    assert not list(folder.glob(".saving-*")) and not list(folder.glob(".dropping-*"))
    assert_same(folder, whole["lora"])


@pytest.mark.fault(7, 9)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_in_an_evaluation(
    number: int, code: int, forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = line("lora", model, tiny_data, folder)
    ended, text = forks.run(words, f"crash_points:signal_in_evaluation={int(number)}")
    assert ended == code, text
    assert "Traceback" not in text and f"the same command goes on from {folder}/checkpoint-15" in text
    assert not (folder / "report.json").exists() and not (folder / "adapter_model.safetensors").exists()
    code, text = forks.run(words)
    assert code == 0, text
    assert_same(folder, whole["lora"])


@pytest.mark.fault(7, 8)
@pytest.mark.parametrize("step", [7, 15, 30])
def test_signal_at_a_step(
    step: int, forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = line("lora", model, tiny_data, folder)
    code, text = forks.run(words, f"crash_points:term_at_step={step}")
    assert code == 143, text
    assert (folder / f"checkpoint-{step}" / "checkpoint.json").is_file() and not (folder / "report.json").exists()
    code, text = forks.run(words)
    assert code == 0, text
    assert_same(folder, whole["lora"])


def test_accumulation_workers_and_epochs(forks: ForkServer, model: Path, tiny_data: Path, tmp_path: Path) -> None:
    more = ("--max-steps", -1, "--num-train-epochs", 3, "--eval-strategy", "epoch", "--save-strategy", "epoch",
            "--gradient-accumulation-steps", 2, "--load-best-model-at-end", "--metric-for-best-model", "accuracy")  # fmt: skip
    for name in ("whole", "run"):
        words = line("full", model, tiny_data, tmp_path / name, *more)
        if name == "run":
            words += ["--dataloader-num-workers", 2]
            for step in (6, 10):
                assert forks.run(words, f"crash_points:term_at_step={step}")[0] == 143
            assert forks.run(words, "crash_points:kill_at_step=12")[0] == 137
        code, text = forks.run(words)
        assert code == 0, text
        assert "best      checkpoint-" in text
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.fault(19)
def test_a_finished_run_has_nothing_to_do(
    forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, whole["lora"])
    before = {p: p.read_bytes() for p in whole["lora"].rglob("*") if p.is_file()}
    code, text = forks.run(words)
    assert code == 0 and "nothing to do" in text
    assert before == {p: p.read_bytes() for p in whole["lora"].rglob("*") if p.is_file()}
    code, text = forks.run([*words, "--seed", 7])
    assert code == 2 and "holds a finished run" in text


@pytest.fixture(scope="module")
def stopped(forks: ForkServer, model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed at step 17; copy it before you change it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert forks.run(line("lora", model, tiny_data, folder), "crash_points:kill_at_step=17")[0] == 137
    return folder


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--learning-rate", 0.5), "learning_rate was left to its default, is 0.5 (--allow-changed learning_rate)"),
        (("--seed", 7), "seed was 42, is 7"),
        (("--r", 4), "r"),
        (("--per-device-train-batch-size", 8), "per_device_train_batch_size was 4, is 8"),
        (("--optim", "sgd"), "optim was left to its default, is sgd"),
        (("--max-steps", 60), "max_steps was 30, is 60 (--allow-changed max_steps)"),
        (("--lr-scheduler-type", "cosine"), "lr_scheduler_type was left to its default, is cosine"),
    ],
)
def test_another_setting_is_refused(
    more: tuple[object, ...], told: str, forks: ForkServer, stopped: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    code, text = forks.run(line("lora", model, tiny_data, folder, *more))
    assert code == 2 and told in text and "Traceback" not in text, text
    assert (folder / "checkpoint-10" / "checkpoint.json").is_file()


@pytest.mark.fault(18)
def test_an_allowed_rate_is_used(
    forks: ForkServer, stopped: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    more = ("--learning-rate", 0.5, "--allow-changed", "learning_rate")
    code, text = forks.run(line("lora", model, tiny_data, folder, *more))
    assert code == 0 and "learning_rate was left to its default, is 0.5, as --allow-changed says" in text, text
    rates = {entry["step"]: entry["learning_rate"] for entry in log(folder) if "loss" in entry}
    assert rates[8] < 0.01 < rates[16]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["training"]["changed"] == ["after step 10: learning_rate was left to its default, is 0.5"]


def test_a_setting_that_is_misspelt_or_may_not_change(
    forks: ForkServer, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    for word, near in (("lerning_rate", 'did you mean "learning_rate"?'), ("seed", "no setting that may change named")):
        code, text = forks.run(line("lora", model, tiny_data, tmp_path / "run", "--allow-changed", word))
        assert code == 2 and "--allow-changed: " in text and near in text, text


@pytest.mark.fault(7)
def test_a_signal_saves_all_even_with_weights_only_checkpoints(
    forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run", "--save-only-model")
    code, text = forks.run(words, "crash_points:term_at_step=17")
    assert code == 143 and "goes on from" in text, text
    code, text = forks.run(words)
    assert code == 0 and "passed over" not in text, text
    assert_same(tmp_path / "run", whole["lora"])


def test_overwrite_goes_on_with_its_own_run_and_replaces_others(
    forks: ForkServer, whole: dict[str, Path], stopped: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    code, text = forks.run(line("lora", model, tiny_data, folder, "--overwrite", "--seed", 7))
    assert code == 0 and "going on" not in text, text
    shutil.rmtree(folder)
    shutil.copytree(stopped, folder)
    code, text = forks.run(line("lora", model, tiny_data, folder, "--overwrite"))
    assert code == 0 and "going on from" in text, text
    assert_same(folder, whole["lora"])


@pytest.mark.fault(9)
def test_a_screen_that_is_gone_does_not_stop_the_run(
    forks: ForkServer, whole: dict[str, Path], model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run")
    code, _ = forks.run(words, "crash_points:close_the_screen")
    assert code == 0
    assert_same(tmp_path / "run", whole["lora"])


@pytest.mark.fault(20)
def test_other_rows_are_refused(forks: ForkServer, stopped: Path, model: Path, tiny_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    rows = (data / "train.csv").read_text().splitlines(keepends=True)
    (data / "train.csv").write_text("".join(rows[:30]))
    code, text = forks.run(line("lora", model, data, folder))
    assert code == 2 and "dataset was" in text
    shutil.move(data / "train.csv", tmp_path / "few.csv")  # the same name, other rows
    kept = (tiny_data / "train.csv").read_text()
    try:
        (tiny_data / "train.csv").write_text((tmp_path / "few.csv").read_text())
        code, text = forks.run(line("lora", model, tiny_data, folder))
    finally:
        (tiny_data / "train.csv").write_text(kept)
    assert code == 2 and "the training data is not the same (38 rows then, 23 now)" in text, text


@pytest.mark.fault(17)
def test_another_runs_checkpoint_is_refused(
    forks: ForkServer, stopped: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("full", model, tiny_data, tmp_path / "run", "--resume", stopped / "checkpoint-10")
    code, text = forks.run(words)
    assert code == 2 and "method was lora, is full" in text, text
    words = line("lora", model, tiny_data, tmp_path / "other", "--resume", stopped / "checkpoint-10")
    code, text = forks.run(words)
    assert code == 0 and f"going on from {stopped}/checkpoint-10" in text, text
