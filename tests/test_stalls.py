"""A run that stands still, or whose data workers die, ends with a name and leaves no process behind."""

import os
import runpy
import signal
import sys
from pathlib import Path

import pytest
from fork_server import ForkServer
from forks import Ended, alive, children, forked, until

RECIPE = Path(__file__).with_name("faulty_recipe.py")


def settings(model: Path, data: Path, folder: Path, *extra: object) -> list[str]:
    """Words of a short run with a checkpoint every two steps."""
    line = ["--model", model, "--dataset", data, "--output-dir", folder, "--no-verify", "--max-steps", 24, "--bf16", "false",
            "--per-device-train-batch-size", 4, "--save-strategy", "steps", "--save-steps", 2, "--probe-rows", 0,
            *extra]  # fmt: skip
    return list(map(str, line))


def run(fault: str, words: list[str]) -> Ended:
    """The recipe with a fault, in a fork."""

    def work() -> None:
        sys.argv = [str(RECIPE), *words]
        runpy.run_path(str(RECIPE), run_name="__main__")

    return forked(work, FAULT=fault)


@pytest.mark.fault(13, 15)
@pytest.mark.parametrize(
    ("fault", "workers", "where"),
    [
        ("hang:0:5", 0, "in a training step at step 5 (faulty_recipe.py:"),
        ("hang-row:0:7", 0, "in loading data at step "),
        ("hang-row:0:7", 2, "in loading data at step "),
    ],
)
def test_a_run_that_stands_still_ends_with_phase_and_step(
    fault: str, workers: int, where: str, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    extra = ("--stall-timeout", 2, "--dataloader-num-workers", workers)
    ended = run(fault, settings(tiny_model, tiny_data, tmp_path / "run", *extra))
    assert ended.code == 3, ended.text
    error = ended.text[ended.text.index("error:") :]
    assert error.startswith("error: the run made no progress for ") and where in error
    assert "(--stall-timeout 2)" in error and "Traceback" not in ended.text
    assert ("--dataloader-num-workers 0" in error) == ("loading" in where)


def test_progress_and_long_runs_are_left_alone(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """The time counts from the last step, not from the start."""

    def work() -> None:
        import time

        from hf_tuner import finetune
        from hf_tuner.training.trainer import TunerTrainer

        plain = TunerTrainer.training_step

        def slow(self: TunerTrainer, *rest: object) -> object:
            time.sleep(0.4)
            return plain(self, *rest)  # type: ignore[arg-type]

        TunerTrainer.training_step = slow  # type: ignore[method-assign, assignment]
        finetune(model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), verify=False,
                 probe_rows=0, max_steps=10, stall_timeout=3, save_strategy="no")  # fmt: skip

    ended = forked(work)
    assert ended.code == 0 and ended.seconds > 4, ended.text


def test_a_run_that_was_stopped_by_hand_is_not_taken_for_a_stall() -> None:
    def work(stopped: bool) -> None:
        import time

        from hf_tuner.training.stalls import Watch

        me = os.getpid()
        end = time.monotonic() + 5
        with Watch(2, Path("nowhere")):
            if stopped and os.fork() == 0:
                os.kill(me, signal.SIGSTOP)
                time.sleep(4)
                os.kill(me, signal.SIGCONT)
                os._exit(0)
            while time.monotonic() < end:
                time.sleep(0.05)

    assert forked(lambda: work(True)).code == 0
    assert forked(lambda: work(False)).code == 3


@pytest.mark.fault(15)
def test_a_killed_data_worker_is_explained(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    ended = run("die-row:0:7", settings(tiny_model, tiny_data, tmp_path / "run", "--dataloader-num-workers", 2))
    assert ended.code == 3, ended.text
    assert "error: a data worker was killed" in ended.text and "fewer --dataloader-num-workers" in ended.text
    assert "at step" in ended.text and "Traceback" not in ended.text


@pytest.mark.fault(15)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_fails_is_named(workers: int, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    ended = run("raise-row:0:7", settings(tiny_model, tiny_data, tmp_path / "run", "--dataloader-num-workers", workers))
    assert ended.code == 2, ended.text
    assert ended.last == "error: row 7 (counted from 0): ValueError: this cannot be read"
    assert "Traceback" not in ended.text


@pytest.mark.fault(15)
def test_a_row_that_cannot_be_read_is_named() -> None:
    from hf_tuner.errors import UsageError
    from hf_tuner.training.batching import Rows

    class Files:
        def __len__(self) -> int:
            return 9

        def __getitems__(self, indices: list[int]) -> list[dict[str, int]]:
            if 5 in indices:
                raise OSError("image file is truncated")
            return [{"labels": 0} for _ in indices]

    assert len(Rows(Files()).__getitems__([1, 2])) == 2
    with pytest.raises(UsageError, match=r"row 5 \(counted from 0\): OSError: image file is truncated"):
        Rows(Files()).__getitems__([1, 5, 2])


@pytest.mark.fault(15)
def test_a_hanging_data_worker_does_not_outlive_a_killed_run(
    tiny_model: Path, tiny_data: Path, forks: ForkServer, tmp_path: Path
) -> None:
    words = settings(tiny_model, tiny_data, tmp_path / "run", "--dataloader-num-workers", 2)
    mark = tmp_path / "hangs"
    process = forks.start(words, entry=str(RECIPE), FAULT="hang-row:0:7", FAULT_MARK=str(mark))
    workers: list[int] = []
    try:
        until(mark.exists)
        workers += [int(mark.read_text()), *children(process.pid)]
        assert len(set(workers)) >= 2 and all(map(alive, workers))
        process.send(signal.SIGKILL)
        process.wait()
        until(lambda: not any(map(alive, workers)), 10)
    finally:
        for pid in (p for p in workers if alive(p)):
            os.kill(pid, signal.SIGKILL)
        if process.code is None:
            process.send(signal.SIGKILL)
