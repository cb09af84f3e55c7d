"""Two processes stop at the same step, save once, and go on bit for bit."""

import shutil
import socket
from pathlib import Path

import pytest
from fork_server import ForkServer
from test_resume import assert_same, line, model

__all__ = ["model"]


def pair(forks: ForkServer, words: list[object], *patches: str) -> tuple[list[int], str]:
    """Exit codes and output of a run in two processes; a patch for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": "2"}
    children = [
        forks.start(words, patch, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank, patch in enumerate([*patches, "", ""][:2])
    ]
    return [child.wait(90) for child in children], "".join(child.text() for child in children)


@pytest.fixture(scope="module")
def whole(forks: ForkServer, model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in two processes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    codes, text = pair(forks, line("lora", model, tiny_data, folder))
    assert codes == [0, 0], text
    return folder


@pytest.mark.fault(1)
def test_a_kill_of_both(forks: ForkServer, whole: Path, model: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run")
    codes, _ = pair(forks, words, "crash_points:kill_at_step=17", "crash_points:kill_at_step=17")
    assert codes == [137, 137]
    codes, text = pair(forks, words)
    assert codes == [0, 0] and text.count("going on from") == 1, text
    assert_same(tmp_path / "run", whole)


@pytest.mark.fault(7, 10)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_them_stops_both_at_one_step(
    rank: int, forks: ForkServer, whole: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run")
    patches = ["", ""]
    patches[rank] = "crash_points:term_at_step=12"
    codes, text = pair(forks, words, *patches)
    assert codes == [143, 143], text
    assert (tmp_path / "run" / "checkpoint-13" / "ledger_1.json").is_file()
    codes, text = pair(forks, words)
    assert codes == [0, 0], text
    assert_same(tmp_path / "run", whole)


@pytest.mark.fault(7)
def test_a_signal_in_an_evaluation(
    forks: ForkServer, whole: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run")
    codes, text = pair(forks, words, "", "crash_points:signal_in_evaluation=15")
    assert codes == [143, 143], text
    codes, text = pair(forks, words)
    assert codes == [0, 0], text
    assert_same(tmp_path / "run", whole)


@pytest.mark.fault(14)
def test_another_number_of_processes(
    forks: ForkServer, whole: Path, model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = line("lora", model, tiny_data, tmp_path / "run")
    assert pair(forks, words, "crash_points:kill_at_step=17", "crash_points:kill_at_step=17")[0] == [137, 137]
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    code, text = forks.run(words)
    assert code == 2 and "an update had 8 rows, has 4" in text, text
    same = line("lora", model, tiny_data, tmp_path / "other", "--gradient-accumulation-steps", 2,
                "--allow-changed", "gradient_accumulation_steps")  # fmt: skip
    code, text = forks.run(same)
    assert code == 0 and "not bit for bit the uninterrupted run: processes 2 → 1" in text, text
