"""Training rows that are read when they are needed: for data larger than the disk (--streaming).

The head of the stream, the first WINDOW rows, is read at once: it is audited, it shows what the columns are, and what is
held out to measure on comes out of it. Training begins with it and goes on with the rest, a window at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

from hf_tuner.config import Run
from hf_tuner.data.archives import guarded
from hf_tuner.data.files import Reading, kind_of
from hf_tuner.data.sources import Raw, Source, opened, read_error
from hf_tuner.data.splits import split_of
from hf_tuner.errors import TunerError, UsageError
from hf_tuner.hub.pins import pin
from hf_tuner.hub.reach import require_hub

WINDOW = 10_000
"""Rows that are held, encoded and sorted by length together."""
READERS = {"json": "json", "csv": "csv", "parquet": "parquet", "text": "text"}


@dataclass(frozen=True)
class Stream:
    """What comes after the head, from its beginning each time it is asked."""

    rest: Callable[[], Iterator[Dataset]]
    """Raw rows after the head, a window at a time."""
    arrange: Callable[[Dataset, int], Dataset]
    """Raw rows, and how many came before them, as rows with the task's columns. Raises UsageError."""

    def windows(self, head: Dataset) -> Iterator[Dataset]:
        """Rows with the task's columns: the head, then the rest. Ends with the data."""
        yield head
        before = WINDOW
        for raw in self.rest():
            yield self.arrange(raw, before)
            before += raw.num_rows


def read_stream(source: Source, reading: Reading) -> tuple[Raw, Callable[[], Iterator[Dataset]]]:
    """The head of a source with its other splits (their first WINDOW rows), and what follows the head of train.

    Raises UsageError for what cannot be streamed, EnvironmentFault when it cannot be reached.
    """
    if source.sample:
        raise UsageError(f"--streaming reads all rows in order: leave #{source.sample} out")
    splits, origin, commit = _opened(source, reading)
    train = next((name for name in splits if split_of(Path(name)) == "train"), next(iter(splits)))
    with _explained(source), guarded():
        heads = {name: _first(rows) for name, rows in splits.items()}
    notes = [f"streamed: {train} is looked at in its first {heads[train].num_rows:,} rows"]
    cut = [name for name, head in heads.items() if name != train and head.num_rows == WINDOW]
    notes += [f"{name}: its first {WINDOW:,} rows are measured on" for name in cut]
    raw = Raw(heads, f"{origin}, streamed", {}, {}, notes, commit)
    raw.splits = {("train" if name == train else name): head for name, head in heads.items()}
    features = heads[train].features

    def rest() -> Iterator[Dataset]:
        with _explained(source), guarded():
            for batch in splits[train].skip(WINDOW).iter(batch_size=WINDOW):
                yield Dataset.from_dict(batch, features=features)

    return raw, rest


def _first(rows: IterableDataset) -> Dataset:
    batch = next(iter(rows.iter(batch_size=WINDOW)), None)
    if batch is None:
        raise UsageError("the stream holds no rows")
    return Dataset.from_dict(batch, features=rows.features)


def _opened(source: Source, reading: Reading) -> tuple[dict[str, IterableDataset], str, str | None]:
    """Splits as streams, where they come from in words, and their commit on the Hub."""
    if source.path is None:
        require_hub(f"the data set {source.name}", cached=False)
        commit = pin(source.name, "dataset", source.revision)
        with _explained(source), guarded():
            splits = opened(source.name, source.config, revision=commit)
            return splits, f"{source.name} on the Hub" + (f" at {commit[:8]}" if commit else ""), commit
    files = _files(source.path)
    kinds = {kind_of(path) for paths in files.values() for path in paths}
    if len(kinds) != 1:
        raise UsageError(f"{source.path}: a stream is of one kind of file; found {', '.join(sorted(map(str, kinds)))}")
    found = str(kinds.pop())
    if found not in READERS:
        raise UsageError(f"{source.path}: {found} files cannot be streamed; leave --streaming out")
    kind = READERS[found]
    options: dict[str, Any] = {"sep": reading.separator} if kind == "csv" and reading.separator else {}
    if kind == "csv":
        options["keep_default_na"] = False  # the text NA is a text
    if kind == "text":
        options["sample_by"] = "document" if (reading.separator or "").lower() == "file" else "paragraph"
    options |= {"encoding": reading.encoding} if reading.encoding and kind != "parquet" else {}
    named = {split: [str(path) for path in paths] for split, paths in files.items()}
    with _explained(source), guarded():
        return opened(kind, data_files=named, **options), str(source.path), None


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    try:
        yield
    except TunerError:
        raise
    except Exception as error:  # dozens of kinds; each ends in one line that says what to do
        raise read_error(source, error) from error


def _files(path: Path) -> dict[str, list[Path]]:
    """Files by split: one file is train, in a folder names tell."""
    if path.is_file():
        return {"train": [path]}
    found = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p))
    if not found:
        raise UsageError(f"{path} holds no data files that can be streamed")
    groups: dict[str, list[Path]] = {}
    for file in found:
        groups.setdefault(split_of(file.relative_to(path)) or "train", []).append(file)
    return groups


def require_streamable(run: Run) -> None:
    """Raise UsageError for settings that a stream cannot serve."""
    if not run.streaming:
        return
    if int(run.training.get("max_steps") or -1) <= 0:
        raise UsageError("--streaming needs --max-steps: nobody knows how long a stream is")
    if int(run.training.get("dataloader_num_workers") or 0) > 0:
        raise UsageError("--streaming reads in the training process: leave --dataloader-num-workers out")
