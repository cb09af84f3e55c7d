"""The frozen probe beside every run, and the probe as the way in for a new head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import say
from hf_tuner.data.splits import keep
from hf_tuner.errors import UsageError
from hf_tuner.models.fingerprint import weights_digest
from hf_tuner.models.load import bare_model
from hf_tuner.training.features import Features, Reader, cached, last_linears
from hf_tuner.training.probe import fit_linear, fit_probe, write_head


@dataclass(frozen=True)
class WayIn:
    """What the probe gave: its logits [rows, classes] on each evaluation split, and whether it set the head."""

    logits: dict[str, np.ndarray]
    set_head: bool
    note: str


def way_in(run: Run, task: Any, model: Any, collate: Callable, data: dict[str, Any]) -> WayIn:
    """Fit the probe, and the head where the run asks for it, on at most `run.probe_rows` training rows.

    `data` maps splits to encoded rows. A method that is trained by the way in sees every training row. Raises
    UsageError when such a method meets a head that cannot be fitted.
    """
    method = catalog.load("methods", run.method)
    wanted = wants_probe(run, method, bool(model.tuner_notes["new_head"]))
    whole = getattr(method, "TRAINED_BY_WAY_IN", False)
    if whole and not wanted:
        raise UsageError(f"--method {run.method} is the probe itself; it has no --way-in {run.way_in}")
    if run.probe_rows == 0 and not wanted:
        return WayIn({}, False, "none: --probe-rows 0")
    rows = data["train"] if whole or not run.probe_rows else sample(data["train"], run.probe_rows, run.seed)
    features = _read(model, {"train": rows, **{s: d for s, d in data.items() if s != "train"}}, collate)
    if features is None:
        if whole or run.way_in == "probe":
            raise UsageError(
                f"--method {run.method}: the head of this model cannot be fitted on frozen features; use lora or full"
            )
        return WayIn({}, False, "none: this model's head does not read one state a row")
    targets = np.asarray(rows.with_format(None)["labels"])
    targets = targets.astype(np.int64 if task.problem == "single" else np.float32)
    classes = max(1, len(task.labels.names))
    probe = fit_probe(features["train"].mean, targets, task.problem, classes)
    if wanted:
        own, copy = last_linears(bare_model(model), model.tuner_notes["head"])
        write_head(copy or own, fit_linear(features["train"].entry, targets, task.problem, classes))
    note = f"{len(rows):,} rows" + ("; the head starts from the frozen features (LP-FT)" if wanted else "")
    return WayIn({s: probe(f.mean) for s, f in features.items() if s != "train"}, wanted, note)


def wants_probe(run: Run, method: Any, new_head: bool) -> bool:
    """Whether the probe sets the head: as asked, or as the method prefers where the task has a new head."""
    if run.way_in != "auto":
        return run.way_in == "probe"
    own = getattr(method, "WAY_IN", None)
    return own == "probe" or (own is None and new_head)


def sample(rows: Any, count: int, seed: int) -> Any:
    """At most `count` rows, chosen with a seed, in their order."""
    if len(rows) <= count:
        return rows
    index = np.random.default_rng(seed).permutation(len(rows))[:count]
    return keep(rows, np.sort(index))


def _read(model: Any, splits: dict[str, Any], collate: Callable) -> dict[str, Features] | None:
    reader = Reader(model, model.tuner_notes["head"])
    if not reader.possible:
        return None
    key = [type(reader.bare).__name__, str(reader.bare.dtype), weights_digest(reader.bare)]
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
