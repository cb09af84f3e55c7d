"""Long runs: killed again and again, and watched for what grows."""

import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import ForkServer
from test_resume import line, model

__all__ = ["model"]

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.fault(28)
@pytest.mark.parametrize("more", [(), ("--method", "full"), ("--processes", "2")], ids=["lora", "full", "two"])
def test_killed_ten_times_the_run_ends_alike(more: tuple[str, ...]) -> None:
    soak = [sys.executable, ROOT / "benchmarks" / "soak.py", "--kills", "10", "--steps", "400", *more]
    done = subprocess.run(soak, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "byte-identical to the uninterrupted run: True" in done.stdout and "10 kills" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.fault(73, 74)
def test_nothing_grows(forks: ForkServer, model: Path, tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = forks.start(line("lora", model, tiny_data, folder, "--max-steps", 4000, "--save-steps", 50,
                              "--eval-steps", 200, "--logging-steps", 1))  # fmt: skip
    seen = []
    for step in (1000, 2000, 3000, 3900):
        child.wait_for(lambda step=step: f'"step": {step},' in _text(folder / "log.jsonl"), timeout=400)
        state = next(iter(folder.glob("checkpoint-*/trainer_state.json")), None)
        seen.append({**_process(child.pid), "state": state.stat().st_size if state else 0})
    assert child.wait(300) == 0, child.text()
    first, last = seen[0], seen[-1]
    assert last["files"] <= first["files"] and last["threads"] <= first["threads"], seen
    assert last["kilobytes"] < first["kilobytes"] * 1.05, seen
    assert last["state"] < 4_000 and len(list(folder.glob("checkpoint-*"))) <= 2, seen


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _process(pid: int) -> dict[str, int]:
    """Resident memory, threads and open files of a process."""
    status = dict(
        entry.split(":\t", 1) for entry in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in entry
    )
    return {
        "kilobytes": int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


@pytest.mark.parametrize("name", ["report.json", "README.md"])
def test_killed_while_it_writes_its_results_it_writes_them_again(
    name: str, forks: ForkServer, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run", "--max-steps", 3)
    code, text = forks.run(words, f"crash_points:kill_before_writing={name}")
    assert code == 137, text
    assert not (tmp_path / "run" / name).exists()
    code, text = forks.run(words)
    assert code == 0 and "nothing to do" not in text, text
    assert (tmp_path / "run" / "README.md").is_file()


@pytest.mark.fault(26)
@pytest.mark.parametrize("moment", ["data", "features", "training"])
def test_killed_before_training_it_starts_again(
    moment: str, forks: ForkServer, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run", "--max-steps", 3)
    cache = {"HF_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    code, text = forks.run(words, f"crash_points:kill_when_said={moment}", **cache)
    assert code == 137 and moment in text, text
    code, text = forks.run(words, **cache)
    assert code == 0 and "warning" not in text, text
    assert not list((tmp_path / "run").glob(".saving-*"))
