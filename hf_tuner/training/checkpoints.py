"""Checkpoints that can be trusted.

Written aside, listed with size and sha256 of every file, flushed to the disk, then renamed: a folder called
checkpoint-N is whole or it is not there. Only verified ones are read; only our own are ever deleted.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

import hf_tuner
from hf_tuner.changes import ALLOWABLE, FREE
from hf_tuner.console import is_main, warn
from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.folder import CHECKPOINT, LIST, numbered, step_of
from hf_tuner.hub.manifest import sha256
from hf_tuner.models.save import umask

FORMAT = 1
SAVING, DROPPING = ".saving-checkpoint-", ".dropping-checkpoint-"
FULL = (errno.ENOSPC, errno.EDQUOT)
LOADED = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".pickle")
"""Files that a Trainer would load if they lay in a checkpoint; one that is not in the list was put there by somebody."""


def read_list(path: Path) -> dict[str, Any]:
    """checkpoint.json of a checkpoint. Raises ArtifactError when it is missing, broken or of a newer version."""
    try:
        content = json.loads((path / LIST).read_text(encoding="utf-8"))
        if content["format"] > FORMAT:
            raise ArtifactError(
                f"{path} has format {content['format']}, this version reads up to {FORMAT}: upgrade hf-tuner"
            )
        if content.pop("seal", None) != _seal(content):
            raise ValueError("its seal is broken")
        if not all(isinstance(content[key], dict) for key in ("files", "identity")) or content["step"] != step_of(path):
            raise ValueError("it is not what hf-tuner writes")
        if not all(
            isinstance(saved["size"], int) and isinstance(saved["sha256"], str) for saved in content["files"].values()
        ):
            raise ValueError("its list of files is not what hf-tuner writes")
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} has no {LIST}: hf-tuner did not write it, or not to the end") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path / LIST} is damaged ({error})") from error
    return dict(content)


def verify(path: Path) -> dict[str, Any]:
    """checkpoint.json of a checkpoint whose files are all there, byte for byte. Raises ArtifactError naming the file."""
    content = read_list(path)
    listed = content["files"]
    for name in sorted(listed):
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()) or not file.is_file():
            raise ArtifactError(f"{file} is missing")
        if file.stat().st_size != listed[name].get("size"):
            raise ArtifactError(
                f"{file} is damaged: {file.stat().st_size:,} bytes, {listed[name].get('size'):,} were saved"
            )
    with ThreadPoolExecutor() as pool:
        found = dict(zip(listed, pool.map(lambda name: sha256(path / name), listed), strict=True))
    wrong = sorted(name for name in listed if found[name] != listed[name].get("sha256"))
    if wrong:
        raise ArtifactError(f"{path / wrong[0]} is damaged: its bytes are not those that were saved (sha256 differs)")
    planted = [p for p in path.rglob("*") if p.suffix in LOADED and p.relative_to(path).as_posix() not in listed]
    if planted:
        raise ArtifactError(f"{planted[0]} was not saved with the checkpoint; take it away")
    return content


def owner(identity: Mapping[str, Any]) -> str:
    """One word for all checkpoints of a run: what it learns, from what, on which data, in whichever way it may change."""
    settings = {k: v for k, v in identity["settings"].items() if k not in (*FREE, *ALLOWABLE)}
    kept = {"settings": settings, **{k: identity.get(k) for k in ("data", "base", "labels")}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


class Store:
    """The checkpoints of one run, in its folder."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], limit: int | None) -> None:
        self.folder, self.identity, self.limit = folder, dict(identity), limit

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A folder to write checkpoint-N into; when the block ends it is listed, flushed, and moved to its place.

        Every process enters and writes its part. Raises EnvironmentFault when the disk is full; nothing half-written
        stays, and earlier checkpoints are untouched.
        """
        aside = self.folder / f"{SAVING}{step}"
        try:
            if is_main():
                shutil.rmtree(aside, ignore_errors=True)
                (aside / f"{CHECKPOINT}{step}").mkdir(parents=True)
            barrier()
            yield aside
            barrier()
            if is_main():
                self._commit(aside / f"{CHECKPOINT}{step}", step)
            barrier()
        except (OSError, SafetensorError, RuntimeError) as error:
            needed = sum(p.stat().st_size for p in aside.rglob("*") if p.is_file()) if aside.is_dir() else 0
            raise self._unwritable(error, step, needed) from error
        finally:
            if is_main():
                shutil.rmtree(aside, ignore_errors=True)

    def rotate(self, newest: int, keep: int | None) -> None:
        """Delete the oldest of our own past the limit; never the one just saved, nor `keep` (the best so far).

        What bears a higher number than the one just saved was passed over, or belongs to an attempt that was given up.
        """
        if not is_main():
            return
        mine = [p for p in numbered(self.folder) if self._is_mine(p)]
        for path in (p for p in mine if step_of(p) > newest):
            self._drop(path)
        rest = [p for p in mine if step_of(p) <= newest]
        safe = {newest, keep} & {step_of(p) for p in rest}
        if self.limit and self.limit > 0:
            others = [p for p in rest if step_of(p) not in safe]
            for path in others[max(0, self.limit - len(safe)) :]:
                self._drop(path)

    def _commit(self, made: Path, step: int) -> None:
        files = sorted(p for p in made.rglob("*") if p.is_file())
        mode = 0o666 & ~umask()
        for file in files:
            file.chmod(mode)  # safetensors writes 0600
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(_flushed, files))
        content = {
            "format": FORMAT,
            "hf_tuner": hf_tuner.__version__,
            "step": step,
            "identity": self.identity,
            "files": {p.relative_to(made).as_posix(): d for p, d in zip(files, digests, strict=True)},
        }
        content = json.loads(json.dumps(content, default=str))
        (made / LIST).write_text(json.dumps({**content, "seal": _seal(content)}, indent=1) + "\n", encoding="utf-8")
        _flush(made / LIST)
        _flush(made)
        place = self.folder / made.name
        if place.is_symlink() or place.exists():
            self._make_room(place)
        made.rename(place)
        _flush(self.folder)

    def _make_room(self, place: Path) -> None:
        """What has the name of a new checkpoint goes if it is ours; somebody else's is only renamed."""
        if not place.is_symlink() and self._is_mine(place):
            self._drop(place)
            return
        number = next(n for n in range(1, 10_000) if not place.with_name(f"{place.name}.other-{n}").exists())
        other = place.with_name(f"{place.name}.other-{number}")
        place.rename(other)
        warn(f"{place} was not a whole checkpoint of this run; it is now {other.name}")

    def _drop(self, path: Path) -> None:
        gone = self.folder / f"{DROPPING}{step_of(path)}"
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)  # first, so that a checkpoint that is half deleted never bears a checkpoint's name
        shutil.rmtree(gone, ignore_errors=True)

    def _is_mine(self, path: Path) -> bool:
        try:
            return owner(read_list(path)["identity"]) == owner(self.identity)
        except (ArtifactError, KeyError, AttributeError):
            return False

    def _unwritable(self, error: Exception, step: int, written: int) -> Exception:
        """What to say for an error in the middle of a save; the error itself when it is no matter of the disk."""
        free, number = shutil.disk_usage(self.folder).free, getattr(error, "errno", None)
        # torch and safetensors do not always say that the disk is full.
        full = number in FULL or (number is None and ("os error 28" in str(error) or free < max(written, 1_000_000)))
        if not full and not isinstance(error, OSError | SafetensorError):
            return error
        last = next((p for p in numbered(self.folder) if self._is_mine(p)), None)
        whole = f"; {last.name} is whole, and the same command goes on from it" if last else ""
        if not full:
            return EnvironmentFault(
                f"{CHECKPOINT}{step} cannot be written: {getattr(error, 'strerror', None) or error}{whole}"
            )
        return EnvironmentFault(
            f"disk full: after {written / 1e6:,.1f} MB of {CHECKPOINT}{step} only {free / 1e6:,.1f} MB are left in {self.folder}"
            f"{whole}; free some space (or keep fewer: --save-total-limit 1)"
        )


def barrier() -> None:
    """Wait for the other processes of the run, where there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _seal(content: Mapping[str, Any]) -> str:
    """sha256 over the list itself, so that a flipped bit in it is found as well."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flushed(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file that is now on the disk."""
    _flush(path)
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
