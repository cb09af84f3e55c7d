"""Load what a run saved: its task, its processor and its model, on the base it was trained on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from hf_tuner import catalog
from hf_tuner.catalog import task_class
from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.hub.manifest import FILE, Manifest, check_files, damage, read_manifest
from hf_tuner.hub.pull import local_run
from hf_tuner.models.fingerprint import base_fingerprint, same_base
from hf_tuner.models.foreign import config_of, model_of, processor_of, sketch_of
from hf_tuner.models.load import (
    DTYPES,
    align,
    bare_model,
    hub_errors,
    leave_out,
    less_noise,
    read_weights,
    sketch_head,
    sketch_model,
    to_accelerator,
)
from hf_tuner.models.pooling import write_mean
from hf_tuner.models.processors import NEEDED, check_vocabulary, share_padding, tokenizer_in
from hf_tuner.models.safety import inspect
from hf_tuner.models.save import check_tensors
from hf_tuner.models.trust import require_consent


@dataclass(frozen=True)
class Restored:
    """A saved run, ready to predict."""

    folder: Path
    manifest: Manifest
    task: Any
    processor: Any
    model: Any


def restore(run: Path | str, *, quantized: bool = True, base: str | None = None) -> Restored:
    """Load a run, from its folder or from the Hub (user/name@revision), into evaluation mode.

    `quantized=False` puts a QLoRA adapter on the unquantised base; `base` says where the base lies now. Raises
    ArtifactError when files are missing, damaged, empty or belong to another base.
    """
    folder = local_run(run)
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    inspect(folder)
    require_consent(manifest.base["id"], manifest.base["revision"], bool(manifest.base.get("code")), folder)
    if base:
        manifest = replace(manifest, base={**manifest.base, "id": base})
    task = restore_task(manifest)
    check_tensors(folder)
    what = NEEDED[task.processor][0]
    with damage(folder, f"the {what}"), hub_errors(what, str(folder)):
        processor = processor_of(task.processor, str(folder))
        tokenizer = tokenizer_in(processor)
        if tokenizer is not None and tokenizer.pad_token is None:
            raise ValueError("it has no padding token")
    task.dress(processor)
    less_noise()
    if manifest.saves == "model":
        with damage(folder, "the model"):
            model = _whole(folder, manifest, getattr(transformers, task.auto_model))
            leave_out(model, task)
    else:
        model = _on_base(folder, manifest, task, quantized)
    check_vocabulary(processor, bare_model(model).config)
    share_padding(model, processor)
    align(model)
    return Restored(folder, manifest, task, processor, to_accelerator(model).eval())


def restore_task(manifest: Manifest) -> Any:
    """The task of a manifest: labels in their order, and how rows become tensors."""
    with damage(Path(FILE), "the task"):
        try:
            kind = task_class(manifest.task)
        except UsageError as error:  # nobody typed it: the file says so
            raise ArtifactError(f"{FILE} is damaged: {error}") from error
        return kind.restore(manifest.settings)


def load_bare(manifest: Manifest, task: Any, *, quantized: bool) -> Any:
    """The base model under an adapter, verified against the manifest's fingerprint."""
    base = manifest.base
    pooling = "mean" if base["pooling"] else "first"
    run = Run(model=base["id"], model_revision=base["revision"], output_dir=".", dtype=base["dtype"], pooling=pooling)
    method = catalog.load("methods", manifest.method)
    sketch, pooled = sketch_model(run, task)
    extra = {}
    if quantized and hasattr(method, "quantization"):
        extra["quantization_config"] = method.quantization(_config(method, base["method"]), sketch_head(sketch, pooled))
    model, _ = read_weights(run, task, sketch, extra)
    if pooled:
        write_mean(model)
    found = base_fingerprint(model, skip=tuple(base["head"]))
    if not same_base(found, base["fingerprint"]):
        raise ArtifactError(
            f"{run.model} is not the base this adapter was trained on: fingerprint {found}, expected "
            f"{base['fingerprint']}. Use the same revision ({base['revision'] or 'local folder'})."
        )
    return model


def _config(method: Any, settings: dict[str, Any]) -> Any:
    try:
        return method.Config(**settings)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"manifest.json is damaged: base.method cannot be read ({error})") from error


def _whole(folder: Path, manifest: Manifest, auto: Any) -> Any:
    """The model of a folder; code it needs is that of its base, at the base's commit."""
    code = (manifest.base["id"], manifest.base["revision"])
    with hub_errors("model", str(folder)):
        sketch = sketch_of(auto, config_of(str(folder), None, code), str(folder), code)
        return model_of(auto, sketch, str(folder), None, code, dtype=DTYPES[manifest.base["dtype"]])


def _on_base(folder: Path, manifest: Manifest, task: Any, quantized: bool) -> Any:
    from hf_tuner.methods._peft import reload

    with damage(folder / FILE, "the base model"):
        base = load_bare(manifest, task, quantized=quantized)
    with damage(folder, f"the adapter for {manifest.base['id']}"):
        return reload(base, str(folder))
