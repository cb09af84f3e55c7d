"""Bytes that arrived are the bytes that the Hub has: the client itself does not look (a flipped byte passes).

The client's cache names every file by its hash: the sha256 of large files, git's blob hash of small ones. A file is read
once; what was found right is remembered by size and time beside the cache.
"""

import hashlib
import os
from pathlib import Path

from huggingface_hub import constants

from hf_tuner.errors import ArtifactError
from hf_tuner.hub.manifest import sha256
from hf_tuner.hub.pins import cache_folder


def verify_cached(repo: str, kind: str, commit: str | None) -> int:
    """Check every cached file of a commit against the name the cache gave it; returns how many were read.

    `kind` is "model" or "dataset". A damaged file is removed, so that the next run fetches it anew. Raises
    ArtifactError that names it.
    """
    if commit is None:
        return 0
    snapshot = cache_folder(repo, kind) / "snapshots" / commit
    read = 0
    for path in sorted(p for p in snapshot.rglob("*") if p.is_symlink() and p.is_file()):
        blob = (
            path.parent / path.readlink()
        )  # not resolve: with Xet the blob is a link too, into a store shared by repositories
        mark = _mark(blob)
        if len(blob.name) not in (40, 64) or mark.exists():
            continue
        read += 1
        if _digest(blob) != blob.name:
            for link in (blob.resolve(), blob, path):
                link.unlink(missing_ok=True)
            raise ArtifactError(
                f"{path.name} of {repo} arrived damaged: its bytes are not those of the Hub; it was removed from the cache, "
                "run the command again to fetch it anew"
            )
        _remember(mark)
    return read


def _digest(blob: Path) -> str:
    if len(blob.name) == 64:
        return sha256(blob)
    return git_blob(blob)


def git_blob(path: Path) -> str:
    """The hash by which git, and so the Hub, names the content of a small file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _mark(blob: Path) -> Path:
    state = blob.stat()
    seen = Path(constants.HF_HOME) / "hf-tuner" / "verified"
    return seen / f"{blob.name}-{state.st_size}-{state.st_mtime_ns}"


def _remember(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(mark, os.O_CREAT | os.O_WRONLY, 0o644))
    except OSError:
        pass  # read-only: it is looked at again next time
