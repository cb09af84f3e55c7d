"""One run at a time in a folder, and a lock that dies with its holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_tuner.config import Run
from hf_tuner.errors import EnvironmentFault
from hf_tuner.folder import LOCK, claim

HOLD = """
import sys, time
from hf_tuner.config import Run
from hf_tuner.folder import claim
with claim(Run(model="m", dataset="d", output_dir=sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.fault(22)
def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    run = Run(model="m", dataset="d", output_dir=str(tmp_path / "run"))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, run.output_dir], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with (
        pytest.raises(EnvironmentFault, match=rf"in use by process {holder.pid} on .*another --output-dir"),
        claim(run),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=10)
    with claim(run):
        assert str(os.getpid()) in (run.folder / LOCK).read_text()


@pytest.mark.fault(22)
def test_what_a_killed_run_left_half_written_is_swept(tmp_path: Path) -> None:
    for name in (".saving-checkpoint-5", ".dropping-checkpoint-3", ".saving-x1y2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / "run.yaml").write_text("model: m\n")
    with claim(Run(model="m", dataset="d", output_dir=str(tmp_path))):
        assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, "run.yaml"]


@pytest.mark.parametrize("wrote", [False, True])
def test_a_start_that_failed_leaves_no_empty_folder(wrote: bool, tmp_path: Path) -> None:
    run = Run(model="m", dataset="d", output_dir=str(tmp_path / "runs" / "one"))

    def start() -> None:
        with claim(run):
            if wrote:
                (run.folder / "log.jsonl").touch()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        start()
    assert (tmp_path / "runs").exists() == wrote


def test_what_was_there_before_a_failed_start_stays(tmp_path: Path) -> None:
    (tmp_path / "runs" / "other").mkdir(parents=True)
    with (
        pytest.raises(KeyboardInterrupt),
        claim(Run(model="m", dataset="d", output_dir=str(tmp_path / "runs" / "one"))),
    ):
        raise KeyboardInterrupt
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no"), claim(Run(model="m", dataset="d", output_dir=str(tmp_path / "mine"))):
        raise ValueError("no")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"] and (tmp_path / "mine").is_dir()
