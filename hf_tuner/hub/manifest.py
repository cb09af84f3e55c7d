"""manifest.json: what a saved run needs besides its weights, in a form that outlives this version."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, get_origin

import hf_tuner
from hf_tuner.errors import ArtifactError, TunerError, UsageError

FILE = "manifest.json"
FORMAT = 1
DIGEST = "sha256"
"""Key of the file that is not the manifest's own: the checksum of all the others."""
BASE = {
    "id": str,
    "revision": str | None,
    "fingerprint": str,
    "dtype": str,
    "pooling": bool,
    "head": list,
    "method": dict | None,
}
"""What `base` holds at least."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Task and labels, base model and its fingerprint, data columns and fingerprints, and where the run came from."""

    task: str
    settings: dict[str, Any]
    """What the task needs to be restored: labels, their order, pairs."""
    method: str
    saves: str
    """"adapter" or "model"."""
    base: dict[str, Any]
    """id, revision, fingerprint, parameters, new head modules."""
    data: dict[str, Any]
    """dataset, columns, rows and fingerprint per split."""
    max_length: int
    training: dict[str, Any] = field(default_factory=dict)
    """Learning rate, epochs, rows per update, processes, precision and device that training ran with."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Size and sha256 of every file that belongs to the model and its processor."""
    lineage: list[dict[str, Any]] = field(default_factory=list)
    """Earlier runs this one went on from, oldest first."""
    format: int = FORMAT
    hf_tuner: str = hf_tuner.__version__

    def text(self) -> str:
        """The file's content."""
        data = json.loads(json.dumps(self.__dict__))
        data[DIGEST] = content_digest(data)
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def content_digest(data: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of a manifest's data, whatever its layout in the file.

    Where the base lies is not part of it: a base may move, and its fingerprint tells whether it is the right one.
    """
    base = {k: v for k, v in data["base"].items() if k not in ("id", "revision")}
    return hashlib.sha256(json.dumps({**data, "base": base}, sort_keys=True).encode()).hexdigest()


def _checked(manifest: Manifest) -> Manifest:
    """The manifest, when all of it has the shape that others rely on. Raises TypeError."""
    for one in fields(Manifest):
        kind: Any = get_origin(one.type) or one.type
        if not isinstance(getattr(manifest, one.name), kind):
            raise TypeError(f"{one.name} is {getattr(manifest, one.name)!r}")
    wrong = [f"base.{key}" for key, kind in BASE.items() if not isinstance(manifest.base[key], kind)]
    wrong += [f"files.{n}" for n, saved in manifest.files.items() if set(saved) != {"size", "sha256"} or not _inside(n)]
    if wrong or manifest.saves not in ("adapter", "model") or not 0 < manifest.max_length < 10**9:
        raise TypeError(", ".join(wrong) or f"saves {manifest.saves}, max_length {manifest.max_length}")
    return manifest


def _inside(name: str) -> bool:
    """Whether a name leads to a file below the run's folder."""
    return bool(name) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder. Raises ArtifactError when it is missing, broken or from a newer version."""
    path = folder / FILE
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such run folder, nor the name of a run on the Hub (user/name)")
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {FILE}: it is not a finished run of hf-tuner")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] > FORMAT:
            raise ArtifactError(
                f"{path} has format {data['format']}, this version reads up to {FORMAT}: upgrade hf-tuner"
            )
        known = data.pop(DIGEST, None)
        if known is not None and known != content_digest(data):
            raise ArtifactError(f"{path} is damaged or was edited: its checksum is another one; restore it from a copy, pull it "
                                "again, or train again")  # fmt: skip
        return _checked(Manifest(**data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); restore it from a copy, or train again") from error


@contextmanager
def damage(place: Path, what: str) -> Iterator[None]:
    """Turn whatever libraries raise at files that are not as they should be into one ArtifactError about `what`.

    They raise dozens of kinds; errors of ours, and of memory, stay what they are.
    """
    try:
        yield
    except (TunerError, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(f"{what} in {place} cannot be read: {reason}; restore it from a copy, pull it again, or train again"
                            ) from error  # fmt: skip


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{name: {"size", "sha256"}} of files in a folder."""
    return {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in sorted(names)}


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ArtifactError for a file that is missing, or whose bytes are not those that were saved."""
    for name, saved in files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; restore it from a copy, pull it again, or train again")
        if path.stat().st_size != saved["size"] or sha256(path) != saved["sha256"]:
            raise ArtifactError(
                f"{path} is damaged: its bytes are not those that were saved and measured (sha256 differs); "
                "restore it from a copy, pull it again, or train again"
            )


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
