"""The frozen probe beside every run, and the probe as the way in for a new head."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import say
from hf_tuner.data.splits import keep
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.loop import take, to_device
from hf_tuner.models.convnets import meet
from hf_tuner.models.fingerprint import weights_digest
from hf_tuner.models.load import bare_model
from hf_tuner.models.processors import tokenizer_in
from hf_tuner.tasks._labels import majority_logits
from hf_tuner.training.features import Features, Reader, cached, last_linears
from hf_tuner.training.objective import label_counts
from hf_tuner.training.probe import fit_linear, fit_probe, write_head

KNOWS = 0.7
"""The least that a fitted head must explain to be the way in. One that explains less is steep, and the first steps tear
it. Measured with MiniLM and LoRA: banking77 96 %, fitted 93.2 %; SST-2 50 %, fitted 84.1 % and from noise
86.1 % on 7,000 rows; for numbers (STS-B, 2,000 pairs) fitted Pearson 0.71, from noise 0.79."""


MET, BATCH = 2_048, 64
"""Rows that batch norms meet before training, and how many at once."""


@dataclass(frozen=True)
class WayIn:
    """What the probe gave: its logits by evaluation split, and whether it set the head."""

    logits: dict[str, list[np.ndarray]]
    """One [classes] for each row."""
    set_head: bool
    note: str
    explained: float
    """How much of the task the head knows before training, 0 to 1: the share of the loss of always saying the commonest
    thing that it takes away on the training rows. 0 for a head that starts from noise, 1 for one that was trained."""


def way_in(run: Run, task: Any, model: Any, collate: Callable, data: dict[str, Any], processor: Any) -> WayIn:
    """Fit the probe, and the head where the run asks for it, on at most `run.probe_rows` training rows.

    `data` maps splits to encoded rows. A method that is trained by the way in sees every training row. Raises
    UsageError when such a method meets a head that cannot be fitted.
    """
    if model.tuner_notes["batch_norm"] == "train":
        _met(run, task, model, collate, data["train"])
    method = catalog.load("methods", run.method)
    new_head = bool(model.tuner_notes["new_head"])
    start = start_of(new_head)
    if not task.probes:
        if new_head and task.label_names:
            start_at(model, _shares(task, data["train"]))
        return WayIn({}, False, _no_probe(run, task, method), start)
    wanted = wants_probe(run, method, new_head)
    classes = max(1, len(task.label_names))
    if new_head:
        always = majority_logits(data["train"].with_format(None)["labels"][:], task.problem, classes, 1)
        # Softmax ignores a common shift, and numbers near 0 are the ones that a half precision holds best.
        start_at(model, always[0] - always[0].mean() if task.problem == "single" else always[0])
    whole = getattr(method, "TRAINED_BY_WAY_IN", False)
    if whole and not wanted:
        raise UsageError(f"--method {run.method} is the probe itself; it has no --way-in {run.way_in}")
    if run.probe_rows == 0 and not wanted:
        return WayIn({}, False, "none: --probe-rows 0", start)
    rows = data["train"] if whole or not run.probe_rows else sample(data["train"], run.probe_rows, run.seed)
    features = _read(model, {"train": rows, **{s: d for s, d in data.items() if s != "train"}}, collate, processor)
    if features is None:
        if whole or run.way_in == "probe":
            raise UsageError(
                f"--method {run.method}: the head of this model cannot be fitted on frozen features; use lora or full"
            )
        return WayIn({}, False, "none: this model's head does not read one state a row", start)
    targets = np.asarray(rows.with_format(None)["labels"])
    targets = targets.astype(np.int64 if task.problem == "single" else np.float32)
    probe = fit_probe(features["train"].mean, targets, task.problem, classes)
    if wanted:
        own, copy = last_linears(bare_model(model), model.tuner_notes["head"])
        head = fit_linear(features["train"].entry, targets, task.problem, classes)
        known = explained(head(features["train"].entry), targets, task.problem, classes)
        wanted = known >= KNOWS or run.way_in == "probe" or getattr(method, "WAY_IN", None) == "probe"
        said = f"frozen features explain {known:.0%} of the training loss: the head starts from {'them' if wanted else 'noise'}"
        say(f"  way in    {said}")
    if wanted:
        write_head(copy or own, head)
        start = known
    note = f"{len(rows):,} rows" + ("; the head starts from the frozen features (LP-FT)" if wanted else "")
    return WayIn({s: list(probe(f.mean)) for s, f in features.items() if s != "train"}, wanted, note, start)


def _met(run: Run, task: Any, model: Any, collate: Callable, rows: Any) -> None:
    """Batch norms that follow the batches begin with the statistics of the run's own rows."""
    few = sample(rows, MET, run.seed)
    order = np.random.default_rng(run.seed).permutation(len(few))
    parts = np.array_split(order, -(-len(few) // BATCH))
    device = bare_model(model).device
    meet(model, (to_device(collate(take(few, part)), device) for part in parts), task.outputs)
    say(f"  norms     statistics of {len(few):,} rows of train")


def start_of(new_head: bool) -> float:
    """How much a head explains that no probe has set: nothing when it is new."""
    return 0.0 if new_head else 1.0


def explained_before(run: Run, task: Any, new_head: bool) -> float | None:
    """What `WayIn.explained` will be; None where the probe will tell."""
    if task.probes and wants_probe(run, catalog.load("methods", run.method), new_head):
        return None
    return start_of(new_head)


def _shares(task: Any, rows: Any) -> np.ndarray:
    """Log shares [classes] of the labels of rows with several each, where -100 is none.

    A head that starts from noise is first of all pushed towards a commonest class. Where nearly all labels are of one
    class, that push alone takes the features along: with MiniLM and LoRA on wnut_17 nothing else was learned.
    """
    counts = label_counts(task, rows)
    logits = np.log(np.maximum(counts / counts.sum(), 1e-9)).astype(np.float32)
    return np.asarray(logits - logits.mean())


def _no_probe(run: Run, task: Any, method: Any) -> str:
    """Why there is no probe. Raises UsageError when it was asked for."""
    # head-only trains in steps instead; lp-ft would be full fine-tuning under another name.
    needs = getattr(method, "WAY_IN", None) == "probe" and not getattr(method, "TRAINED_BY_WAY_IN", False)
    if run.way_in == "probe" or needs:
        asked = f"--method {run.method}" if needs else "--way-in probe"
        raise UsageError(
            f"{asked}: {run.task} has no one state a row that a probe is fitted on; use --method full or lora"
        )
    return f"none: {run.task} reads more than one state a row"


def trained_by_probe(method: Any, task: Any) -> bool:
    """Whether fitting the probe is the whole training: head-only, where the task's head reads one state a row."""
    return bool(getattr(method, "TRAINED_BY_WAY_IN", False) and task.probes)


def wants_probe(run: Run, method: Any, new_head: bool) -> bool:
    """Whether the probe may set the head: as asked, or as the method prefers where the task has a new head."""
    if run.way_in != "auto":
        return run.way_in == "probe"
    own = getattr(method, "WAY_IN", None)
    return own == "probe" or (own is None and new_head)


def explained(logits: np.ndarray, targets: np.ndarray, problem: str, classes: int) -> float:
    """The share, 0 to 1, of the majority's loss on the same rows that logits [rows, classes] take away."""
    always = majority_logits(list(targets), problem, classes, len(targets))
    left, whole = (_loss(values, targets, problem) for values in (logits, always))
    return float(np.clip(1 - left / max(whole, 1e-9), 0.0, 1.0))


def start_at(model: Any, logits: np.ndarray) -> None:
    """Set the bias of a new head to what is right on average, logits [classes]: shares of classes or labels, the mean."""
    for last in last_linears(bare_model(model), model.tuner_notes["head"], maps=True):
        if last is not None and last.bias is not None:
            with torch.no_grad():
                last.bias.copy_(torch.from_numpy(logits))


def _loss(logits: np.ndarray, targets: np.ndarray, problem: str) -> float:
    values, right = torch.from_numpy(np.asarray(logits, np.float32)), torch.from_numpy(targets)
    if problem == "regression":
        return float((values.reshape(-1) - right.reshape(-1)).square().mean())
    if problem == "multi":
        return float(torch.nn.functional.binary_cross_entropy_with_logits(values, right.float()))
    return float(torch.nn.functional.cross_entropy(values, right))


def sample(rows: Any, count: int, seed: int) -> Any:
    """At most `count` rows, chosen with a seed, in their order."""
    if len(rows) <= count:
        return rows
    index = np.random.default_rng(seed).permutation(len(rows))[:count]
    return keep(rows, np.sort(index))


def _settings(processor: Any) -> str:
    """How an image processor makes numbers of pictures, as text."""
    plain = {name: value for name, value in processor.to_dict().items() if not callable(value)}
    return f"{type(processor).__name__} {json.dumps(plain, sort_keys=True, default=str)}"


def _read(model: Any, splits: dict[str, Any], collate: Callable, processor: Any) -> dict[str, Features] | None:
    reader = Reader(model, model.tuner_notes["head"])
    if not reader.possible:
        return None
    key = [type(reader.bare).__name__, str(reader.bare.dtype), weights_digest(reader.bare)]
    key += [_settings(processor)] if tokenizer_in(processor) is None else []
    found: dict[str, Features] = {}
    hits = []
    for split, rows in splits.items():
        features, hit = cached(reader, rows, collate, key)
        if features is None:
            return None
        found[split] = features
        hits.append(hit)
    say(f"  features  {sum(map(len, splits.values())):,} rows, frozen" + (" (from the cache)" if all(hits) else ""))
    return found
