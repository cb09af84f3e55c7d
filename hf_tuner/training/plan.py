"""What a run would do, from configurations alone: no weights are downloaded and nothing is trained."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import count, duration, say, table
from hf_tuner.data.load import load_data
from hf_tuner.models.load import bare_model, expected_new, sketch_model, whole_head
from hf_tuner.models.pooling import freeze_mean, layer_name
from hf_tuner.models.processors import load_processor, load_task, max_length
from hf_tuner.models.restore import task_class
from hf_tuner.models.targets import find_targets
from hf_tuner.training.arguments import further, training_arguments
from hf_tuner.training.footprint import footprint
from hf_tuner.training.proofs import saved_bytes, trainable_table
from hf_tuner.training.way_in import explained_before, trained_by_probe

Facts = list[tuple[str, str]]
"""Lines of the plan: what, and how much."""
SAMPLE = 500
CHARACTERS_PER_TOKEN = 4.0


def plan(run: Run) -> str:
    """The plan of a run as text: trainable table, memory in GB, time on this machine."""
    kind = task_class(run.task)
    data = load_data(run, kind)
    task = load_task(run, kind, data)
    model = on_meta(run, task)
    method = catalog.load("methods", run.method)
    arguments = training_arguments(run, model.tuner_notes["parameters"], len(data["train"]), "validation" in data)
    # The probe reads every row once, whatever the epochs.
    passes = len(data["train"]) * (1.0 if trained_by_probe(method, task) else float(arguments.num_train_epochs))
    costs = _of_pictures if task.pictures and not task.sees else _of_tokens
    facts = [
        ("rows", ", ".join(f"{s} {count(len(rows))}" for s, rows in data.items())),
        ("learning rate", "{:g} {}".format(*learning_rate(run, task, model))),
        ("will be saved", f"{saved_bytes(model, method.SAVES) / 1e6:.1f} MB ({method.SAVES})"),
        *costs(run, task, data["train"], model, arguments.train_batch_size, passes),
    ]
    return f"\n{trainable_table(model)}\n\n{table(('plan', ''), facts)}"


def _of_tokens(run: Run, task: Any, rows: Any, model: Any, batch: int, passes: float) -> Facts:
    """Memory and time of texts, by their tokens; `passes` is how many rows are trained on in all."""
    tokens, longest = _tokens(run, task, rows, bare_model(model).config)
    flops, speed = training_flops(model, tokens * passes), _flops_per_second()
    return [
        ("tokens per row", f"{tokens:.0f} on average, {longest} at most in the rows looked at"),
        *_memory(memory_bytes(model, batch, longest)),
        ("compute", f"{flops:.1e} floating-point operations"),
        ("time here", f"about {duration(flops / speed)} of training (this machine: {speed / 1e9:.0f} GFLOP/s)"),
    ]


def _of_pictures(run: Run, task: Any, rows: Any, model: Any, batch: int, passes: float) -> Facts:
    """Memory and time of pictures, by what a forward pass of one does."""
    cost = footprint(run, task, rows, model)
    if isinstance(cost, str):
        return [("memory, time", f"not estimated: {cost}")]
    weights = memory_bytes(model, batch, 0)
    share = weights["gradients"] / weights["weights"]
    heads = tuple(f".{name}." for name in model.tuner_notes["head"])
    inside = any(p.requires_grad and not any(h in f".{n}." for h in heads) for n, p in model.named_parameters())
    flops, speed = cost.flops * passes * (1 + inside + share), _flops_per_second()
    parts = {**weights, "activations": float(cost.kept * batch)}
    parts["sum"] = sum(value for name, value in parts.items() if name != "sum")
    return [
        ("a picture", f"{cost.shape} pixels, {cost.flops:.1e} floating-point operations forward"),
        *_memory(parts),
        ("compute", f"{flops:.1e} floating-point operations"),
        # Convolutions are further from the rate of matrices than attention, and pictures are opened as well.
        ("time here", f"{duration(flops / speed)} of training at least (this machine: {speed / 1e9:.0f} GFLOP/s)"),
    ]


def _memory(parts: dict[str, float]) -> Facts:
    return [(f"memory: {name}", f"{value / 1e9:.2f} GB") for name, value in parts.items()]


def learning_rate(run: Run, task: Any, model: Any) -> tuple[float, str]:
    """The rate that training will have, and why; `model` is that of `on_meta`."""
    notes, given = model.tuner_notes, run.training.get("learning_rate")
    if given is not None:
        return float(given), "as given"
    plain = catalog.load("methods", run.method).learning_rate(notes["parameters"])
    usual = f"for {run.method} at {count(notes['parameters'])} parameters"
    explained = explained_before(run, task, bool(notes["new_head"]))
    if explained == 1.0:
        return plain, usual
    noise = f"{usual} and a new head"
    return further(
        plain, 0.0
    ), noise if explained == 0.0 else f"{noise}; down to {plain:g} where frozen features know the task"


def memory_bytes(model: Any, batch: int, tokens: int) -> dict[str, float]:
    """Bytes by kind for one device in float32 with AdamW: weights, gradients, optimiser, activations, and the sum.

    Activations follow Korthikanti et al. 2022 (arXiv 2205.05198), eq. 2, doubled for float32.
    """
    config = bare_model(model).config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers = _size(text, "num_hidden_layers", 12)
    hidden = _size(text, "hidden_size", 768)
    heads = _size(text, "num_attention_heads", 12)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    activations = 2.0 * tokens * batch * hidden * layers * (34 + 5 * heads * tokens / hidden)
    parts = {
        "weights": 4.0 * total,
        "gradients": 4.0 * trainable,
        "optimiser": 8.0 * trainable,
        "activations": activations,
    }
    return {**parts, "sum": sum(parts.values())}


def _size(config: Any, name: str, usual: int) -> int:
    """A size of the configuration; the largest where it has one for each stage, as SegFormer does."""
    value = getattr(config, name, usual) or usual
    return max(value) if isinstance(value, list | tuple) else int(value)


def training_flops(model: Any, tokens: float) -> float:
    """Floating-point operations: 2 per weight and token forward, 2 back through activations, 2 for trained weights.

    Embedding tables are look-ups and count for nothing (Kaplan et al. 2020, arXiv 2001.08361).
    """
    weights = [(n, p) for n, p in model.named_parameters() if "embed" not in n and p.ndim >= 2]
    total = sum(p.numel() for _, p in weights)
    trained = sum(p.numel() for _, p in weights if p.requires_grad)
    return tokens * (4.0 * total + 2.0 * trained)


def on_meta(run: Run, task: Any) -> Any:
    """The model of a run with its method, on the meta device: shapes without weights. It carries `tuner_notes`."""
    method = catalog.load("methods", run.method)
    settings = run.method_config
    if getattr(settings, "init_lora_weights", "default") not in ("default", "gaussian"):
        settings = replace(settings, init_lora_weights="default")  # the others need the weights themselves
    model, pooling = sketch_model(run, task)
    fresh = expected_new(run, task, model, pooling)
    with torch.device("meta"):
        averaging = (layer_name(model),) if pooling else ()
        head = whole_head(model, task, fresh or ())
        targets = find_targets(model, (*head, *averaging), getattr(settings, "target_modules", None))
        parameters = sum(p.numel() for p in model.parameters())
        targets = replace(targets, layers=tuple(name for name in targets.layers if name not in averaging))
        adapted = method.adapt(model, settings, targets)
        if averaging and method.SAVES == "adapter":
            freeze_mean(adapted, averaging[0])
    adapted.tuner_notes = {
        "head": head,
        "new_head": head if fresh is None else fresh,
        "targets": targets,
        "parameters": parameters,
    }
    return adapted


def _tokens(run: Run, task: Any, rows: Any, config: Any) -> tuple[float, int]:
    """Mean and largest number of tokens in a sample of rows; characters over four when no tokenizer is at hand."""
    picked = rows.select(range(0, len(rows), max(1, len(rows) // SAMPLE)))
    try:
        tokenizer = load_processor(run, task)
    except Exception as error:
        say(f"  note      no tokenizer ({error}); four characters are taken for a token")
        lengths = [len(str(t)) / CHARACTERS_PER_TOKEN for t in picked[task.texts[0]]]
        return float(np.mean(lengths)), int(max(lengths))
    encode = task.encode(tokenizer, max_length(run, tokenizer, config))
    lengths = encode({name: picked[name][:] for name in picked.column_names if name != "label"})["length"]
    return float(np.mean(lengths)), int(max(lengths))


def _flops_per_second() -> float:
    """What this machine does with matrices of the size that models have: a fifth of a second of measuring."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left = torch.randn(512, 768, device=device)
    right = torch.randn(768, 768, device=device)
    left @ right
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.2:
        left @ right
        done += 1
    if device == "cuda":
        torch.cuda.synchronize()
    # Half of the matrix rate is what training reaches, softmax, norms and data movement included.
    return done * 2 * 512 * 768 * 768 / (time.perf_counter() - start) / 2
