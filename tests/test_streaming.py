"""Streams: every row in its turn whatever the cut, bit for bit after an interruption, and what cannot be streamed is said."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.data_loader import IterableDatasetShard
from conftest import write_rows
from datasets import Dataset
from safetensors.torch import load_file

from hf_tuner import finetune
from hf_tuner.data import streams
from hf_tuner.data.files import Reading
from hf_tuner.data.sources import parse
from hf_tuner.data.streams import Stream, read_stream
from hf_tuner.errors import UsageError
from hf_tuner.training.streaming import StreamedRows

SETTINGS = {
    "streaming": True,
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "warmup_steps": 0,
    "verify": False,
    "method": "lora",
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of ten rows."""
    monkeypatch.setattr(streams, "WINDOW", 10)


def rows_of(first: int, last: int) -> Dataset:
    return Dataset.from_dict({"id": list(range(first, last)), "length": [(7 * i) % 5 for i in range(first, last)]})


def streamed(update: int) -> StreamedRows:
    """25 rows: a head of ten, a window of ten, one of five."""

    def rest() -> Iterator[Dataset]:
        yield rows_of(10, 20)
        yield rows_of(20, 25)

    return StreamedRows(Stream(rest, lambda rows, before: rows), rows_of(0, 10), lambda rows: rows, update, seed=3)


def test_every_row_comes_once_before_any_comes_again() -> None:
    ids = [row["id"] for row in itertools.islice(streamed(5), 50)]
    assert sorted(ids[:25]) == sorted(ids[25:]) == list(range(25))


def test_rows_left_over_come_in_the_next_window() -> None:
    ids = [row["id"] for row in itertools.islice(streamed(4), 100)]
    assert {ids.count(i) for i in range(25)} == {4}
    assert max(ids[:8]) < 10 <= max(ids[8:12])


def test_processes_share_each_update() -> None:
    whole = [row["id"] for row in itertools.islice(streamed(4), 24)]
    shards = [IterableDatasetShard(streamed(4), 2, num_processes=2, process_index=i) for i in (0, 1)]
    parts = [[row["id"] for row in itertools.islice(shard, 12)] for shard in shards]
    joined = [i for k in range(0, 12, 2) for part in parts for i in part[k : k + 2]]
    assert joined == whole


def test_a_stopped_run_goes_on_bit_for_bit(tiny_model: Path, tmp_path: Path, short: None) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.csv", 25)
    write_rows(data / "test.csv", 6, seed=5)
    for name in ("whole", "cut"):
        finetune(model=str(tiny_model), dataset=str(data), output_dir=str(tmp_path / name), save_steps=2, **SETTINGS)
    for name in ("manifest.json", "report.json", "README.md", "adapter_model.safetensors", "checkpoint-8"):
        path = tmp_path / "cut" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    finetune(model=str(tiny_model), dataset=str(data), output_dir=str(tmp_path / "cut"), save_steps=2, **SETTINGS)
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all((one[key] == two[key]).all() for key in one)
    assert json.loads((tmp_path / "cut" / "manifest.json").read_text())["data"]["streamed"] is True


def test_only_the_head_is_read_at_first(tmp_path: Path, short: None) -> None:
    file = write_rows(tmp_path / "rows.csv", 25)
    raw, rest = read_stream(parse(str(file)), Reading(None, None))
    assert raw.splits["train"].num_rows == 10
    assert [part.num_rows for part in rest()] == [10, 5] == [part.num_rows for part in rest()]


@pytest.mark.parametrize(
    ("more", "said"),
    [({"max_steps": -1}, "needs --max-steps"), ({"dataloader_num_workers": 2}, "leave --dataloader-num-workers out")],
)
def test_what_a_stream_cannot_serve_is_said(
    more: dict, said: str, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        finetune(
            model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), **{**SETTINGS, **more}
        )


def test_a_stream_is_not_sampled(tiny_data: Path) -> None:
    with pytest.raises(UsageError, match="leave #5 out"):
        read_stream(parse(f"{tiny_data}#5"), Reading(None, None))


def test_a_stream_reads_a_file_as_it_is_read_whole(tmp_path: Path, short: None) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nNA,a\nnull,b\n")
    raw, _ = read_stream(parse(str(tmp_path / "rows.csv")), Reading(None, None))
    assert raw.splits["train"]["text"][:] == ["NA", "null"]
    (tmp_path / "book.txt").write_text("one\ntwo\n\nthree\n")
    raw, _ = read_stream(parse(str(tmp_path / "book.txt")), Reading(None, None))
    assert [text.strip() for text in raw.splits["train"]["text"]] == ["one\ntwo", "three"]


def test_a_kind_that_cannot_be_streamed_is_said(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("Ann B-PER\nran O\n")
    with pytest.raises(UsageError, match="conll files cannot be streamed"):
        read_stream(parse(str(tmp_path / "train.conll")), Reading(None, None))
