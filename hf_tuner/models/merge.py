"""Merge an adapter into its base, and prove that the merged model answers as the adapter did."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hf_tuner.console import say, warn
from hf_tuner.errors import ArtifactError, TunerError, UsageError


def merge(run: Path | str, output: Path | str | None = None, *, tolerance: float = 1e-5, force: bool = False) -> Path:
    """Fold the adapter of a run into the unquantised base and save the result as an ordinary model.

    The merged folder is reloaded in a fresh process; its logits on held rows must be within `tolerance` of the
    adapter's, relative to their scale. An adapter trained on a 4-bit base is merged into the full-precision base,
    where its answers differ: the drift is printed, and refused past the tolerance without `force` (field: merging
    into 4 bits destroys the adapter). Raises ArtifactError when refused.
    """
    from hf_tuner.evaluation.predict import kept_of
    from hf_tuner.evaluation.verify import same_predictions
    from hf_tuner.hub.pull import local_run
    from hf_tuner.models.restore import restore
    from hf_tuner.models.save import save_model, write_files

    folder = local_run(run)
    target = Path(output) if output else _beside(run, folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--output {target} exists and is not an empty folder; choose another")
    _require_records(folder)
    saved = restore(folder)
    if saved.manifest.saves == "model":
        raise UsageError(f"{folder} holds a whole model ({saved.manifest.method}); there is nothing to merge")
    _refuse_unmergeable(saved.model, saved.manifest.method)
    rows = _rows_of(saved)
    measured, _ = kept_of(saved, rows)
    full = restore(folder, quantized=False).model
    merged = _untied(full.merge_and_unload(safe_merge=True))
    beside = saved.task.files(saved.manifest.max_length)
    files = save_model(merged, saved.processor, target, lambda aside: write_files(aside, beside))
    _write_manifest(target, saved, files, str(run) if _on_hub(run) else folder.name)
    proof = same_predictions(measured, target, rows, tolerance, "merged = measured", roughly=saved.task.roughly)
    say(f"  {'✓' if proof.passed else '✗'} {proof.name}: {proof.detail}")
    if not proof.passed and not force:
        shutil.rmtree(target)  # it was empty or absent before
        raise ArtifactError(
            f"the merged model drifts more than {tolerance:g} of the logits' scale and was not kept; "
            "--force keeps it, --tolerance allows more"
        )
    _write_records(folder, target, files, proof)
    say(f"  merged model: {target} ({sum((target / f).stat().st_size for f in files) / 1e6:.0f} MB)")
    return target


def _untied(model: Any) -> Any:
    """The model, told that its output layer is one of its own where it is.

    An adapter trains a new output layer as a copy; tied again when it is loaded, it would be the embeddings.
    """
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is None or output.weight is model.get_input_embeddings().weight:
        return model
    model.config.tie_word_embeddings = False
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:  # a bias that two modules share is saved once and would be missed by one
                setattr(module, name, type(parameter)(parameter.detach().clone(), parameter.requires_grad))
            seen.add(id(parameter))
    return model


def _on_hub(run: Path | str) -> str:
    """The repository's own name when the run lies on the Hub, else ""."""
    from hf_tuner.hub.address import parse_address

    address = parse_address(str(run))
    return address.repo.split("/")[1] if address else ""


def _beside(run: Path | str, folder: Path) -> Path:
    """RUN/merged; for a run on the Hub NAME-merged, here."""
    name = _on_hub(run)
    return Path(f"{name}-merged") if name else folder / "merged"


def _rows_of(saved: Any) -> Any:
    """Held rows of the run's own data; where that is not at hand (a run from the Hub), rows of the task's."""
    from hf_tuner.data.load import load_data
    from hf_tuner.evaluation.evaluate import data_settings
    from hf_tuner.evaluation.verify import held_rows, sample_rows

    try:
        data = load_data(data_settings(saved.folder, saved.task), type(saved.task))
    except TunerError as error:
        rows = sample_rows(saved.task)
        warn(f"the run's data is not at hand ({str(error).splitlines()[0]}); {len(rows)} texts of ours are compared")
        return rows
    return held_rows(next(data[s] for s in ("test", "validation", "train") if s in data), saved.task.targets)


def _write_manifest(target: Path, saved: Any, files: list[str], origin: str) -> None:
    """The merged folder is a run of its own: manifest with lineage, so that predict and evaluate take it."""
    from hf_tuner.hub.manifest import FILE, file_digests
    from hf_tuner.models.save import write_text

    lineage = [*saved.manifest.lineage, {"from": origin, "step": "merge", "method": saved.manifest.method}]
    merged = replace(saved.manifest, saves="model", lineage=lineage, files=file_digests(target, files))
    write_text(target / FILE, merged.text())


def _require_records(folder: Path) -> None:
    """Raise ArtifactError when what stands beside the weights is missing or broken: before the work, not after it."""
    from hf_tuner.report.report import Report

    Report.read(folder)
    if not (folder / "run.yaml").is_file():
        raise ArtifactError(
            f"{folder / 'run.yaml'} is missing; restore it from a copy, pull the run again, or train again"
        )


def _write_records(folder: Path, target: Path, files: list[str], proof: Any) -> None:
    """Settings, report and card beside the merged model, so that it can be pushed like any run."""
    from hf_tuner.hub.card import card, read_facts
    from hf_tuner.models.save import write_text
    from hf_tuner.report.report import Report

    write_text(target / "run.yaml", (folder / "run.yaml").read_text(encoding="utf-8"))
    report = Report.read(folder)
    sizes = {name: (target / name).stat().st_size for name in files}
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    merged = replace(report, files=sizes, proofs=[*report.proofs, asdict(proof)],
                     parameters={**report.parameters, "saved_bytes": weights})  # fmt: skip
    write_text(target / "report.json", merged.text())
    write_text(target / "README.md", card(read_facts(target)))


def _refuse_unmergeable(model: Any, method: str) -> None:
    if not hasattr(model, "merge_and_unload") or model.active_peft_config.is_prompt_learning:
        raise UsageError(f"{method} adds virtual tokens, which no base model has a place for: it cannot be merged")
