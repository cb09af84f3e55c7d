"""One image: opened as a person sees it, in three colours, or refused with what is wrong with it.

Pillow comes with the `vision` extra and is imported when an image is opened.
"""

import contextlib
import hashlib
import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hf_tuner.console import count
from hf_tuner.errors import EnvironmentFault, UsageError

PIXELS = 100_000_000
"""Most pixels of an image, read from its header: what is decoded takes three bytes for each."""
BYTES = 500_000_000
"""Largest image file."""
ORIENTATION, TURNED = 274, (5, 6, 7, 8)
"""The EXIF tag, and the values that swap width and height."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What is decoded, whatever a file is called (MPO by its JPEG reader): for PostScript Pillow would start a program."""
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
"""What Pillow raises for bytes that are no whole image."""
AHEAD = 256
"""Pictures of rows that are in memory together."""
SMALL = (64, 64)
"""A JPEG may be decoded at an eighth of its size to see that it is whole: every byte is read all the same."""

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What one image is: size as a person sees it, format and mode as stored, a digest of its bytes; or what is wrong."""

    path: Path
    """Empty for bytes."""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    digest: str = ""
    fault: str = ""
    likeness: tuple[int, ...] = ()
    """Equal for images that look the same: brightness gradients of a 16 × 16 picture, and the mean colour."""


def open_image(source: Path | bytes, *, pixels: int = PIXELS, edge: int = 0) -> Any:
    """An RGB `PIL.Image` of a file or of bytes: turned as EXIF says, the first frame of an animation.

    Transparency is dropped and palettes, grey and CMYK become RGB as transformers' own `load_image` does it; 16 and
    32 bit grey are scaled to 8 bit, which `convert` would clip to white. Raises UsageError for what is no whole image or
    has more than `pixels` pixels, before anything is decoded.

    A JPEG is decoded at a half, a quarter or an eighth of its size where no edge becomes shorter than `edge` (0: never).
    """
    with _image(source, pixels, "an image") as image:
        if edge and image.format in ("JPEG", "MPO"):
            image.draft(None, (edge, edge))
        return _rgb(_upright(image))


def size_of(source: Path | bytes) -> tuple[int, int]:
    """Width and height of a picture as a person sees it, from its header: nothing is decoded.

    A PNG whose EXIF data stand behind its pixels is taken as it is stored. Raises UsageError for what is no picture.
    """
    from PIL import Image

    with _image(source, PIXELS, "an image") as image:
        # PNG's own `getexif` decodes the picture to look behind its pixels; this one takes what the header had.
        return _upright_size(image, Image.Image.getexif(image))


def open_mask(source: Path | bytes, *, pixels: int = PIXELS) -> Any:
    """The class ids [height, width] of a mask as int64: what the file stores, never colours.

    Palette and 1-bit masks give their indices, grey of 8, 16 and 32 bit its values, a grey mask stored in colour its
    first channel. Turned as EXIF says. Raises UsageError for a mask in colours, a JPEG (whose values are blurred), and as
    `open_image` does.
    """
    with _image(source, pixels, "a mask") as image:
        return _ids(_upright(image), str(image.format))


def open_numbers(source: Path | bytes, *, pixels: int = PIXELS) -> Any:
    """The numbers int64 [height, width] of a map of segments: red + 256 × green + 65536 × blue, or what a grey one stores.

    Raises UsageError for a JPEG (whose values are blurred), and as `open_image` does.
    """
    with _image(source, pixels, "a map") as image:
        return _numbers(_upright(image), str(image.format))


@contextlib.contextmanager
def _image(source: Path | bytes, pixels: int, what: str) -> Iterator[Any]:
    """An opened image, which is decoded inside. Raises UsageError for what cannot be, with the file's name, or `what`."""
    name = str(source) if isinstance(source, Path) else what
    with _without_bomb_warning():
        try:
            if isinstance(source, Path) and (fault := _no_file(source)):
                raise _Refused(fault)
            with _opened(io.BytesIO(source) if isinstance(source, bytes) else source, pixels) as image:
                yield image
        except _Refused as error:
            raise UsageError(f"{name}: {error}") from error
        except BROKEN as error:
            raise UsageError(f"{name}: {_cause(source, error)}") from error


def look_at(source: Path | bytes, *, pixels: int = PIXELS) -> Look:
    """Decode a file, or bytes, to see that it is whole. Nothing is raised for bad images: `fault` says it."""
    path = source if isinstance(source, Path) else Path()
    try:
        if isinstance(source, Path) and (fault := _no_file(source)):
            return Look(path, fault=fault)
        data = source.read_bytes() if isinstance(source, Path) else source
        if not data:
            return Look(path, fault="empty (0 bytes)")
        with _opened(io.BytesIO(data), pixels) as image:
            width, height = _upright_size(image, image.getexif())
            kind, mode = str(image.format), image.mode
            if image.format == "JPEG":
                image.draft("RGB", SMALL)
            image.load()  # `verify` passes files that are cut short
            likeness = _likeness(image)
    except _Refused as error:
        return Look(path, fault=str(error))
    except BROKEN as error:
        return Look(path, fault=_cause(source, error))
    return Look(path, width, height, kind, mode, hashlib.sha256(data).hexdigest(), likeness=likeness)


def _upright_size(image: Any, exif: Any) -> tuple[int, int]:
    """Width and height of an opened image when it is turned as EXIF says."""
    # Pillow says the size of a turned TIFF upright in newer versions; its tags tell the stored one.
    width, height = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
    return (height, width) if exif.get(ORIENTATION) in TURNED else (width, height)


def looked_through(rows: Any, column: str, look: Callable[[Any], T]) -> Iterator[T]:
    """What `look` says of each value of a column of rows, in order; threads look at `AHEAD` of them before more are fetched."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for batch in rows.select_columns(column).iter(AHEAD):
            yield from pool.map(look, batch[column])


def _no_file(path: Path) -> str:
    """Why a path is no file that is read, in a few words; "" when it is one."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        return "no regular file"
    return f"{count(state.st_size // 10**6)} MB; at most {count(BYTES // 10**6)}" if state.st_size > BYTES else ""


def _likeness(image: Any) -> tuple[int, ...]:
    """What stays the same when a picture is stored in another format or size (a difference hash, and rough colours)."""
    import numpy as np

    small = np.asarray(image.convert("RGB").resize((17, 16)), np.int16)
    grey = small.sum(axis=2)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1] + 6)
    return int.from_bytes(bits.tobytes(), "big"), *(int(v) // 16 for v in small.mean(axis=(0, 1)))


def require_pillow() -> None:
    """Raise EnvironmentFault when Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault('images need Pillow: pip install "hf-tuner[vision]"') from error


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Around many looks: Pillow's warnings about odd files are ours to give. Not for use inside threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


class _Refused(Exception):
    """An image that is not decoded at all."""


@contextlib.contextmanager
def _without_bomb_warning() -> Iterator[None]:
    require_pillow()
    with quiet_pillow():
        yield


@contextlib.contextmanager
def _opened(source: Any, pixels: int) -> Iterator[Any]:
    from PIL import Image

    try:
        image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _Refused(f"over {count(2 * (Image.MAX_IMAGE_PIXELS or 0))} pixels; {_allowed(pixels)}") from error
    with image:
        width, height = image.size
        if width * height > pixels:
            raise _Refused(f"{count(width)} × {count(height)} pixels; {_allowed(pixels)}")
        yield image


def _allowed(pixels: int) -> str:
    return f"at most {count(pixels // 1_000_000)} million are decoded"


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except (*BROKEN, KeyError, TypeError, ZeroDivisionError):
        return image  # EXIF that cannot be read turns nothing


def _ids(image: Any, kind: str) -> Any:
    import numpy as np

    if kind in ("JPEG", "MPO"):
        raise _Refused("a mask as JPEG, which blurs class ids; store masks as PNG")
    values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., :1] if image.mode == "LA" else values[..., :3]
        if (colours != colours[..., :1]).any():
            raise _Refused("a mask in colours; expected one number a pixel, its class (grey or palette PNG)")
        values = colours[..., 0]
    if image.mode == "F" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise _Refused("a mask of fractions; expected one whole number a pixel, its class")
    return values.astype(np.int64)


def _numbers(image: Any, kind: str) -> Any:
    import numpy as np

    if kind in ("JPEG", "MPO"):
        raise _Refused("a map as JPEG, which blurs its numbers; store maps as PNG")
    values = np.asarray(image).astype(np.int64)
    if values.ndim == 2:
        return values
    if values.shape[2] < 3:
        return values[..., 0]
    return values[..., 0] + 256 * values[..., 1] + 65536 * values[..., 2]


def _rgb(image: Any) -> Any:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bits(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # without the detour Pillow warns
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Any) -> Any:
    """Grey of 16 or 32 bit in 8 bit: the whole range of the type becomes 0 to 255, for every image alike."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = float(values.max(initial=0.0))
    ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = next((r for r in ranges if top <= r), top)
    return Image.fromarray(np.clip(np.rint(values * (255 / white)), 0, 255).astype(np.uint8), "L").convert("RGB")


def _cause(source: Path | bytes, error: Exception) -> str:
    """In a few words, why bytes are no image."""
    if isinstance(source, Path) and isinstance(error, OSError) and error.errno:
        return f"cannot be read: {os.strerror(error.errno)}"
    head = source[:256] if isinstance(source, bytes) else _head(source)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"<head")):
        return "a web page or drawing (HTML, XML or SVG), no picture"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim"):
        return "a HEIC picture; convert it to JPEG or PNG"
    if not head:
        return "empty (0 bytes)"
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image: its first bytes are of no known format"
    text = " ".join(str(error).split())
    short = "truncated" in text.lower() or "not enough" in text.lower() or isinstance(error, EOFError)
    return "cut short" if short else f"damaged ({text[:80] or type(error).__name__})"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(256)
    except OSError:
        return b""
