"""`Report`: what a run measured, proved and left behind. A table on screen, `report.json`, `report.html`, figures."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hf_tuner.errors import ArtifactError, EnvironmentFault

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""{split: {metric: {"value", "low", "high"}}}; a value that could not be computed is None, with a "note"."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Numbers with their intervals beside baselines, proofs, where things are, how long they took."""

    task: str
    method: str
    model: str
    dataset: str
    metrics: Scores = field(default_factory=dict)
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    """{"majority" or "probe": the same shape as `metrics`}."""
    rows: Mapping[str, int] = field(default_factory=dict)
    proofs: Sequence[Mapping[str, Any]] = ()
    """[{"name", "passed", "detail"}]."""
    time: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase."""
    memory: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    """"total", "trainable" and "saved_bytes"."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """What lies in the run's folder: name to a description or a size in bytes."""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    audit: Mapping[str, Any] = field(default_factory=dict, metadata={"optional": True})
    """What the audit found: columns, classes, duplicates, leaked, characters, tokens, disk. Never a row's text."""
    details: Mapping[str, Any] = field(default_factory=dict, metadata={"page_only": True})
    """For the page and figures only, not in report.json: curves, per_class, class_scores, confusion, calibration, scatter, errors,
    config, data, notes, drawn."""

    def data(self) -> dict[str, Any]:
        """What report.json holds, as plain values; numbers that are not finite become None."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if not f.metadata.get("page_only")}

    def text(self) -> str:
        """The content of report.json."""
        return json.dumps(self.data(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, folder: str | Path) -> Path:
        """Write report.json, report.html and figures/*.png; returns the path of the page.

        Each file is complete or not there. Raises EnvironmentFault when the disk is full or not writable.
        """
        from hf_tuner.report import page, plots

        place = Path(folder)
        figures = plots.figures(self.details)
        write_file(place / "report.json", self.text().encode())
        for name, picture in figures.items():
            write_file(place / "figures" / f"{name}.png", picture.light)
        for drawn in self.details.get("drawn", ()):
            write_file(place / "figures" / f"{drawn.name}.png", plots.png(drawn.image))
        write_file(place / "report.html", page.render(self, figures).encode())
        return place / "report.html"

    @classmethod
    def read(cls, folder: str | Path) -> "Report":
        """The report of a finished run, without the page's details.

        Raises ArtifactError when it is not there or broken.
        """
        path = Path(folder) / "report.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder} holds no report.json; give the folder of a finished run") from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}; measure again with `hf-tuner evaluate`") from error
        kept = {f.name for f in fields(cls) if not f.metadata.get("page_only")}
        kept -= {f.name for f in fields(cls) if f.metadata.get("optional") and f.name not in data}
        missing = sorted(kept - set(data)) if isinstance(data, dict) else sorted(kept)
        if missing:
            raise ArtifactError(f"{path} is not a report: {', '.join(missing)} missing; give a finished run's folder")
        return cls(**{name: data[name] for name in kept})

    def table(self, whole: bool = False) -> str:
        """The closing table for the screen: at most 25 lines, of 100 columns unless they are wanted `whole`."""
        from hf_tuner.report.table import table

        return table(self, whole)


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file or none: beside it first, then renamed over it.

    Raises EnvironmentFault when the disk is full or not writable.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # it may lie where no file can
            beside.unlink()
        cure = "free space or choose another folder"
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}; {cure}") from error


def plain(value: Any) -> Any:
    """JSON's own types: numpy numbers and arrays opened, paths as text, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int) else str(value)
