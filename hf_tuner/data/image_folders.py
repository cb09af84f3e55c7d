"""Folders of images, one folder a class: what is in them, what cannot be used, what looks odd."""

import csv
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_tuner.console import Progress, count
from hf_tuner.data.files import kind_of
from hf_tuner.data.splits import split_of
from hf_tuner.errors import UsageError
from hf_tuner.pictures import SUFFIXES, Look, look_at, quiet_pillow, require_pillow

OTHER_IMAGES = (".heic", ".heif", ".avif", ".svg", ".psd", ".raw", ".cr2", ".nef", ".dng", ".jp2", ".pdf")
"""Pictures that are not read: a class may be missing half of its images without them."""
METADATA = ("metadata.csv", "metadata.jsonl")
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")
LINE = 1_000_000
"""Longest row of a metadata.jsonl in characters."""
LISTED = 5
LONG = 20
"""How many times longer than wide an image is odd."""


@dataclass
class ImageAudit:
    """What was found. `images` maps splits to classes to the files that can be used."""

    images: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """images and classes by split, formats, modes, sizes, bad, skipped (what was left aside, by kind), leaked."""


def is_image_folder(path: Path) -> bool:
    """Whether a folder holds images and no table but their metadata."""
    if not path.is_dir():
        return False
    found = False
    for place, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in (n for n in files if not _hidden(n)):
            if kind_of(Path(name)) not in (None, "text", "conll") and name.lower() not in METADATA:
                return False
            found = found or name.lower().endswith((*SUFFIXES, *OTHER_IMAGES))
        if len(Path(place).relative_to(path).parts) > 3:
            folders.clear()
    return found


def audit_images(
    folder: Path, *, skip_bad: bool = False, follow_symlinks: bool = False, fail_on_leak: bool = False
) -> ImageAudit:
    """Look at every image of a folder of class folders (perhaps in train/, test/ …), each decoded once.

    Nothing is raised for bad images: they are in `errors`, or, with `skip_bad`, left out with a warning. Raises
    EnvironmentFault without Pillow.
    """
    require_pillow()
    found = ImageAudit(facts={"skipped": {}})
    wanted = _Walk(folder, follow_symlinks, found).images()
    paths = [path for classes in wanted.values() for files in classes.values() for path in files]
    looks = {look.path: look for look in _looks(paths)}
    bad = [look for look in looks.values() if look.fault]
    found.facts["bad"] = len(bad)
    _say_bad(found, folder, bad, len(paths), skip_bad)
    found.images = {
        split: {name: [p for p in files if not looks[p].fault] for name, files in classes.items()}
        for split, classes in wanted.items()
    }
    good = [look for look in looks.values() if not look.fault]
    _check_classes(found, bool(paths))
    _check_kinds(found, folder, good)
    _check_same(found, folder, looks, fail_on_leak)
    _check_metadata(found, folder)
    return found


def picture_files(folder: Path, *, follow_symlinks: bool = False) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
    """Split → class → files of a folder, and what was odd or left aside in words.

    A folder of images without class folders is one split, train, of one class without a name. Raises UsageError for links
    that lead out, and for a folder without images.
    """
    found = ImageAudit(facts={"skipped": {}})
    wanted = _Walk(folder, follow_symlinks, found).images()
    if not any(files for classes in wanted.values() for files in classes.values()):
        found = ImageAudit(facts={"skipped": {}})
        wanted = {"train": {"": _Walk(folder, follow_symlinks, found).flat()}}
        if not wanted["train"][""]:
            found.errors.append(f"no images; expected {', '.join(SUFFIXES)}")
    counts = {split: {name: len(files) for name, files in classes.items()} for split, classes in wanted.items()}
    found.warnings += odd_names(counts.get("train") or next(iter(counts.values()), {}))
    if found.errors:
        raise UsageError("\n".join(f"{folder}: {text}" for text in found.errors))
    skipped = [f"{count(n)} {what}" for what, n in found.facts["skipped"].items()]
    return wanted, [*found.warnings, *([f"left aside: {', '.join(skipped)}"] if skipped else [])]


def lines(found: ImageAudit) -> dict[str, str]:
    """What the screen shows of an audit: classes, images, what was left aside."""
    shown = {}
    for split, classes in found.facts["classes"].items():
        ordered = sorted(classes.items(), key=lambda pair: -pair[1])
        named = ", ".join(f"{name} {count(n)}" for name, n in ordered[:8]) + (", …" if len(ordered) > 8 else "")
        shown[split] = f"{count(sum(classes.values()))} images in {len(classes)} classes: {named}"
    if found.facts.get("sizes"):
        smallest, largest = found.facts["sizes"]
        kinds = ", ".join(f"{name} {count(n)}" for name, n in found.facts["formats"].items())
        modes = ", ".join(f"{name} {count(n)}" for name, n in found.facts["modes"].items())
        shown["images"] = f"{kinds}; {modes}; from {smallest[0]} × {smallest[1]} to {largest[0]} × {largest[1]} pixels"
    if found.facts["skipped"]:
        shown["skipped"] = ", ".join(f"{count(n)} {what}" for what, n in found.facts["skipped"].items())
    return shown


class _Walk:
    """Goes through a folder: images by split and class; everything else is counted or said."""

    def __init__(self, folder: Path, follow: bool, found: ImageAudit) -> None:
        self.folder, self.follow, self.found = folder, follow, found
        self.root = folder.resolve()
        self.links: list[str] = []
        self.strays: list[str] = []
        self.other: dict[str, list[str]] = {}

    def images(self) -> dict[str, dict[str, list[Path]]]:
        """Split → class → files, all in natural order."""
        tops = self._folders(self.folder)
        splits = {top: split_of(Path(top.name) / "x") for top in tops}
        if not tops or not all(splits.values()):
            splits = dict.fromkeys([self.folder], "train")
        else:
            self._strays(self.folder)
        result: dict[str, dict[str, list[Path]]] = {}
        for top, split in splits.items():
            classes = result.setdefault(str(split), {})
            for place in self._folders(top):
                classes.setdefault(unicodedata.normalize("NFC", place.name), []).extend(self._files(place))
            self._strays(top)
        self._say()
        return result

    def flat(self) -> list[Path]:
        """All images of the folder and of those in it, in natural order."""
        files = self._files(self.folder)
        self._say()
        return files

    def _folders(self, place: Path) -> list[Path]:
        return [p for p in self._entries(place) if p.is_dir()]

    def _strays(self, place: Path) -> None:
        for path in self._entries(place):
            if not path.is_dir() and self._wanted(path):
                self.strays.append(self._name(path))

    def _files(self, place: Path) -> list[Path]:
        """Images of a class folder and of the folders in it."""
        result, waiting, seen = [], [place], {place.resolve()}
        while waiting:
            for path in self._entries(waiting.pop()):
                if not path.is_dir():
                    result += [path] if self._wanted(path) else []
                elif path.resolve() not in seen:
                    seen.add(path.resolve())
                    waiting.append(path)
        return result

    def _entries(self, place: Path) -> Iterator[Path]:
        for path in sorted(place.iterdir(), key=lambda p: _natural(p.name)):
            if _hidden(path.name):
                self._skip("hidden or system files")
            elif path.is_symlink() and not self.follow and not path.resolve().is_relative_to(self.root):
                self.links.append(f"{self._name(path)} → {path.resolve()}")
            else:
                yield path

    def _wanted(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            return True
        if path.name.lower() not in METADATA:
            if suffix in OTHER_IMAGES:
                self.other.setdefault(suffix, []).append(self._name(path))
            self._skip(f"{suffix or 'files without a suffix'}{' files' if suffix else ''}")
        return False

    def _skip(self, what: str) -> None:
        skipped = self.found.facts["skipped"]
        skipped[what] = skipped.get(what, 0) + 1

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _say(self) -> None:
        links = sorted(set(self.links))
        if links:
            self.found.errors.append(
                f"{_several(len(links), 'link')} out of the folder: {_listed(links)}; --follow-symlinks reads them"
            )
        if self.strays:
            self.found.warnings.append(
                f"{_several(len(self.strays), 'image')} in no class folder, left aside: {_listed(self.strays)}"
            )
        for suffix, names in self.other.items():
            self.found.warnings.append(
                f"{_several(len(names), suffix + ' file')} not read: {_listed(names)}; convert to JPEG or PNG"
            )


def _looks(paths: Sequence[Path]) -> Iterator[Look]:
    progress = Progress("looking at the images", len(paths))
    # Decoding leaves the interpreter's lock alone, so threads serve.
    with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for number, look in enumerate(pool.map(look_at, paths), start=1):
            progress.at(number, f"{number:,} images")
            yield look
    progress.end()


def _say_bad(found: ImageAudit, folder: Path, bad: list[Look], total: int, skip: bool) -> None:
    if not bad:
        return
    told = _listed([f"{look.path.relative_to(folder).as_posix()} ({look.fault})" for look in bad])
    said = f"{count(len(bad))} of {count(total)} images cannot be used: {told}"
    if skip:
        found.warnings.append(f"{said}; left out")
    else:
        found.errors.append(f"{said}; --skip-bad leaves them out")


def _check_classes(found: ImageAudit, any_images: bool) -> None:
    found.facts["classes"] = {
        split: {name: len(files) for name, files in classes.items()} for split, classes in found.images.items()
    }
    train: Mapping[str, int] = found.facts["classes"].get("train") or next(iter(found.facts["classes"].values()), {})
    filled = {name: n for name, n in train.items() if n}
    if not any_images:
        found.errors.append(f"no images in class folders; expected CLASS/NAME.jpg (or {', '.join(SUFFIXES[1:])})")
    elif len(filled) < 2:
        only = next(iter(filled), "none")
        found.errors.append(f'one class only ("{only}"): nothing to learn; images lie in a folder for each class')
    found.warnings += odd_names(train) if any_images else []
    for split, classes in found.facts["classes"].items():
        unseen = [name for name, n in classes.items() if n and not filled.get(name)]
        if unseen and classes is not train:
            found.errors.append(f"{split}: {_several(len(unseen), 'class folder')} that train lacks: {_listed(unseen)}")


def odd_names(images: Mapping[str, int]) -> list[str]:
    """Warnings about class folders, given how many images each has: empty ones, and names that hardly differ."""
    empty = [name for name, n in images.items() if not n]
    told = (
        [f"{_several(len(empty), 'class folder')} without an image that can be used: {_listed(empty)}"] if empty else []
    )
    groups: dict[str, list[str]] = {}
    for name in (name for name, n in images.items() if n):
        groups.setdefault(" ".join(name.casefold().replace("_", " ").replace("-", " ").split()), []).append(name)
    alike = [" / ".join(f'"{n}"' for n in names) for names in groups.values() if len(names) > 1]
    if alike:
        told.append(f"classes that differ only in case or spaces: {'; '.join(alike[:LISTED])}; are they the same?")
    return told


def _check_kinds(found: ImageAudit, folder: Path, good: list[Look]) -> None:
    found.facts["formats"] = dict(Counter(look.format for look in good).most_common())
    found.facts["modes"] = dict(Counter(look.mode for look in good).most_common())
    if good:
        ordered = sorted(good, key=lambda look: look.width * look.height)
        found.facts["sizes"] = [(ordered[0].width, ordered[0].height), (ordered[-1].width, ordered[-1].height)]
    named = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}
    wrong = [
        f"{look.path.relative_to(folder).as_posix()} is {look.format}"
        for look in good
        if look.format not in (named.get(s := look.path.suffix.lower(), s[1:].upper()), "MPO")
    ]
    if wrong:
        found.warnings.append(
            f"{_several(len(wrong), 'image')} named as another format (read as what it is): {_listed(wrong)}"
        )
    long = [
        f"{look.path.relative_to(folder).as_posix()} ({look.width} × {look.height})"
        for look in good
        if max(look.width, look.height) > LONG * min(look.width, look.height) or min(look.width, look.height) < 2
    ]
    if long:
        found.warnings.append(f"{_several(len(long), 'image')} of an odd shape: {_listed(long)}")


def _check_same(found: ImageAudit, folder: Path, looks: Mapping[Path, Look], fail_on_leak: bool) -> None:
    """The same bytes in two classes, in two splits, or twice in one class."""
    places: dict[str, list[tuple[str, str, Path]]] = {}
    for split, classes in found.images.items():
        for name, files in classes.items():
            for path in files:
                places.setdefault(looks[path].digest, []).append((split, name, path))
    same = [spots for spots in places.values() if len(spots) > 1]
    mixed = [spots for spots in same if len({name for _, name, _ in spots}) > 1]
    leaked = [spots for spots in same if len({split for split, _, _ in spots}) > 1]
    found.facts["duplicates"] = sum(len(spots) - 1 for spots in same)
    found.facts["leaked"] = len(leaked)

    def pairs(groups: list[list[tuple[str, str, Path]]]) -> str:
        return _listed([" = ".join(p.relative_to(folder).as_posix() for _, _, p in spots[:3]) for spots in groups])

    if mixed:
        found.warnings.append(
            f"{_several(len(mixed), 'image')} in more than one class: {pairs(mixed)}; which is right?"
        )
    if leaked:
        said = f"{_several(len(leaked), 'image')} in train and in another split: {pairs(leaked)}"
        (found.errors if fail_on_leak else found.warnings).append(
            f"{said} (--fail-on-leak)" if fail_on_leak else f"{said}; results on them flatter the model, "
            "--fail-on-leak refuses them"
        )  # fmt: skip
    twice = sum(len(spots) - 1 for spots in same if spots not in mixed and spots not in leaked)
    if twice:
        found.warnings.append(f"{_several(twice, 'image')} stored a second time under another name")


def _check_metadata(found: ImageAudit, folder: Path) -> None:
    """File names in metadata files stay inside the folder and are there."""
    for path in sorted(p for name in METADATA for p in folder.rglob(name)):
        where = path.relative_to(folder).as_posix()
        try:
            for number, name in _file_names(path):
                target = path.parent / name
                if not target.resolve().is_relative_to(folder.resolve()) or Path(name).is_absolute():
                    found.errors.append(f'{where} row {number}: "{name[:80]}" leads out of the folder')
                elif not target.is_file():
                    found.errors.append(f'{where} row {number}: there is no file "{name[:80]}"')
                else:
                    continue
                break  # the first of each file is enough
        except (OSError, ValueError, csv.Error, AttributeError, RecursionError) as error:
            found.errors.append(f"{where} cannot be read: {' '.join(str(error).split())[:120]}")


def _file_names(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            for number, row in enumerate(csv.DictReader(file), start=2):
                yield number, str(row.get("file_name") or "")
        else:
            for number, line in enumerate(iter(lambda: file.readline(LINE), ""), start=1):
                if len(line) == LINE:
                    raise ValueError(f"row {number} has more than {LINE:,} characters")
                if line.strip():
                    yield number, str(json.loads(line).get("file_name") or "")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _natural(name: str) -> list[Any]:
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]


def _several(number: int, what: str) -> str:
    plural = "es" if what.endswith("ss") else "s"
    return f"{count(number)} {what}{plural if number != 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 100 else name[:99] + "…" for name in names[:LISTED]]
    return ", ".join(shown) + (", …" if len(names) > LISTED else "")
