"""Ctrl-C and SIGTERM: a checkpoint at the next step, the right exit code, and the same command goes on."""

import json
import signal
from pathlib import Path

import pytest
from conftest import command
from fork_server import ForkServer


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: int, code: int, tiny_model: Path, tiny_data: Path, forks: ForkServer, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    line = ["lora", "--model", tiny_model, "--dataset", tiny_data, "--no-verify",
            "--output-dir", folder, "--max-steps", 400, "--logging-steps", 1, "--per-device-train-batch-size", 4]  # fmt: skip
    words = list(map(str, line))
    process = forks.start(words)
    process.wait_for(lambda: "\n  step " in process.text())
    process.send(number)
    assert process.wait() == code, process.text()
    err = process.err.read_text()
    assert "stopped by" in err and "Traceback" not in err
    (checkpoint,) = folder.glob("checkpoint-*")
    assert 0 < json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] < 400
    assert not (folder / "adapter_model.safetensors").exists()
    assert not list(folder.rglob("training_args.bin"))
    other = command(*words, "--seed", "7")
    assert other.returncode == 2 and "seed was 42, is 7" in other.stderr and checkpoint.is_dir()
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert f"going on from {checkpoint}" in again.stdout
    assert (folder / "adapter_model.safetensors").exists()
