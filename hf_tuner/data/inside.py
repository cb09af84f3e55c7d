"""A data folder of a stranger names its files itself: those of the rest of this machine are not read."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hf_tuner.errors import UsageError


def require_inside(folder: Path, names: Iterable[str], where: str) -> None:
    """Raise UsageError for a name that leaves the folder; links inside it are followed (the client's cache is made of them).

    Of an address such as zip://train.csv::data.zip the file itself counts.
    """
    root = os.path.abspath(folder)
    for name in names:
        plain = os.path.abspath(os.path.join(root, name.rpartition("::")[2].removeprefix("file://")))
        if os.path.commonpath([root, plain]) != root:
            raise UsageError(f'{folder}: {where} names "{name[:200]}", which is outside the folder and is not read; '
                             "put the file inside, or name it as --dataset")  # fmt: skip


def saved_files(folder: Path) -> Iterator[str]:
    """The folders and files that a saved data set says it is made of, relative to it. Raises ValueError or KeyError."""
    splits = [""]
    if (folder / "dataset_dict.json").is_file():
        splits = list(json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
    for split in map(str, splits):
        yield split
        state = folder / split / "state.json"
        if state.is_file():
            for part in json.loads(state.read_text(encoding="utf-8"))["_data_files"]:
                yield os.path.join(split, str(part["filename"]))
