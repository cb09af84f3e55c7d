"""What a card is made of: the files of a finished run's folder, and what its names may be called in public."""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id

from hf_tuner.data.files import KINDS
from hf_tuner.data.sources import SUFFIXES
from hf_tuner.errors import ArtifactError
from hf_tuner.hub.address import Address
from hf_tuner.hub.manifest import Manifest, read_manifest
from hf_tuner.hub.markdown import line
from hf_tuner.models.restore import restore_task
from hf_tuner.plain_yaml import read_yaml
from hf_tuner.report.report import Report

FOLDER = "FOLDER"
"""Stands for a run that is not on the Hub."""


@dataclass(frozen=True)
class Data:
    """A data set as it may be named in public."""

    name: str
    hub: str | None = None
    """Its id on the Hub; None when it is a file, a folder or embedded."""
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is made of: the files of a finished run, and what is known about its place on the Hub."""

    manifest: Manifest
    report: Report
    settings: Mapping[str, Any]
    """Content of run.yaml."""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    """Content of adapter_config.json; empty for a whole model."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """Last entry of log.jsonl: the step and epoch at which training ended."""
    kilograms: float | None = None
    """CO2 in kilograms, from codecarbon's emissions.csv."""
    repo: str | None = None
    """user/name, once it is known."""
    revision: str | None = None
    """Branch or tag of the repository that the run is pushed to, when it is not the main one."""
    subfolder: str = ""
    licence: str | None = None
    languages: tuple[str, ...] = ()

    @property
    def task(self) -> Any:
        """The run's task: its labels, and what its model class and pipeline are called."""
        return restore_task(self.manifest)

    @property
    def adapted(self) -> bool:
        """Whether the run is an adapter, which needs its base."""
        return self.manifest.saves == "adapter"

    @property
    def place(self) -> str:
        """How a verb of hf-tuner is told where the run lies."""
        return line(Address(self.repo, self.revision, self.subfolder), 300) if self.repo else FOLDER

    @property
    def base_id(self) -> str | None:
        """Hub id of the base model, None when it is a folder or the embedded one."""
        base = self.manifest.base
        return hub_id(base["id"], base.get("revision") is not None)

    @property
    def base_name(self) -> str:
        """What the base model may be called in public."""
        return self.base_id or public(self.manifest.base["id"])

    def data(self, split: str = "train") -> Data:
        """The data set that a split came from."""
        saved, other = self.manifest.data, self.settings.get("eval_dataset")
        if split == "test" and other:
            return named(str(other))
        given = named(str(saved["dataset"]), sure=saved.get("revision") is not None)
        config = given.config or self.settings.get("dataset_config")
        revision = saved.get("revision") or given.revision
        return replace(
            given, config=line(config, 60) if config else None, revision=line(revision, 60) if revision else None
        )


def read_facts(folder: Path, **more: Any) -> Facts:
    """The facts of a finished run's folder; `more` are those that it does not hold (repo, licence …).

    Raises ArtifactError when a file is missing or broken.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    path = folder / "run.yaml"
    settings = read_yaml(path, wrong=ArtifactError) if path.is_file() else None
    if not isinstance(settings, dict):
        raise ArtifactError(
            f"{folder / 'run.yaml'} is missing or holds no settings; restore it from a copy, or train again"
        )
    known: dict[str, Any] = {
        "adapter": _parsed(folder / "adapter_config.json", json.loads) or {},
        "progress": _parsed(folder / "log.jsonl", _last_entry) or {},
        "kilograms": _parsed(folder / "emissions.csv", _kilograms),
    }
    return Facts(manifest=manifest, report=Report.read(folder), settings=settings, **{**known, **more})


def named(source: str, sure: bool = False) -> Data:
    """The data set that `name:config@revision#rows` names; `sure` says that the Hub knew it."""
    rest, parts = source[:500], {"config": "", "revision": ""}
    while match := SUFFIXES.fullmatch(rest):
        parts |= {k: v for k, v in match.groupdict().items() if v is not None and k in parts}
        rest = match["rest"]
    hub = None if Path(rest).suffix.lower() in KINDS else hub_id(rest, sure)
    config, revision = (line(part, 60) if part else None for part in parts.values())
    return Data(hub or public(rest), hub, config, revision)


def hub_id(name: str, sure: bool = False) -> str | None:
    """The name when it is a repository's and not a folder's. One word may be either: `sure` says that the Hub knew it."""
    if name == "demo" or not ("/" in name or sure):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if Path(name).exists() else name


def public(path: str) -> str:
    """The last part of a path, on one line: where files lie on this machine is nobody's business."""
    return line(re.split(r"[/\\]", path.rstrip("/\\"))[-1])


def _parsed(path: Path, parse: Any) -> Any:
    """Content of a file through `parse`; None when there is none. Raises ArtifactError when it is broken."""
    if not path.is_file():
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {line(error, 200)}; restore it from a copy, or train again"
        ) from error


def _last_entry(lines: str) -> dict[str, Any]:
    entries = [one for one in lines.splitlines() if one.strip()]
    return dict(json.loads(entries[-1])) if entries else {}


def _kilograms(rows: str) -> float:
    """Sum over the runs of codecarbon's file: each run's last row holds its total so far."""
    last = {row.get("run_id", ""): float(row["emissions"]) for row in csv.DictReader(rows.splitlines())}
    return sum(last.values())
