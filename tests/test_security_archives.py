"""Archives of strangers: names that leave the folder, links and bombs are refused before anything is unpacked."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from hf_tuner.cli.main import main
from hf_tuner.data import archives
from hf_tuner.data.files import read_file
from hf_tuner.data.sources import Reading, parse, read
from hf_tuner.errors import ArtifactError, TunerError, UsageError

ROWS = b"text,label\n" + b"good morning,a\nbad evening,b\n" * 10
BOMB = b"text,label\n" + b"a,b\n" * 30_000_000


def packed_zip(path: Path, **members: bytes) -> Path:
    """A zip of members; "up" stands for "../"."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("up_", "../").replace("root_", "/"), content)
    return path


def zip_with_link(path: Path) -> Path:
    """A zip whose member is a symbolic link to /etc."""
    link = zipfile.ZipInfo("train.csv")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    return path


def packed_tar(path: Path, member: Callable[[], tarfile.TarInfo], content: bytes = b"", mode: str = "w") -> Path:
    """A tar with one member."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        info = member()
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    """A link inside a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


EVIL: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zip, above": (lambda p: packed_zip(p, **{"train.csv": ROWS, "up_evil": b"x"}), "outside its folder"),
    "zip, deep above": (lambda p: packed_zip(p, **{"a/up_up_evil": b"x"}), "outside its folder"),
    "zip, absolute": (lambda p: packed_zip(p, root_evil=b"x"), "outside its folder"),
    "zip, link": (zip_with_link, "holds the link"),
    "zip, bomb": (lambda p: packed_zip(p, **{"train.csv": BOMB}), "unpacks to more than"),
    "tar, above": (lambda p: packed_tar(p, lambda: tarfile.TarInfo("../evil"), b"x"), "outside its folder"),
    "tar, absolute": (lambda p: packed_tar(p, lambda: tarfile.TarInfo("/evil"), b"x"), "outside its folder"),
    "tar, link": (lambda p: packed_tar(p, lambda: link("a", "/etc", tarfile.SYMTYPE)), "a link or device"),
    "tar, hard link": (lambda p: packed_tar(p, lambda: link("a", "/etc/passwd", tarfile.LNKTYPE)), "a link or device"),
    "tar, device": (lambda p: packed_tar(p, lambda: link("a", "", tarfile.CHRTYPE)), "a link or device"),
    "tar.gz, bomb": (lambda p: packed_tar(p, lambda: tarfile.TarInfo("train.csv"), BOMB, "w:gz"), "unpacks to more"),
    "gzip, bomb": (lambda p: wrote(p, gzip.compress(BOMB)), "unpacks to more"),
    "bzip2, bomb": (lambda p: wrote(p, bz2.compress(BOMB)), "unpacks to more"),
    "xz, bomb": (lambda p: wrote(p, lzma.compress(BOMB, preset=1)), "unpacks to more"),
    "gzip, bomb before a zip": (lambda p: before_a_zip(wrote(p, gzip.compress(BOMB))), "unpacks to more"),
    "tar, above, before a zip": (lambda p: before_a_zip(EVIL["tar, above"][0](p)), "outside its folder"),
    "tar.gz, bomb before a zip": (lambda p: before_a_zip(EVIL["tar.gz, bomb"][0](p)), "unpacks to more"),
    "zip, drive": (lambda p: packed_zip(p, **{"C:evil": b"x"}), "outside its folder"),
    "rar": (lambda p: wrote(p, b"Rar!\x1a\x07\x01\x00"), "not unpacked here"),
    "gzip, cut short": (lambda p: wrote(p, gzip.compress(os.urandom(5000))[:100]), "damaged archive"),
}


def wrote(path: Path, content: bytes) -> Path:
    """The path, with this content."""
    path.write_bytes(content)
    return path


def before_a_zip(path: Path) -> Path:
    """The path, with a small harmless zip behind what it holds."""
    harmless = packed_zip(path.with_name("harmless.zip"), **{"train.csv": ROWS})
    wrote(path, path.read_bytes() + harmless.read_bytes())
    harmless.unlink()
    return path


@pytest.mark.fault(69, 70, "S11")
@pytest.mark.parametrize("name", EVIL)
def test_an_archive_is_refused_from_its_listing(name: str, tmp_path: Path) -> None:
    """Exit 4 with the file's name; nothing was written anywhere."""
    make, said = EVIL[name]
    folder = tmp_path / "in"
    folder.mkdir()
    path = make(folder / "data.bin")
    with pytest.raises(ArtifactError, match=said) as error:
        archives.check(path)
    assert "data.bin" in str(error.value) and error.value.exit_code == 4
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "data.bin"]


@pytest.mark.fault("S11")
def test_ordinary_files_and_archives_pass(tmp_path: Path) -> None:
    """Small ones, well-packed ones, text, an image, nothing."""
    for path in (
        packed_zip(tmp_path / "a.zip", **{"train/1.csv": ROWS, "train/2.csv": ROWS}),
        packed_zip(tmp_path / "times.zip", **{"2024-01-01T10:00.csv": ROWS}),
        packed_tar(tmp_path / "a.tar", lambda: tarfile.TarInfo("train/1.csv"), ROWS),
        packed_tar(tmp_path / "a.tar.gz", lambda: tarfile.TarInfo("train/1.csv"), ROWS * 1000, "w:gz"),
        wrote(tmp_path / "a.csv.gz", gzip.compress(ROWS * 1000)),
        wrote(tmp_path / "a.csv", ROWS),
        wrote(tmp_path / "a.png", b"\x89PNG\r\n"),
        wrote(tmp_path / "empty", b""),
    ):
        archives.check(path)


@pytest.mark.fault(70, "S11")
def test_a_packed_file_is_counted_before_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the real command: exit 4."""
    path = wrote(tmp_path / "train.csv.gz", gzip.compress(BOMB))
    with pytest.raises(ArtifactError, match="unpacks to more than"):
        read_file(path)
    with pytest.raises(SystemExit) as end:
        main(["check", str(path)])
    assert end.value.code == 4 and "train.csv.gz" in capsys.readouterr().err


@pytest.mark.fault(69, 70, "S11")
@pytest.mark.parametrize("name", ["zip, bomb", "zip, above", "zip, link"])
def test_a_folder_that_names_an_archive_is_refused_before_it_is_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set's card may name any file as its data; `datasets` would unpack it into its cache."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", cache / "extracted")
    folder = tmp_path / "data"
    folder.mkdir()
    EVIL[name][0](folder / "data.zip")
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: data.zip\n---\n")
    with pytest.raises(TunerError) as error:
        read(parse(str(folder)), Reading())
    # A name above is met even earlier, by the library that looks for the kind of data.
    assert EVIL[name][1] in str(error.value) or name == "zip, above"
    assert not (tmp_path / "evil").exists() and not (tmp_path.parent / "evil").exists()
    assert not [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_good_archive_that_a_card_names_is_read(tmp_path: Path) -> None:
    """The guard stands in the way `datasets` takes: what passes it arrives."""
    folder = tmp_path / "data"
    folder.mkdir()
    packed_zip(folder / "data.zip", **{"train.csv": ROWS})
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: data.zip\n---\n")
    assert read(parse(str(folder)), Reading()).splits["train"].num_rows == 20


@pytest.mark.fault(69)
@pytest.mark.parametrize("name", ["../private/p.csv", "../private/*.csv", "ROOT/private/p.csv", "file://ROOT/private/p.csv",
                                  "zip://train.csv::ROOT/private/p.zip"])  # fmt: skip
def test_a_card_names_no_file_outside_its_folder(name: str, tmp_path: Path) -> None:
    """Rows of another file of this machine are not read."""
    for folder in ("data", "private"):
        (tmp_path / folder).mkdir()
    wrote(tmp_path / "private" / "p.csv", ROWS)
    packed_zip(tmp_path / "private" / "p.zip", **{"train.csv": ROWS})
    name = name.replace("ROOT", str(tmp_path))
    card = tmp_path / "data" / "README.md"
    card.write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {name}\n---\n")
    with pytest.raises(UsageError, match=r"README.md names .*, which is outside the folder"):
        read(parse(str(card.parent)), Reading())


@pytest.mark.fault(69)
@pytest.mark.parametrize("splits", [True, False])
def test_a_saved_data_set_names_no_file_outside_its_folder(splits: bool, tmp_path: Path) -> None:
    """A list of files is as foreign as a card."""
    rows = datasets.Dataset.from_dict({"text": ["rain"], "label": ["a"]})
    folder = tmp_path / "data"
    (datasets.DatasetDict(train=rows) if splits else rows).save_to_disk(str(folder))
    place = folder / "train" if splits else folder
    next(place.glob("*.arrow")).rename(tmp_path / "x.arrow")
    name = "../../x.arrow" if splits else "../x.arrow"
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": name}]}))
    assert datasets.load_from_disk(str(folder)) is not None  # what would be read
    with pytest.raises(UsageError, match=r"x.arrow., which is outside the folder"):
        read(parse(str(folder)), Reading())


@pytest.mark.fault(66)
def test_a_script_beside_no_data_is_not_run(tmp_path: Path) -> None:
    """Data sets were once scripts named as their folder."""
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "words.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\n")
    with pytest.raises(TunerError):
        read(parse(str(folder)), Reading())
    assert not (tmp_path / "marker").exists()
