"""A cache file is used only when its bytes are those that were written: a size and a sha256 lie beside it."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_tuner.console import warn
from hf_tuner.hub.manifest import sha256

SUFFIX = ".seal"


def seal(path: Path) -> None:
    """Remember the bytes of a finished cache file. A cache that can only be read is left as it is."""
    beside = Path(f"{path}{SUFFIX}")
    try:
        aside = beside.with_name(f".{beside.name}.{os.getpid()}")
        aside.write_text(f"{path.stat().st_size} {sha256(path)}\n", encoding="ascii")
        aside.replace(beside)
    except OSError:
        return


def whole(path: Path) -> bool | None:
    """Whether a cache file is as it was sealed; None when it has no seal."""
    try:
        size, digest = Path(f"{path}{SUFFIX}").read_text(encoding="ascii").split()
        return path.stat().st_size == int(size) and sha256(path) == digest
    except FileNotFoundError:  # not asked a second time: another process may have sealed it since
        return None if path.is_file() else False
    except (OSError, ValueError):
        return False


def broken(paths: Iterable[Path]) -> list[Path]:
    """The files that are not as they were sealed. Files seen for the first time are sealed."""
    found = []
    for path in paths:
        state = whole(path)
        if state is None:
            seal(path)
        elif not state:
            found.append(path)
    return found


def remove(path: Path) -> None:
    """Remove a cache file and its seal."""
    for name in (path, Path(f"{path}{SUFFIX}")):
        name.unlink(missing_ok=True)


def sound(load: Callable[[], Any], again: Callable[[], Any], what: str) -> Any:
    """What `load` gives, a data set or a dictionary of them, when its cache files are as they were sealed.

    When they are not, or end too early to be read, `again` makes them anew, and it is said.
    """
    try:
        loaded = load()
        damaged = broken(_files(loaded))
        if not damaged:
            return loaded
        cause = f"{damaged[0].name} is not as it was written"
    except (pa.ArrowException, OSError) as error:
        if not isinstance(error, pa.ArrowException) and "Expected to be able to read" not in str(error):
            raise
        cause = " ".join(str(error).split())[:100]
    warn(f"the cached rows of {what} are damaged ({cause}); they are made anew")
    loaded = again()
    for path in _files(loaded):
        seal(path)
    return loaded


def _files(loaded: Any) -> list[Path]:
    """Cache files of a data set, or of several by name."""
    parts = loaded.values() if hasattr(loaded, "values") else [loaded]
    return sorted({Path(file["filename"]) for part in parts for file in part.cache_files})
