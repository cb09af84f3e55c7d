"""Archives of strangers are measured before they are unpacked: names that leave the folder, links, bombs."""

import functools
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_tuner.errors import ArtifactError

FREE_BYTES = 50_000_000
"""What any archive may unpack to, however small it is."""
RATIO = 100
"""How many times its own size a larger one may unpack to; text packs about 10 to 1, the most repetitive logs 50 to 1."""
MOST_BYTES = 500_000_000_000
MEMBERS = 5_000_000
PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
CHUNK = 1 << 20


class DamagedArchive(ArtifactError):
    """An archive that cannot be read to its end."""


def check(path: Path) -> None:
    """Raise ArtifactError for an archive that unpacks outside its folder, or to more than is believed of its size.

    The listing of a zip or tar is read, a single packed file is counted; nothing is written. A file that is no archive
    passes.
    """
    state = path.stat()
    _check(path, state.st_size, state.st_mtime_ns)


@functools.cache
def _check(path: Path, size: int, changed: int) -> None:
    """Once for a file as it is: it is met when it is fetched, and again when it is unpacked."""
    with path.open("rb") as file:
        head = file.read(6)
    try:
        kind = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None)
        if head.startswith((b"7z\xbc\xaf", b"Rar!")):
            raise ArtifactError(f"{path.name} is an archive of a kind that is not unpacked here; pack it as zip or tar")
        # A zip is told by its end: one behind another archive would hide it, so what a file begins with decides.
        if tarfile.is_tarfile(path):
            _measured(path, _tar_members(path))
        elif kind:
            _measured(path, _unpacked(path, kind))
        if zipfile.is_zipfile(path):
            _measured(path, _zip_members(path))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DamagedArchive(f"{path.name} is a damaged archive ({error}); download or pack it again") from error


@contextmanager
def guarded() -> Iterator[None]:
    """Within, every file that `datasets` fetches or is about to unpack is checked first."""
    from datasets.download.download_manager import DownloadManager

    original = DownloadManager._download_single

    def checked(self: Any, url_or_filename: str, download_config: Any) -> str:
        plain = download_config.copy()
        plain.extract_compressed_file = False
        fetched = original(self, url_or_filename, plain)
        if Path(fetched).is_file():
            check(Path(fetched))
        return original(self, url_or_filename, download_config) if download_config.extract_compressed_file else fetched

    DownloadManager._download_single = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        DownloadManager._download_single = original  # type: ignore[method-assign]


def _measured(path: Path, members: Iterator[tuple[str, int]]) -> None:
    """Raise ArtifactError as soon as names or sizes of what is in an archive are more than is believed."""
    packed = path.stat().st_size
    most = min(MOST_BYTES, max(FREE_BYTES, RATIO * packed))
    total = 0
    for number, (name, size) in enumerate(members, 1):
        total += size
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name):
            raise ArtifactError(f"{path.name} holds {name[:60]!r}, which would be unpacked outside its folder: refused")
        if total > most:
            raise ArtifactError(f"{path.name} ({packed:,} bytes) unpacks to more than {most:,} bytes: refused. If it is what "
                                "you expect, unpack it yourself and name the folder")  # fmt: skip
        if number > MEMBERS:
            raise ArtifactError(f"{path.name} holds more than {MEMBERS:,} files: refused")


def _zip_members(path: Path) -> Iterator[tuple[str, int]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ArtifactError(f"{path.name} holds the link {member.filename[:60]!r}: refused")
            yield member.orig_filename, member.file_size


def _tar_members(path: Path) -> Iterator[tuple[str, int]]:
    """Names and sizes; a packed tar has no listing, so what is read to find its members is counted as well."""
    with tarfile.open(path) as archive:
        end = 0
        for member in archive:
            if not (member.isfile() or member.isdir()):
                raise ArtifactError(f"{path.name} holds {member.name[:60]!r}, a link or device: refused")
            yield member.name, max(member.size, member.offset_data - end)
            end = member.offset_data + member.size


def _unpacked(path: Path, kind: str) -> Iterator[tuple[str, int]]:
    """What one packed file gives, piece by piece."""
    import fsspec

    with fsspec.open(str(path), "rb", compression=kind) as file:
        while piece := file.read(CHUNK):
            yield path.stem, len(piece)
