"""Everything a finished run leaves beside its weights: manifest, configuration, report, card."""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.data.fingerprint import fingerprints
from hf_tuner.evaluation.intervals import measured
from hf_tuner.evaluation.loop import Kept
from hf_tuner.hub.card import card, read_facts
from hf_tuner.hub.manifest import FILE, Manifest, file_digests
from hf_tuner.models.load import bare_model
from hf_tuner.models.save import write_text
from hf_tuner.report.classification import describe
from hf_tuner.report.report import Report
from hf_tuner.training.proofs import Proof, total_parameters
from hf_tuner.versions import versions

NOT_VERIFIED = "NOT verified: with --no-verify nobody reloaded what was saved and compared its predictions"


@dataclass(frozen=True)
class Measured:
    """What training and evaluation produced, before it is written down."""

    task: Any
    processor: Any
    data: Any
    ready: dict[str, Any]
    kept: dict[str, Kept]
    """What the task keeps of each evaluation split, made readable."""
    free: dict[str, dict[str, Kept]]
    """The same by name of what comes before or without training: the model before, the probe."""
    probe: str
    """What the probe saw, or why there is none."""
    max_length: int
    history: list[dict[str, Any]]
    files: list[str]
    training: dict[str, Any]
    """What training ran with: see `effective`."""


def write_manifest(run: Run, model: Any, results: Measured) -> Manifest:
    """Write manifest.json: enough to restore the run (run.yaml, which repeats it, stands there from the start)."""
    notes = model.tuner_notes
    manifest = Manifest(
        task=run.task,
        settings=results.task.manifest(),
        method=run.method,
        saves=catalog.load("methods", run.method).SAVES,
        base={"id": run.model if not Path(run.model).is_dir() else str(Path(run.model).resolve()),
              "revision": notes["revision"], "code": notes["code"], "fingerprint": notes["fingerprint"],
              "parameters": notes["parameters"],
              "pooling": notes["pooling"], "layers": getattr(bare_model(model).config, "num_hidden_layers", None),
            "dtype": run.dtype,
              "head": list(notes["head"]), "method": _plain(run.method_config)},
        data={"dataset": run.dataset, "columns": run.columns, "fingerprints": fingerprints(results.data),
              "rows": {split: len(rows) for split, rows in results.data.items()},
              **{k: v for k, v in getattr(results.data, "tuner_notes", {}).items() if k != "audit"}},
        training=results.training,
        max_length=results.max_length,
        files=file_digests(run.folder, results.files),
    )  # fmt: skip
    write_text(run.folder / FILE, manifest.text())
    return manifest


def write_report(run: Run, model: Any, results: Measured, proofs: list[Proof], seconds: dict[str, float]) -> Report:
    """Score every split with intervals, beside its baselines, and write report.json, report.html and the card."""
    main = next((s for s in ("test", "validation") if s in results.kept), None)
    report = Report(
        task=run.task,
        method=run.method,
        model=run.model,
        dataset=run.dataset,
        metrics={split: _scores(results, split, kept) for split, kept in results.kept.items()},
        baselines=_baselines(results),
        rows={split: len(rows) for split, rows in results.data.items()},
        proofs=[asdict(p) for p in proofs],
        time=seconds,
        memory={"peak_mb": peak_megabytes()},
        audit=getattr(results.data, "tuner_notes", {}).get("audit", {}),
        parameters=_parameters(model, run.folder, results.files),
        files={name: (run.folder / name).stat().st_size for name in results.files},
        versions=versions(),
        command=command(),
        details={**_details(run, results, main), **_shape(model)},
    )
    report.write(run.folder)
    write_text(run.folder / "README.md", card(read_facts(run.folder)))
    return report


def peak_megabytes() -> float:
    """Peak memory: of the accelerator when there is one, otherwise resident memory of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def command() -> str:
    """The command line as it can be typed again."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _scores(results: Measured, split: str, kept: Kept) -> dict[str, dict[str, Any]]:
    return measured(results.task, kept, results.ready[split], results.data[split])


def _baselines(results: Measured) -> dict[str, Any]:
    train = results.ready["train"]
    named: dict[str, dict[str, Kept]] = {}
    for split in results.kept:
        for name, kept in results.task.baselines(train, results.ready[split], results.data[split]).items():
            named.setdefault(name, {})[split] = kept
    named |= {name: splits for name, splits in results.free.items() if splits}
    return {name: {s: _scores(results, s, kept) for s, kept in splits.items()} for name, splits in named.items()}


def _parameters(model: Any, folder: Path, files: list[str]) -> dict[str, int]:
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    saved = sum((folder / name).stat().st_size for name in files if name.endswith(".safetensors"))
    return {"total": total_parameters(model), "trainable": trainable, "saved_bytes": saved}


def _details(run: Run, results: Measured, main: str | None) -> dict[str, Any]:
    task = results.task
    details: dict[str, Any] = {
        "curves": results.history,
        "config": {**run.resolved(), **results.training},
        "data": {"fingerprints": fingerprints(results.data)},
        "notes": [
            *([task.note] if task.note else []),
            *(f"changed in the middle, {told}" for told in results.training.get("changed", [])),
            *getattr(results.data, "tuner_notes", {}).get("warnings", []),
            f"probe: {results.probe}",
            *([] if run.verify else [NOT_VERIFIED]),
        ],
    }
    if main is None:
        return details
    kept, ready, rows = results.kept[main], results.ready[main], results.data[main]
    shown = {
        "errors": task.worst(kept, ready, rows, results.processor),
        "drawn": task.drawn(kept, ready, rows, results.processor),
    }
    if not task.probes:
        return details | task.details(kept, ready, rows) | shown
    references = np.asarray(ready.with_format(None)["labels"])
    texts = rows[task.texts[0]][:] if task.texts else _files(rows[task.pictures[0]][:])
    found = describe(task.problem, np.asarray(kept), references, task.label_names, texts)
    return details | {name: value for name, value in shown.items() if value} | found


def _files(pictures: Sequence[Mapping[str, Any]]) -> list[str]:
    """What pictures are called, those without a file by their row."""
    return [Path(one["path"]).name if one["path"] else f"picture {row}" for row, one in enumerate(pictures)]


def _shape(model: Any) -> dict[str, Any]:
    """What plain transformers must be told to load the base under an adapter."""
    return {
        "pooling": model.tuner_notes["pooling"],
        "layers": getattr(bare_model(model).config, "num_hidden_layers", None),
    }


def _plain(config: Any) -> dict[str, Any]:
    return asdict(config) if config is not None else {}
