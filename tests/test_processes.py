"""Two processes on this machine: whatever happens to one of them, the run ends soon, whole, and with one line why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import forked_ranks
import pytest
from conftest import command
from fork_server import Child, ForkServer
from forks import alive, children, until

RECIPE = Path(__file__).with_name("faulty_recipe.py")
NOISE = ("Traceback", "ChildFailedError", "exitcode", "elastic", "=====")
STEPS = 4000


@pytest.fixture
def words(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> list[str]:
    """Settings of a long run of two processes with a checkpoint every three steps."""
    line = ["--model", tiny_model, "--dataset", tiny_data, "--output-dir", tmp_path / "run", "--no-verify",
            "--per-device-train-batch-size", 4, "--max-steps", STEPS, "--save-strategy", "steps", "--save-steps", 3,
            "--bf16", "false", "--probe-rows", 0, "--num-processes", 2]  # fmt: skip
    return list(map(str, line))


@contextmanager
def started(line: list[str], forks: ForkServer, **environment: str) -> Iterator[Child]:
    """A command running, a fork as its ranks are; whatever it left running is killed and is a failure."""
    entry = {"entry": line[0]} if line[0].endswith(".py") else {}
    process = forks.start(line[1:] if entry else line, **entry, **environment)
    ranks: list[int] = []
    try:
        ranks += until(lambda: found if len(found := children(process.pid)) >= 2 else None)  # type: ignore[arg-type]
        yield process
        until(lambda: not any(map(alive, ranks)), 30)
    finally:
        for pid in (pid for pid in (process.pid, *ranks) if alive(pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def rank_of(process: Child, rank: int) -> int:
    """Process id of a rank."""
    for pid in children(process.pid):
        if Path(f"/proc/{pid}/comm").read_text().strip() == f"{forked_ranks.NAME} {rank}":
            return pid
    raise AssertionError(f"rank {rank} is not running")


def first_checkpoint(folder: Path) -> Path:
    """Wait for the first checkpoint of a run."""
    return until(lambda: next((p.parent for p in folder.glob("checkpoint-*/trainer_state.json")), None), 90)  # type: ignore


def last_line(process: Child) -> str:
    """The last line printed, after a look for noise."""
    text = process.text()
    assert not [n for n in NOISE if n in text], text
    return text.strip().splitlines()[-1]


@pytest.mark.fault(11)
def test_a_killed_rank_is_named_and_the_same_command_goes_on(
    words: list[str], forks: ForkServer, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with started(["lora", *words], forks) as process:
        first_checkpoint(folder)
        os.kill(rank_of(process, 1), signal.SIGKILL)
        since = time.monotonic()
        assert process.wait(60) == 3
        assert time.monotonic() - since < 60
    newest = max(folder.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    said = last_line(process)
    assert said == f"error: rank 1 was killed by SIGKILL (out of memory?); the same command goes on from {newest}"
    step = json.loads((newest / "trainer_state.json").read_text())["global_step"]
    again = [*words[: words.index("--max-steps") + 1], str(step + 2), *words[words.index("--max-steps") + 2 :]]
    again += ["--allow-changed", "max_steps"]
    done = command("lora", *again)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "adapter_model.safetensors").exists()


@pytest.mark.fault(12, 30)
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("raise-row:1:7", 2, "error: rank 1: row 7 (counted from 0): ValueError: this cannot be read"),
        ("nan:1:5", 5, "error: rank 1: training diverged: the loss is nan at step 5 (training rows "),
        ("memory:0:2", 3, "error: rank 0: out of memory in a training step at step 2 (CUDA out of memory."),
        ("hang:1:6", 3, "error: rank 1 made no progress for "),
    ],
    ids=lambda v: v.split(":")[0] if isinstance(v, str) else "",
)  # fmt: skip
def test_what_one_rank_finds_is_said_once_and_last(
    fault: str, code: int, said: str, words: list[str], forks: ForkServer, tmp_path: Path
) -> None:
    line = [str(RECIPE), *words, "--stall-timeout", "3" if "hang" in fault else "60"]
    with started(line, forks, FAULT=fault) as process:
        assert process.wait(90) == code, process.text()
    last_line(process)
    told = process.text()
    assert told.count("error:") == 1
    error = told[told.index("error:") :]
    assert error.startswith(said), error
    assert len(error.strip().splitlines()) <= 2
    if fault.startswith("nan"):
        assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint-3'}." in error
    if fault.startswith("hang"):
        assert " in a training step at step 6 (faulty_recipe.py:" in error and "checkpoint-3" in error


@pytest.mark.fault(12)
def test_a_traceback_of_one_rank_is_shown_once_with_its_cause_last(words: list[str], forks: ForkServer) -> None:
    with started([str(RECIPE), *words], forks, FAULT="raise:1:5") as process:
        assert process.wait(90) == 1
    told = process.text()
    assert told.count("Traceback") == 1 and "in _break" in told and "ChildFailedError" not in told
    assert told.strip().splitlines()[-1] == "error: rank 1: ValueError: this cannot be read"


@pytest.mark.fault(13)
def test_a_frozen_rank_is_named_by_the_others(words: list[str], forks: ForkServer, tmp_path: Path) -> None:
    with started(["lora", *words, "--stall-timeout", "2"], forks) as process:
        first_checkpoint(tmp_path / "run")
        os.kill(rank_of(process, 1), signal.SIGSTOP)
        assert process.wait(60) == 3
    said = last_line(process)
    assert said.startswith("error: rank 1 made no progress and does not answer; rank 0: waited ")
    assert " s for the other processes in " in said and "the same command goes on from" in said


@pytest.mark.fault(10)
@pytest.mark.parametrize(("number", "code"), [
    (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_signal_reaches_every_rank_once(
    number: int, code: int, words: list[str], forks: ForkServer, tmp_path: Path
) -> None:
    with started(["lora", *words], forks) as process:
        first_checkpoint(tmp_path / "run")
        process.send(number)
        assert process.wait(60) == code
    said = last_line(process)
    assert (
        said.startswith(f"error: stopped by {signal.Signals(number).name}") and "the same command goes on from" in said
    )
    assert process.text().count("saving at the next step") == 1
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


@pytest.mark.fault(10)
def test_no_rank_outlives_the_parent(words: list[str], forks: ForkServer, tmp_path: Path) -> None:
    with started(["lora", *words], forks) as process:
        first_checkpoint(tmp_path / "run")
        process.send(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.fault(12)
def test_under_plain_torchrun_the_failing_rank_says_it_once(words: list[str]) -> None:
    alone = words[: words.index("--num-processes")]
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(RECIPE), *alone]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "FAULT": "raise-row:1:7"})  # fmt: skip
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count(
        "error: rank 1: row 7 (counted from 0): ValueError: this cannot be read"
    ) == 1


def test_a_mistake_that_every_rank_finds_is_said_once(words: list[str]) -> None:
    """Ranks are processes of their own here, as users have them."""
    wrong = ["lora", *words, "--columns", "text=body,label=label"]
    done = subprocess.run(
        [sys.executable, "-m", "hf_tuner.cli.main", *wrong], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1 and "error: rank" not in done.stderr and "body" in done.stderr


@pytest.mark.slow
@pytest.mark.fault(11)
def test_under_a_launcher_of_accelerate_a_killed_rank_is_named_as_well(words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text('{distributed_type: MULTI_GPU, num_machines: 1, num_processes: 2, mixed_precision: "no"}\n')
    line = [str(RECIPE), *words[: words.index("--num-processes")], "--accelerate-config", str(config)]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "FAULT": "die:1:5"})  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert not [n for n in NOISE if n in done.stderr], done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("error: rank 1 was killed by SIGKILL (out of memory?); the same command goes on from")


@pytest.mark.fault(64)
def test_more_processes_than_cores_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from hf_tuner import processes
    from hf_tuner.config import Run

    monkeypatch.setattr(processes, "_commands", lambda *_: [])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    processes.run_processes(Run(num_processes=3, output_dir=str(tmp_path)), RECIPE, [])
    assert "warning" not in capsys.readouterr().err
    processes.run_processes(Run(num_processes=4, output_dir=str(tmp_path)), RECIPE, [])
    assert "warning: 4 processes on 3 CPU cores take turns; --num-processes 3" in capsys.readouterr().err


@pytest.mark.fault(64)
@pytest.mark.skipif("__import__('torch').accelerator.is_available()", reason="an accelerator can do fp16")
@pytest.mark.parametrize("asked", [
    ["--fp16", "true"], pytest.param(["--accelerate-config", "fp16"], marks=pytest.mark.slow),
])  # fmt: skip
def test_fp16_on_a_cpu_is_refused(asked: list[str], words: list[str]) -> None:
    done = command("lora", *words[: words.index("--num-processes")], *asked)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "fp16" in done.stderr and "needs an accelerator: on a CPU it is slower and overflows" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


EVALUATE = """
import numpy as np, torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from hf_tuner.evaluation.loop import keep_outputs
def outputs(model, batch):
    return list(model(**batch).logits.float().numpy())
torch.distributed.init_process_group("gloo")
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained({model!r}, num_labels=3)
def collate(rows):
    width = max(len(r["input_ids"]) for r in rows)
    return {{"input_ids": torch.tensor([r["input_ids"] + [0] * (width - len(r["input_ids"])) for r in rows])}}
for size in (1, 2, 7, 10, 13):
    rows = Dataset.from_dict({{"input_ids": [[5] * (3 + i % 4) for i in range(size)], "length": [3 + i % 4 for i in range(size)]}})
    for batch in (1, 4):
        both = np.array(keep_outputs(model, rows, collate, outputs, batch))
        assert both.shape == (size, 3) and np.isfinite(both).all(), (size, both)
        assert (both == np.array(keep_outputs(model, rows, collate, outputs, batch, alone=True))).all()
print("seen", torch.distributed.get_rank())
"""


@pytest.mark.fault(36)
def test_two_processes_measure_each_row_once(tiny_model: Path, forks: ForkServer, tmp_path: Path) -> None:
    from hf_tuner.processes import _free_port

    script = tmp_path / "measure.py"
    script.write_text(EVALUATE.format(model=str(tiny_model)))
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    ranks = [forks.start([], entry=str(script), **place, RANK=str(rank)) for rank in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.text() for rank in ranks]
    assert [f"seen {number}" in rank.text() for number, rank in enumerate(ranks)] == [True, True]
