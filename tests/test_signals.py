"""Ctrl-C and SIGTERM: a checkpoint at the next step, the right exit code, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: int, code: int, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    line = [sys.executable, "-m", "hf_tuner.cli.main", "lora", "--model", tiny_model, "--dataset", tiny_data, "--no-verify",
            "--output-dir", folder, "--max-steps", 400, "--logging-steps", 1, "--per-device-train-batch-size", 4]  # fmt: skip
    words = list(map(str, line))
    reset = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **reset)  # type: ignore[call-overload]
    for shown in process.stdout:
        if shown.strip().startswith("step"):
            break
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert "stopped by" in err and "Traceback" not in err
    (checkpoint,) = folder.glob("checkpoint-*")
    assert 0 < json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] < 400
    assert not (folder / "adapter_model.safetensors").exists()
    assert not list(folder.rglob("training_args.bin"))
    other = subprocess.run([*words, "--seed", "7"], capture_output=True, text=True, timeout=120)
    assert other.returncode == 2 and "seed was 42, is 7" in other.stderr and checkpoint.is_dir()
    again = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert f"going on from {checkpoint}" in again.stdout
    assert (folder / "adapter_model.safetensors").exists()
