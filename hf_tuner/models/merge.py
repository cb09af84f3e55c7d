"""Merge an adapter into its base, and prove that the merged model answers as the adapter did."""

import shutil
from pathlib import Path
from typing import Any

from hf_tuner.console import say
from hf_tuner.errors import ArtifactError, UsageError


def merge(run: Path | str, output: Path | str | None = None, *, tolerance: float = 1e-5, force: bool = False) -> Path:
    """Fold the adapter of a run into the unquantised base and save the result as an ordinary model.

    The merged folder is reloaded in a fresh process; its logits on held rows must be within `tolerance` of the
    adapter's, relative to their scale. An adapter trained on a 4-bit base is merged into the full-precision base,
    where its answers differ: the drift is printed, and refused past the tolerance without `force` (field: merging
    into 4 bits destroys the adapter). Raises ArtifactError when refused.
    """
    from hf_tuner.evaluation.predict import logits_of
    from hf_tuner.evaluation.verify import held_rows, same_predictions
    from hf_tuner.models.restore import restore
    from hf_tuner.models.save import save_model

    folder = Path(run)
    target = Path(output) if output else folder / "merged"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--output {target} exists and is not an empty folder; choose another")
    saved = restore(folder)
    if saved.manifest.saves == "model":
        raise UsageError(f"{folder} holds a whole model ({saved.manifest.method}); there is nothing to merge")
    _refuse_unmergeable(saved.model, saved.manifest.method)
    rows = held_rows(_rows_of(folder))
    measured = logits_of(saved, rows)
    full = restore(folder, quantized=False).model
    merged = full.merge_and_unload(safe_merge=True)
    files = save_model(merged, saved.processor, target)
    _write_beside(folder, target, saved, files)
    proof = same_predictions(measured, target, rows, tolerance, name="merged = measured")
    say(f"  {'✓' if proof.passed else '✗'} {proof.name}: {proof.detail}")
    if not proof.passed and not force:
        shutil.rmtree(target)  # it was empty or absent before
        raise ArtifactError(
            f"the merged model drifts more than {tolerance:g} of the logits' scale and was not kept; "
            "--force keeps it, --tolerance allows more"
        )
    say(f"  merged model: {target} ({sum((target / f).stat().st_size for f in files) / 1e6:.0f} MB)")
    return target


def _rows_of(folder: Path) -> Any:
    from hf_tuner.data.load import load_data
    from hf_tuner.evaluation.evaluate import data_settings
    from hf_tuner.hub.manifest import read_manifest
    from hf_tuner.models.restore import task_class

    manifest = read_manifest(folder)
    data = load_data(data_settings(folder), task_class(manifest.task))
    return next(data[s] for s in ("test", "validation", "train") if s in data)


def _write_beside(folder: Path, target: Path, saved: Any, files: list[str]) -> None:
    """The merged folder is a run of its own: manifest with lineage, so that predict and evaluate take it."""
    from dataclasses import replace

    from hf_tuner.hub.manifest import FILE
    from hf_tuner.models.save import write_text

    lineage = [*saved.manifest.lineage, {"from": folder.name, "step": "merge", "method": saved.manifest.method}]
    write_text(target / FILE, replace(saved.manifest, saves="model", lineage=lineage).text())
    write_text(target / "run.yaml", (folder / "run.yaml").read_text(encoding="utf-8"))


def _refuse_unmergeable(model: Any, method: str) -> None:
    if not hasattr(model, "merge_and_unload") or model.active_peft_config.is_prompt_learning:
        raise UsageError(f"{method} adds virtual tokens, which no base model has a place for: it cannot be merged")
