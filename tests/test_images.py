"""Bad and unusual images: each folder is answered in a few lines, each kind of image becomes the right RGB picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features
from datasets import Image as Stored
from image_cases import CASES, data, good, jpeg, picture, run

from hf_tuner.console import Progress
from hf_tuner.data.image_folders import audit_images
from hf_tuner.data.picture_rows import _looks, looked_at
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.pictures import AHEAD, look_at, open_image, size_of
from hf_tuner.tasks._masks import counted
from hf_tuner.tasks._segment_audit import _counts

Image = pytest.importorskip("PIL.Image")


@pytest.mark.fault(54, 55, 57, 58, 69, "S10")
@pytest.mark.parametrize("case", CASES, ids=[f"{row} {what}" for row, what, *_ in CASES])
def test_folder(case: tuple, tmp_path: Path) -> None:
    """Exit code and message of `hf-tuner check`; no more than fifteen lines."""
    said = run(case, tmp_path)
    assert said.code == case[4], said.text
    assert [words for words in case[5] if words not in said.text] == [], said.text
    assert said.lines <= 15
    assert "Traceback" not in said.text


def close(image: Any, expected: tuple[int, int, int], at: tuple[int, int] = (4, 4)) -> bool:
    """Whether a pixel has about this colour."""
    return image.mode == "RGB" and np.abs(np.array(image.getpixel(at), int) - expected).max() <= 6


ORANGE = (250, 120, 10)
KINDS = {
    "RGB": (picture(), "PNG", ORANGE),
    "RGBA": (picture(mode="RGBA"), "PNG", ORANGE),
    "P": (picture(mode="P"), "PNG", ORANGE),
    "GIF": (picture(mode="P"), "GIF", ORANGE),
    "WebP": (picture(), "WEBP", ORANGE),
    "BMP": (picture(), "BMP", ORANGE),
    "TIFF": (picture(), "TIFF", ORANGE),
    "CMYK": (picture(mode="CMYK"), "TIFF", ORANGE),
    "L": (picture(mode="L"), "PNG", (146, 146, 146)),
    "LA": (picture(mode="LA"), "PNG", (146, 146, 146)),
    "1": (Image.new("1", (32, 24), 1), "PNG", (255, 255, 255)),
    "I;16": (Image.fromarray(np.full((24, 32), 32896, np.uint16)), "PNG", (128, 128, 128)),
    "I": (Image.fromarray(np.full((24, 32), 65535, np.int32)), "TIFF", (255, 255, 255)),
    "F": (Image.fromarray(np.full((24, 32), 0.5, np.float32)), "TIFF", (128, 128, 128)),
}


@pytest.mark.fault(55)
@pytest.mark.parametrize("image, kind, colour", KINDS.values(), ids=KINDS)
def test_every_kind_becomes_the_same_picture(image: Any, kind: str, colour: tuple, tmp_path: Path) -> None:
    """Colours survive, from a file and from bytes; 16-bit grey is scaled, not clipped to white."""
    content = data(image, kind)
    (tmp_path / "x").write_bytes(content)
    for opened in (open_image(tmp_path / "x"), open_image(content)):
        assert close(opened, colour), opened.getpixel((4, 4))
        assert opened.size == (32, 24)


@pytest.mark.fault(55)
def test_an_animation_gives_its_first_frame() -> None:
    """Later frames are not looked at."""
    frames = data(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (32, 24), (0, 0, 255))])
    assert close(open_image(frames), ORANGE)


def test_all_copies_of_a_leaked_picture_leave_train() -> None:
    """Pictures that stand in train several times, and once in test."""
    leaked, other = ({"image": {"bytes": data(jpeg), "path": None}} for jpeg in (picture(), picture((40, 20), "L")))
    features = Features({"image": Stored(decode=False)})
    rows = {"train": [leaked, leaked, other, leaked], "test": [leaked]}
    found = DatasetDict({split: Dataset.from_list(part, features=features) for split, part in rows.items()})
    left, seen = looked_at(found, ["image"], lambda split, row: "", skip_bad=False, drop_leaked=True)
    assert left["train"]["width"][:] == [40] and seen.leaked == {0, 1, 3} and seen.facts["duplicates"] == 2


def test_the_pictures_of_rows_are_fetched_a_few_at_a_time() -> None:
    """The look at all pictures, and the counts of masks and maps."""

    class Rows:
        fetched = 0

        def select_columns(self, name: str) -> "Rows":
            self.name = name
            return self

        def iter(self, size: int) -> Any:
            for _ in range(3):
                self.fetched += size
                yield {self.name: [{"bytes": stored, "path": None}] * size}

    stored = data(picture(mode="L"), "PNG")
    ways: tuple[Any, ...] = (
        lambda rows: _looks(rows, "image", Progress("", 1)), counted, lambda rows: _counts(rows, True))  # fmt: skip
    for way in ways:
        found = way(rows := Rows())
        next(found)
        assert rows.fetched == AHEAD
        assert len(list(found)) == 3 * AHEAD - 1


@pytest.mark.fault(56)
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_is_obeyed(turn: int) -> None:
    """The orange corner ends up where a viewer shows it, for each of the eight orientations."""
    exif = Image.Exif()
    exif[0x0112] = turn
    opened = open_image(data(picture((40, 20)), "JPEG", quality=95, exif=exif))
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[turn]
    width, height = opened.size
    assert (width, height) == ((40, 20) if turn < 5 else (20, 40))
    at = (3 if "l" in corner else width - 4, 3 if "t" in corner else height - 4)
    assert np.abs(np.array(opened.getpixel(at), int) - ORANGE).max() < 40


def test_a_large_jpeg_is_decoded_no_larger_than_asked_for() -> None:
    """At a part of its size, turned, and the same to look at; pictures that are too short for that are as they are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    large = data(picture((800, 600)), "JPEG", quality=95, exif=exif)
    whole, part = open_image(large), open_image(large, edge=150)
    assert (whole.size, part.size, open_image(large, edge=151).size) == ((600, 800), (150, 200), (300, 400))
    near = np.asarray(whole.resize(part.size, Image.Resampling.BOX), int)
    assert np.abs(near - np.asarray(part, int)).mean() < 1
    assert open_image(data(picture((800, 600)), "PNG"), edge=150).size == (800, 600)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", [1, 6, 8])
def test_a_size_is_that_of_the_upright_picture_without_decoding(
    kind: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a PNG without EXIF data, for which Pillow's own look decodes."""
    exif = Image.Exif()
    exif[0x0112] = turn
    plain, turned = data(picture((40, 20)), kind), data(picture((40, 20)), kind, exif=exif)
    look = look_at(turned)
    assert open_image(turned).size == (look.width, look.height)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert size_of(plain) == (40, 20)
    assert size_of(turned) == (look.width, look.height) == ((40, 20) if turn < 5 else (20, 40))


@pytest.mark.fault(54)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_never_half_a_picture(share: float, tmp_path: Path) -> None:
    """`verify` would pass these; the name is in the message."""
    content = data(picture((200, 200), shade=3), "JPEG", quality=95)
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UsageError, match=r"cut\.jpg: cut short"):
        open_image(path)


@pytest.mark.fault(57)
def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decoded: the limit is looked at before."""
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(UsageError, match="40 × 40 pixels"):
        open_image(data_of_size(40), pixels=1_000)


def data_of_size(side: int) -> bytes:
    """A PNG header of a square; its pixels do not matter."""
    from image_cases import bomb

    return bomb(side, side)


@pytest.mark.fault(58)
def test_ten_thousand_files_are_looked_at_in_time(tmp_path: Path) -> None:
    """Many small files take seconds (here 2,000), and only one line each of what is odd is printed."""
    good(tmp_path, count=2)
    content = jpeg()
    for i in range(2_000):
        (tmp_path / "cat" / f"many {i}.jpg").write_bytes(content + bytes([i % 256, i // 256]))
    from checking import check

    said = check(tmp_path)
    assert (said.code, said.lines < 12) == (0, True)
    assert "cat 2,002" in said.text


def test_training_a_task_of_texts_on_a_folder_of_images_is_refused(tmp_path: Path) -> None:
    """One sentence says which task reads images."""
    from hf_tuner.config import Run
    from hf_tuner.data.load import load_data
    from hf_tuner.tasks.text_classification import TextClassification

    with pytest.raises(UsageError, match="text-classification does not read: --task image-classification"):
        load_data(Run(dataset=str(good(tmp_path)), output_dir=str(tmp_path / "run")), TextClassification)


@pytest.mark.fault(63)
def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is an environment fault with the line that cures it."""
    import sys

    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(EnvironmentFault, match=r"hf-tuner\[vision\]"):
        open_image(b"")


@pytest.mark.fault(54)
def test_no_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawing in PostScript would be run by Ghostscript, whatever the file is called; it is no image here."""
    from PIL import EpsImagePlugin

    path = tmp_path / "a.jpg"
    path.write_bytes(data(picture(), "EPS"))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("Ghostscript was started"))
    with pytest.raises(UsageError, match="of no known format"):
        open_image(path)
    assert "of no known format" in look_at(path).fault
    with pytest.raises(pytest.fail.Exception, match="was started"):  # what would have happened
        Image.open(path).load()


@pytest.mark.parametrize("line, said", [("[" * 200_000, "cannot be read"), ("x" * 2_000_000, "row 1 has more than")])
def test_rows_of_metadata_are_bounded(line: str, said: str, tmp_path: Path) -> None:
    """Nested or long without end: one line, no traceback."""
    (good(tmp_path) / "metadata.jsonl").write_text(line)
    errors = audit_images(tmp_path).errors
    assert len(errors) == 1 and said in errors[0]
