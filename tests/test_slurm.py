"""The batch script of docs/distributed.md: a real SIGTERM, a stand-in for srun and scontrol, a job that goes on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forks import until

PAGE = Path(__file__).parents[1] / "docs" / "distributed.md"


def script(tmp_path: Path, settings: str) -> Path:
    """The script as it is printed, with other settings for hf-tuner."""
    (text,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    text, count = re.subn(r"^srun hf-tuner lora .* &$", f"srun hf-tuner lora {settings} &", text, flags=re.MULTILINE)
    assert count == 1 and "#SBATCH --signal=B:TERM@120" in text and "#SBATCH --requeue" in text
    path = tmp_path / "job.sh"
    path.write_text(text)
    return path


def stand_ins(folder: Path) -> Path:
    """srun runs its words, scontrol writes them down, hf-tuner is this checkout's."""
    folder.mkdir()
    here = {
        "srun": '#!/bin/sh\nexec "$@"\n',
        "scontrol": f'#!/bin/sh\necho "$@" >> "{folder}/asked"\n',
        "hf-tuner": f'#!/bin/sh\nexec "{sys.executable}" -m hf_tuner.cli.main "$@"\n',
    }
    for name, text in here.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.fault(10)
def test_the_job_saves_is_requeued_and_goes_on(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    bin_folder = stand_ins(tmp_path / "bin")
    run = tmp_path / "run"
    given = (f"--model {tiny_model} --dataset {tiny_data} --output-dir {run} --no-verify --probe-rows 0 --save-steps 5 "
             "--save-strategy steps --per-device-train-batch-size 4 --bf16 false --num-processes 2 --max-steps ")  # fmt: skip
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    job = script(tmp_path, f"{given} 4000")
    with (tmp_path / "out.txt").open("w") as out:
        process = subprocess.Popen(["bash", job], env=environment, stdout=out, stderr=out)
        until(lambda: list(run.glob("checkpoint-*/trainer_state.json")), 90)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143, (tmp_path / "out.txt").read_text()
    assert (bin_folder / "asked").read_text() == "requeue 4711\n"
    steps = [int(p.name.partition("-")[2]) for p in run.glob("checkpoint-*")]
    assert steps and not (run / "adapter_model.safetensors").exists()
    script(tmp_path, f"{given} {max(steps) + 2} --resume {run}/checkpoint-{max(steps)}")
    again = subprocess.run(["bash", job], env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (run / "adapter_model.safetensors").exists()
    assert (bin_folder / "asked").read_text() == "requeue 4711\n"  # a finished job is not
