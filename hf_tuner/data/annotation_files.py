"""Files of annotations beside pictures: which there are, of which split, what COCO's JSON holds, and the pictures named."""

import json
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hf_tuner.catalog import nearest
from hf_tuner.data.splits import split_of
from hf_tuner.errors import UsageError

LARGEST = 2_000_000_000
"""Bytes of an annotation file that are read."""
NAMED = 3
T = TypeVar("T")


def files_in(folder: Path) -> Iterator[Path]:
    """All files of a folder and of those in it, in order, but hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def ends_of(path: Path) -> bytes:
    """The first and the last 100,000 bytes of a JSON file that holds a mapping; nothing of any other."""
    with path.open("rb") as file:
        start = file.read(100_000)
        file.seek(max(0, path.stat().st_size - 100_000))
        end = file.read()
    return start + end if start.removeprefix(BOM_UTF8).lstrip().startswith(b"{") else b""


def by_split(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """COCO's files by the split in their names; one without is train where it is alone. Raises UsageError for others."""
    named: dict[str, list[Path]] = {}
    for path in files:
        split = split_of(path.relative_to(folder)) or ("train" if len(files) == 1 else "")
        if not split:
            raise UsageError(f"{path.name}: no split in its name; expected train, validation or test in it, "
                             f"as there are {len(files)} COCO files")  # fmt: skip
        named.setdefault(split, []).append(path)
    return named


def known_of(path: Path, what: str, expected: str, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of a JSON file in COCO's form, whose ids are there once. Raises UsageError for what is none."""
    if path.stat().st_size > LARGEST:
        raise UsageError(f"{path.name} has {path.stat().st_size / 1e9:.1f} GB; at most {LARGEST / 1e9:.0f} GB are read")
    try:
        known = json.loads(path.read_bytes())
        made = read(known)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        wrong = f"no {error}" if isinstance(error, KeyError) else str(error)[:120]
        raise UsageError(f"{path.name} is no {what}: {wrong}; expected {expected}") from error
    _once(path, "image id", [one["id"] for one in known["images"]])
    _once(path, "annotation id", [one["id"] for one in known["annotations"] if "id" in one])
    return made


class Pictures:
    """The pictures of a folder by their names."""

    def __init__(self, folder: Path, pictures: Sequence[Path]) -> None:
        self.folder = folder
        self.paths = {path.relative_to(folder).as_posix(): path for path in pictures}
        self.names: dict[str, list[Path]] = {}
        for path in pictures:
            for key in {path.name, path.stem}:
                self.names.setdefault(key, []).append(path)

    def find(self, name: str, said: Path, stem: str = "") -> Path:
        """The picture that an annotation file `said` names. Raises UsageError when there is none, or several."""
        key = re.sub(r"^\./", "", name.replace("\\", "/"))
        near = said.parent.relative_to(self.folder).as_posix()
        exact = self.paths.get(f"{near}/{key}") or self.paths.get(key)
        if exact:
            return exact
        found = self.names.get(key.rpartition("/")[2]) or self.names.get(stem) or []
        close = [p for p in found if split_of(p.relative_to(self.folder)) == split_of(said.relative_to(self.folder))]
        if len(close or found) != 1:
            what = (
                f"there are {len(found)} of that name"
                if found
                else f"it is not in {self.folder}{close_to(key, list(self.names))}"
            )
            raise UsageError(f"{said.name} names the picture {name or stem}: {what}")
        return (close or found)[0]


def close_to(name: str, known: list[str]) -> str:
    """A question after the nearest name; "" where none is near."""
    close = nearest(name, known)
    return f'; did you mean "{close}"?' if close else ""


def _once(path: Path, what: str, ids: Sequence[Any]) -> None:
    seen: set[Any] = set()
    twice = [one for one in ids if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
    if twice:
        listed = ", ".join(map(str, twice[:NAMED]))
        raise UsageError(f"{path.name}: {len(twice):,} rows repeat an {what} ({listed}); expected every {what} once")
