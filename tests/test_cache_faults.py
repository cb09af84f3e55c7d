"""Caches that were cut short, changed or edited behind our back are found, and twenty checks share one in peace."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_rows
from datasets import Dataset, load_from_disk
from hub_server import Hub

from hf_tuner.config import Run
from hf_tuner.data import seals
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.predict import encoded
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks.text_classification import TextClassification
from hf_tuner.training import features
from hf_tuner.training.features import Features, cached

DATA = "alice/words"


def flip(path: Path) -> None:
    """Change one bit in the middle; size and time stay."""
    age = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(age.st_atime_ns, age.st_mtime_ns))


def cut(path: Path) -> None:
    """Leave the first half."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave nothing."""
    os.truncate(path, 0)


FAULTS = pytest.mark.parametrize("harm", [flip, cut, empty])


class Reader:
    """Stands for the model: counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def features(self, rows: Any, _: Callable) -> Features:
        """Features that depend on nothing but the number of rows."""
        self.asked += 1
        return Features(*np.arange(2 * len(rows) * 4, dtype=np.float32).reshape(2, len(rows), 4))


@pytest.mark.fault(27)
@FAULTS
def test_damaged_features_are_made_anew(
    harm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """They are never used, it is said once, and the next run finds the new ones."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    rows, reader = Dataset.from_dict({"input_ids": [[1, 2], [3]]}), Reader()
    first, _ = cached(reader, rows, len, ["model"])  # type: ignore[arg-type]
    assert cached(reader, rows, len, ["model"])[1] and reader.asked == 1  # type: ignore[arg-type]
    (path,) = features.cache_folder().glob("*.npz")
    harm(path)
    again, hit = cached(reader, rows, len, ["model"])  # type: ignore[arg-type]
    assert (hit, reader.asked) == (False, 2)
    assert np.array_equal(again.mean, first.mean) and np.array_equal(again.entry, first.entry)
    assert "are damaged; they are made anew" in capsys.readouterr().err
    assert cached(reader, rows, len, ["model"])[1] and reader.asked == 2  # type: ignore[arg-type]


@pytest.fixture
def stocked(there: Hub, tmp_path: Path) -> Hub:
    """The stand-in of the Hub with a data set of a train and a test file."""
    files = {
        f"{name}.csv": write_rows(tmp_path / f"{name}.csv", n, seed=n).read_bytes()
        for name, n in (("train", 24), ("test", 12))
    }
    there.create("dataset", DATA, files=files)
    return there


def texts() -> list[str]:
    """All texts of the data set on the stand-in."""
    data = load_data(Run(dataset=DATA, output_dir="unused"), TextClassification)
    return [text for rows in data.values() for text in rows["text"]]


@pytest.mark.fault(27)
@FAULTS
def test_damaged_rows_in_the_cache_of_datasets_are_prepared_anew(
    harm: Callable, stocked: Hub, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A flipped bit would be a wrong row, a short file a traceback."""
    right = texts()
    harm(next(iter((tmp_path / "datasets").rglob("*train.arrow"))))
    assert texts() == right
    assert "the cached rows of alice/words are damaged" in capsys.readouterr().err
    assert texts() == right
    assert "damaged" not in capsys.readouterr().err


@pytest.mark.fault(27)
@FAULTS
def test_damaged_tokens_in_the_cache_are_made_anew(
    harm: Callable, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """`map` writes beside rows that lie on the disk, and would take what is there."""
    import transformers

    Dataset.from_dict({"text": ["rain sun", "bread soup", "ball team"] * 20}).save_to_disk(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    task = TextClassification(labels=Labels("single", ("a", "b")))
    right = encoded(task, tokenizer, load_from_disk(str(tmp_path / "saved")), 16)["input_ids"][:]
    (path,) = (tmp_path / "saved").glob("cache-*.arrow")
    harm(path)
    assert encoded(task, tokenizer, load_from_disk(str(tmp_path / "saved")), 16)["input_ids"][:] == right
    assert "tokenised texts are damaged" in capsys.readouterr().err


@pytest.mark.fault(27)
def test_local_files_are_never_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a plain file nor a folder with a card leaves rows in the cache, so none can be stale."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    folder.mkdir()
    write_rows(folder / "train.csv", 24)
    write_rows(folder / "test.csv", 12)
    for name in (folder, folder / "train.csv"):
        load_data(Run(dataset=str(name), output_dir="unused"), TextClassification)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: [{split: train, path: a.txt}]\n---\n"
    )
    (folder / "a.txt").write_text("text\n")
    with pytest.raises(UsageError, match="label"):
        load_data(Run(dataset=str(folder), output_dir="unused"), TextClassification)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_file_that_another_process_seals_meanwhile_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seal comes just after it was looked for and not found."""
    path, read = tmp_path / "rows.arrow", Path.read_text
    path.write_bytes(b"rows")

    def read_before_it_is_there(self: Path, *args: Any, **kwargs: Any) -> str:
        try:
            return read(self, *args, **kwargs)
        except FileNotFoundError:
            seals.seal(path)
            raise

    monkeypatch.setattr(Path, "read_text", read_before_it_is_there)
    assert seals.broken([path]) == []
    assert seals.whole(path)


@pytest.mark.fault(75)
def test_twenty_checks_share_one_cache(stocked: Hub, tmp_path: Path) -> None:
    """All at once on an empty cache: each ends well, none waits for ever, and no row is lost."""
    from checking import check

    children = {}
    for number in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(150)
            try:
                said = check(DATA, "--output-dir", tmp_path / "run")
                (tmp_path / f"said {number}").write_text(said.text)
                os._exit(said.code)
            finally:
                os._exit(99)
        children[pid] = number
    start, codes = time.monotonic(), []
    while children and time.monotonic() - start < 160:
        pid, status = os.wait()
        codes.append(os.waitstatus_to_exitcode(status))
        children.pop(pid)
    told = [(tmp_path / f"said {n}").read_text() for n in range(20) if (tmp_path / f"said {n}").is_file()]
    assert codes == [0] * 20, told
    assert all("train 24, test 12" in text for text in told) and len(told) == 20
    assert not [text for text in told if "damaged" in text]
    assert len(texts()) == 36
