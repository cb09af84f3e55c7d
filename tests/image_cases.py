"""Image folders with something wrong or unusual in them, and what `hf-tuner check` has to say.

`python tests/image_cases.py` prints the table: case, lines printed, exit code, seconds.
"""

# ruff: noqa: E501 - the table reads best with one case a line

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from checking import Said, check, table

COLOURS = ((200, 30, 30), (30, 30, 200))


def picture(size: tuple[int, int] = (32, 24), mode: str = "RGB", shade: int = 0) -> Any:
    """An image with edges in it; another `shade` gives other bytes."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, (shade % 256, shade * 7 % 256, shade * 31 % 256))
    if min(size) > 2:
        ImageDraw.Draw(image).rectangle((1, 1, size[0] // 2, size[1] // 2), fill=(250, 120, 10))
    if mode == "P":
        return image.quantize()
    return image if mode == "RGB" else image.convert(mode)


def data(image: Any, kind: str = "JPEG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def good(folder: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 3, start: int = 0) -> Path:
    """Class folders of different sound JPEGs."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shade = start + number * count + i + 1
            (folder / name / f"{i}.jpg").write_bytes(data(picture(shade=shade)))
    return folder


def put(name: str, content: bytes | Callable[[], bytes]) -> Callable[[Path], None]:
    """A maker that adds one file to a good folder."""

    def make(folder: Path) -> None:
        good(folder)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content())

    return make


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: a few kilobytes that would take width × height bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(width + 1)) for _ in range(min(height, 50))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def folders(*names: str) -> Callable[[Path], None]:
    """A maker of class folders of these names."""
    return lambda folder: void(good(folder, names))


def void(_: Any) -> None:
    """A maker returns nothing."""


def link(target: str, name: str) -> Callable[[Path], None]:
    """A maker of a good folder with a symbolic link."""

    def make(folder: Path) -> None:
        good(folder.parent / "outside", ("secret",), start=90)
        good(folder)
        os.symlink(target, folder / name)

    return make


def splits(folder: Path) -> None:
    """train/ and test/ with different images."""
    good(folder / "train")
    good(folder / "test", start=50)


def leaking(folder: Path) -> None:
    """An image of test/ that stands in train/ too."""
    splits(folder)
    (folder / "test" / "cat" / "again.jpg").write_bytes((folder / "train" / "cat" / "0.jpg").read_bytes())


def lacking(folder: Path) -> None:
    """A class of test/ that train/ lacks."""
    splits(folder)
    good(folder / "test", ("bird",), start=70)


def empty_class(folder: Path) -> None:
    """A class folder with nothing in it."""
    good(folder)
    (folder / "bird").mkdir()


def two_classes(folder: Path) -> None:
    """One image in both classes."""
    good(folder)
    (folder / "dog" / "same.jpg").write_bytes((folder / "cat" / "0.jpg").read_bytes())


def pipe(folder: Path) -> None:
    """A named pipe that looks like an image."""
    good(folder)
    os.mkfifo(folder / "cat" / "pipe.jpg")


def metadata(line: str, name: str = "metadata.csv") -> Callable[[Path], None]:
    """A maker of a good folder with a metadata file."""
    return put(name, f"file_name,label\n{line},cat\n".encode())


def jpeg() -> bytes:
    """One sound JPEG."""
    return data(picture((64, 64), shade=9))


# row, what, maker, flags, exit code, what the message must hold
CASES: list[tuple[int, str, Callable[[Path], None], tuple[str, ...], int, list[str]]] = [
    (54, "sound folder", folders("cat", "dog"), (), 0, ["6 images in 2 classes: cat 3, dog 3", "nothing is wrong with the images"]),
    (54, "truncated JPEG", put("cat/x.jpg", lambda: half(data(picture((300, 300))))), (), 2, ["cat/x.jpg (cut short)", "--skip-bad"]),
    (54, "truncated PNG", put("cat/x.png", lambda: half(data(picture((300, 300)), "PNG"))), (), 2, ["cat/x.png (cut short)", "--skip-bad"]),
    (54, "zero bytes", put("cat/x.jpg", b""), (), 2, ["cat/x.jpg (empty (0 bytes))", "1 of 7 images", "--skip-bad"]),
    (54, "garbage", put("dog/x.jpg", bytes(range(256)) * 9), (), 2, ["dog/x.jpg (no image", "--skip-bad"]),
    (54, "web page named jpg", put("dog/x.jpg", b"<!DOCTYPE html><html>404</html>"), (), 2, ["dog/x.jpg (a web page"]),
    (54, "flipped byte in a PNG", put("cat/x.png", lambda: flipped(data(picture(), "PNG"))), (), 2, ["cat/x.png (damaged"]),
    (54, "bad ones left out", put("cat/x.jpg", lambda: half(data(picture((300, 300))))), ("--skip-bad",), 0, ["1 of 7 images", "left out", "cat 3, dog 3"]),
    (54, "PNG named jpg", put("cat/x.jpg", lambda: data(picture(shade=77), "PNG")), (), 0, ["cat/x.jpg is PNG"]),
    (54, "named pipe", pipe, (), 2, ["cat/pipe.jpg (no regular file)"]),
    *[
        (55, f"mode {mode}", put("cat/x.png", lambda m=mode: data(picture(mode=m, shade=50), "PNG")), (), 0, [f"{mode} 1"])
        for mode in ("L", "P", "LA", "RGBA", "1", "I;16")
    ],
    (55, "CMYK", put("cat/x.jpg", lambda: data(picture(mode="CMYK"))), (), 0, ["CMYK 1"]),
    (55, "animated GIF", put("cat/x.gif", lambda: data(picture(), "GIF", save_all=True, append_images=[picture(shade=5)])), (), 0, ["GIF 1"]),
    (55, "WebP", put("cat/x.webp", lambda: data(picture(), "WEBP")), (), 0, ["WEBP 1"]),
    (55, "1 × 1", put("cat/x.png", lambda: data(picture((1, 1)), "PNG")), (), 0, ["of an odd shape: cat/x.png (1 × 1)"]),
    (55, "1 × 10000", put("cat/x.png", lambda: data(picture((1, 10_000)), "PNG")), (), 0, ["cat/x.png (1 × 10000)"]),
    (57, "bomb of 121 Mpx", put("cat/x.png", lambda: bomb(11_000, 11_000)), (), 2, ["11,000 × 11,000 pixels; at most 100 million"]),
    (57, "bomb of 400 Mpx", put("cat/x.png", lambda: bomb(20_000, 20_000)), (), 2, ["pixels; at most 100 million"]),
    (57, "bomb left out", put("cat/x.png", lambda: bomb(11_000, 11_000)), ("--skip-bad",), 0, ["left out"]),
    (58, "stray image", put("x.jpg", jpeg), (), 0, ["1 image in no class folder, left aside: x.jpg"]),
    (58, "empty class", empty_class, (), 0, ["1 class folder without an image", "bird"]),
    (58, "one class", folders("cat"), (), 2, ['one class only ("cat")']),
    (58, "no class folders", lambda f: put("y.jpg", jpeg)(f) or remove(f), (), 2, ["no images in class folders"]),
    (58, "Cat and cat", folders("Cat", "cat", "dog"), (), 0, ['"Cat" / "cat"', "are they the same?"]),
    (58, "hidden and system files", put("cat/.DS_Store", b"x"), (), 0, ["1 hidden or system files"]),
    (58, "hidden folder", put(".cache/x.jpg", jpeg), (), 0, ["2 classes", "hidden"]),
    (58, "HEIC", put("cat/x.heic", b"\0\0\0\x18ftypheic"), (), 0, ["1 .heic file not read: cat/x.heic; convert"]),
    (58, "HEIC named jpg", put("cat/x.jpg", b"\0\0\0\x18ftypheic" + bytes(64)), (), 2, ["cat/x.jpg (a HEIC picture; convert"]),
    (58, "text file in a class", put("cat/notes.txt", b"x"), (), 0, ["1 .txt files"]),
    (58, "names beyond ASCII", folders("кошка", "犬 🐕"), (), 0, ["кошка 3, 犬 🐕 3"]),
    (58, "composed and decomposed name", folders("caf\u00e9", "cafe\u0301", "dog"), (), 0, ["2 classes", "caf\u00e9 6"]),
    (58, "same image in two classes", two_classes, (), 0, ["cat/0.jpg = dog/same.jpg", "which is right?"]),
    (58, "train and test", splits, (), 0, ["train", "test", "6 images in 2 classes"]),
    (58, "image in train and test", leaking, (), 0, ["1 image in train and in another split", "--fail-on-leak"]),
    (58, "image in train and test refused", leaking, ("--fail-on-leak",), 2, ["1 image in train and in another split"]),
    (58, "class that train lacks", lacking, (), 2, ["test: 1 class folder that train lacks: bird"]),
    (69, "link to a folder outside", link("../outside/secret", "bird"), (), 2, ["1 link out of the folder: bird", "--follow-symlinks"]),
    (69, "link to a file outside", link("../../outside/secret/0.jpg", "cat/x.jpg"), (), 2, ["cat/x.jpg", "--follow-symlinks"]),
    (69, "link followed on demand", link("../outside/secret", "bird"), ("--follow-symlinks",), 0, ["bird 3, cat 3, dog 3"]),
    (69, "link in a circle", link("..", "cat/loop"), ("--follow-symlinks",), 0, ["2 classes"]),
    (69, "metadata with ../", metadata("../../etc/passwd"), (), 2, ['metadata.csv row 2: "../../etc/passwd" leads out']),
    (69, "metadata with an absolute path", metadata("/etc/passwd"), (), 2, ["leads out of the folder"]),
    (69, "metadata naming no file", metadata("cat/none.jpg"), (), 2, ['there is no file "cat/none.jpg"']),
]  # fmt: skip


def flipped(content: bytes) -> bytes:
    """The same bytes with one changed in the middle."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def half(content: bytes) -> bytes:
    """The first half of a file."""
    return content[: len(content) // 2]


def remove(folder: Path) -> None:
    """Leave only what lies at the root."""
    import shutil

    for place in ("cat", "dog"):
        shutil.rmtree(folder / place)


def run(case: tuple, folder: Path) -> Said:
    """Make the folder of a case and check it."""
    place = folder / "images"
    place.mkdir()
    case[2](place)
    return check(place, *case[3])


def cases() -> Iterator[tuple[str, str, Callable[[Path], Said]]]:
    """What the table is made of."""
    for case in CASES:
        yield str(case[0]), case[1], lambda folder, case=case: run(case, folder)


if __name__ == "__main__":
    print(table(cases()))
