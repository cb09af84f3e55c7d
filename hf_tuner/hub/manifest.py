"""manifest.json: what a saved run needs besides its weights, in a form that outlives this version."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hf_tuner
from hf_tuner.errors import ArtifactError, TunerError, UsageError
from hf_tuner.models.safety import plain_path, read_json

FILE = "manifest.json"
FORMAT = 1
DIGEST = "sha256"
"""Key of the file that is not the manifest's own: the checksum of all the others."""


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


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder. Raises ArtifactError when it is missing, broken or from a newer version."""
    path = folder / FILE
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such run folder, nor the name of a run on the Hub (user/name)")
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {FILE}: it is not a finished run of hf-tuner")
    data = read_json(path)
    try:
        if data["format"] > FORMAT:
            raise ArtifactError(
                f"{path} has format {data['format']}, this version reads up to {FORMAT}: upgrade hf-tuner"
            )
        known = data.pop(DIGEST, None)
        if known is not None and known != content_digest(data):
            raise ArtifactError(f"{path} is damaged or was edited: its checksum is another one; restore it from a copy, pull it "
                                "again, or train again")  # fmt: skip
        manifest = Manifest(**data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    if fault := next(_faults(manifest), None):
        raise ArtifactError(f"{path} is damaged: {fault}")
    return manifest


def _faults(manifest: Manifest) -> Iterator[str]:
    """What in a manifest is not what `Manifest` says; it may come from a stranger."""
    kinds = {"task": str, "settings": dict, "method": str, "base": dict, "data": dict, "max_length": int, "training": dict,
             "files": dict, "lineage": list}  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(getattr(manifest, name), kind):
            yield f"{name} is a {type(getattr(manifest, name)).__name__}, expected a {kind.__name__}"
            return
    if manifest.saves not in ("adapter", "model"):
        yield f'saves is {str(manifest.saves)[:60]!r}, expected "adapter" or "model"'
    if not 0 <= manifest.max_length < 10**7:
        yield f"max_length is {manifest.max_length}"
    base = {
        "id": str,
        "revision": str | None,
        "fingerprint": str,
        "dtype": str,
        "pooling": bool,
        "head": list,
        "method": dict,
    }
    for name, wanted in base.items():
        if name not in manifest.base or not isinstance(manifest.base[name], wanted):
            yield f"base.{name} is missing or of the wrong kind"
    if manifest.base.get("dtype") not in ("float32", "bfloat16", "float16"):
        yield f"base.dtype is {str(manifest.base.get('dtype'))[:60]!r}"
    for name in (*manifest.files, *([manifest.base["revision"]] if manifest.base.get("revision") else [])):
        if not plain_path(str(name)):
            yield f"{str(name)[:60]!r} would leave the folder"
    if not all(isinstance(saved, dict) and {"size", "sha256"} <= set(saved) for saved in manifest.files.values()):
        yield "files lack size and sha256"


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
