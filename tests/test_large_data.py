"""Large files: rows lie on the disk, memory stays small, and somebody who waits sees how long."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hf_tuner import console
from hf_tuner.data import files, store
from hf_tuner.data.splits import keep
from hf_tuner.errors import EnvironmentFault

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


@pytest.mark.slow
@pytest.mark.fault(53)
def test_five_million_rows_need_less_than_a_gigabyte(tmp_path: Path) -> None:
    """With progress and the time that is left, in minutes."""
    from audit import measure, write

    write(tmp_path / "large.csv", 5_000_000)
    found = measure(tmp_path / "large.csv")
    assert found["code"] == 0, found["text"]
    assert found["peak_mb"] < 1_000
    assert "train 4,000,000, test 1,000,000" in found["text"]
    assert "reading large.csv: " in found["text"] and " left" in found["text"]


def table(start: int, rows: int) -> pa.Table:
    """Rows with a number and a text."""
    return pa.table({"n": np.arange(start, start + rows), "t": [f"text {i}" for i in range(start, start + rows)]})


@pytest.mark.fault(53)
@pytest.mark.parametrize("limit", [0, 10**9])
def test_rows_are_the_same_from_memory_and_from_the_disk(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order and values survive, pages that were given back are read again, and nothing is left on the disk."""
    monkeypatch.setattr(store, "SPILL", limit)
    monkeypatch.setattr(store, "BATCH", 7)
    shelf = store.Shelf()
    for start in range(0, 100, 10):
        shelf.put(table(start, 10))
    assert (shelf.file is not None) == (limit == 0)
    rows = store.dataset(shelf.tables())
    assert store.numbers(rows, "n").tolist() == list(range(100))
    store.forget()
    assert rows["t"][:] == [f"text {i}" for i in range(100)]
    odd = keep(rows, np.arange(1, 100, 2))
    del rows, shelf
    store.forget()
    assert odd["n"][:] == list(range(1, 100, 2))
    assert odd.features["t"].dtype == "string"


@pytest.mark.fault(53)
@pytest.mark.parametrize("rows", [1, 100_000])
def test_no_room_for_the_rows_is_said(rows: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A temporary folder that is full, at the first byte or at the last."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(store, "SPILL", 0)
    monkeypatch.setattr(store.tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(rows)))
    with pytest.raises(EnvironmentFault, match=r"do not fit into .*: No space left on device; .* TMPDIR"):
        files.read_file(path, files.Reading())


@pytest.mark.fault(53)
def test_mapped_rows_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 MB of texts, looked at from end to end, add little to this process."""
    monkeypatch.setattr(store, "SPILL", 1_000_000)
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"{'word ' * 200}{i},{'ab'[i % 2]}\n" for i in range(60_000)))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    files.read_file(path, files.Reading())  # what is imported on the way counts before
    before = resident()
    rows = files.read_file(path, files.Reading())
    assert sum(pc.sum(pc.utf8_length(array)).as_py() for _, array in store.column(rows, "text")) > 60_000_000
    store.forget()
    assert resident() - before < 30_000_000
    assert rows.data.nbytes > 60_000_000


@pytest.mark.fault(53)
def test_progress_is_silent_at_first_then_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A log gets a line every ten seconds, from the third second on."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    progress = console.Progress("reading x.csv", 1_000)
    for second in range(1, 31):
        now[0] = 100.0 + second
        progress.at(second * 25, f"{second} lines")
    progress.end()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reading x.csv: 5%, 2 lines, about 38.0 s left",
        "reading x.csv: 30%, 12 lines, about 28.0 s left",
        "reading x.csv: 55%, 22 lines, about 18.0 s left",
    ]


def test_nothing_is_estimated_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(console.Progress, "AFTER", -1000.0)
    progress = console.Progress("measuring", 10)
    progress.step()
    assert not capsys.readouterr().err
    progress.step()
    assert "left" in capsys.readouterr().err
