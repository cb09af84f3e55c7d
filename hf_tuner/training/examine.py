"""What must fit before weights are read: texts into positions, ids into embeddings, checkpoints onto the disk."""

import math
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import count, say, warn
from hf_tuner.data.places import require_cache, require_output, standing
from hf_tuner.data.texts import share
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.models.load import load_config
from hf_tuner.models.processors import check_vocabulary, max_length, tokenizer_in
from hf_tuner.training.arguments import epochs, rows_per_update
from hf_tuner.training.plan import on_meta
from hf_tuner.training.proofs import saved_bytes

SAMPLE = 2_000
"""Rows whose tokens are counted."""
SAMPLE_OF_PICTURES = 200
"""Where a row's pictures decide about them: those lie in memory together."""
MANY_CUT = 0.05
"""The share of rows cut past which it is a warning."""
OPTIMIZER_BYTES = 8
"""AdamW keeps two numbers for each trainable weight."""
AVERAGE_BYTES = 4
"""And --ema one."""


def examine(run: Run, task: Any, processor: Any, data: Any) -> Any:
    """Look at model, disk and folders for these rows, print what was found and add it to the data's notes.

    Returns the data. Raises EnvironmentFault when a folder cannot be written or the disk is too small for the
    checkpoints to come, ArtifactError when the tokenizer does not belong to the model.
    """
    notes = getattr(data, "tuner_notes", {})
    facts, kept = notes.setdefault("audit", {}), notes.setdefault("warnings", [])
    if "disk" in facts:
        return data  # the recipe has asked already
    require_output(run.folder)
    require_cache()
    config = load_config(run)
    task.require_model(config, run.model)
    check_vocabulary(tokenizer_in(processor), config)
    lines = {}
    said: list[str] = []
    if tokenizer_in(processor) is not None:
        lines["tokens"], facts["tokens"], said = tokens(run, task, processor, config, data["train"])
        lines["tokenizer"], facts["tokenizer"] = _vocabulary(tokenizer_in(processor), config)
    if task.pictures:
        lines["processor"] = task.reads_as(processor)
    lines["disk"], facts["disk"] = disk(run, task, data["train"].num_rows)
    for name, text in lines.items():
        say(f"{name:<9} {text}")
    for warning in said:
        warn(warning)
        kept.append(warning)
    data.tuner_notes = notes
    return data


def tokens(
    run: Run, task: Any, processor: Any, config: Any, rows: Any
) -> tuple[str, dict[str, int | float], list[str]]:
    """A line, facts and warnings about how long a sample of the training rows is beside what the model takes."""
    method = catalog.load("methods", run.method)
    reserved = method.reserved_tokens(run.method_config) if hasattr(method, "reserved_tokens") else 0
    limit = max_length(run, processor, config) - reserved
    if reserved and limit < 1:
        raise UsageError(f"--method {run.method}: {reserved} virtual tokens leave no room for a text among the {limit + reserved} "
                         "tokens that are read at once; fewer: --num-virtual-tokens 8")  # fmt: skip
    can = max_length(replace(run, max_length=None), processor, config) - reserved
    most = SAMPLE_OF_PICTURES if task.sees else SAMPLE
    picked = rows.select(range(0, len(rows), max(1, math.ceil(len(rows) / most))))
    # One more than the limit: what reaches it is cut. Nothing longer is ever tokenised.
    encode = task.encode(processor, limit if task.splits else limit + 1)
    lengths = np.array(
        encode({n: picked[n][:] for n in picked.column_names if n != "label" and (task.sees or n not in task.carried)})[
            "length"
        ]
    )
    cut = int((lengths > limit).sum())
    half, most = (int(min(v, limit)) for v in np.percentile(lengths, [50, 95]))
    if task.splits:
        return _split(lengths, limit, len(picked))
    looked = "all rows" if len(picked) == len(rows) else f"{count(len(picked))} rows looked at"
    line = f"half up to {half}, 95 % up to {most} of {limit} ({looked}); "
    line += f"{share(cut / len(lengths))} of the rows are cut" if cut else "none is cut"
    facts = {"limit": limit, "p50": half, "p95": most, "looked_at": len(picked), "cut": round(cut / len(lengths), 4)}
    if cut <= MANY_CUT * len(lengths):
        return line, facts, []
    more = f"--max-length {can} keeps more" if can > limit else "the model takes no more"
    return line, facts, [f"train: {share(cut / len(lengths))} of the rows have over {limit} tokens and are cut; {more}"]


def _split(lengths: np.ndarray, limit: int, rows: int) -> tuple[str, dict[str, int | float], list[str]]:
    """The line and the facts of a task that makes several rows of a long one."""
    half, most, top = (int(min(v, limit)) for v in np.percentile(lengths, [50, 95, 100])) if len(lengths) else (0, 0, 0)
    pieces = len(lengths) / max(1, rows)
    line = f"half up to {half}, 95 % up to {most}, longest {top} of {limit}; {pieces:.2f} pieces a row, none is cut"
    facts = {"limit": limit, "p50": half, "p95": most, "looked_at": rows, "cut": 0.0, "pieces": round(pieces, 4)}
    return line, facts, []


def disk(run: Run, task: Any, rows: int) -> tuple[str, dict[str, int]]:
    """A line and facts about the space that checkpoints and result will take. Raises EnvironmentFault when it is not there."""
    sizes = _sizes(run, task)
    if sizes is None:
        return "not known before the weights are read", {}
    saved, trainable = sizes
    whole = bool(run.training.get("save_only_model"))
    more = (0 if whole else OPTIMIZER_BYTES) + (AVERAGE_BYTES if run.ema is not None else 0)
    checkpoint = saved + more * trainable
    number = checkpoints(run, rows)
    need = number * checkpoint + saved
    place = standing(run.folder)
    free = shutil.disk_usage(place).free
    facts = {"checkpoints": number, "checkpoint_bytes": checkpoint, "result_bytes": saved}
    line = (
        f"{size(need)} for the result"
        + (f" and {number} checkpoint{'s' * (number != 1)}" if number else "")
        + f", {size(free)} free"
    )
    if need > free:
        smaller = ", --method lora" if catalog.load("methods", run.method).SAVES == "model" else ""
        raise EnvironmentFault(
            f"the disk is too small: {run.folder} needs {size(need)} ({number} checkpoints of {size(checkpoint)} and the "
            f"result), {place} has {size(free)} free\nfree space, name another --output-dir, or keep less: "
            f"--save-total-limit 1, --save-strategy no{smaller}"
        )
    return line, facts


def checkpoints(run: Run, rows: int) -> int:
    """How many checkpoints will lie on the disk together, the one being written included."""
    given: Mapping[str, Any] = {k: v for k, v in run.training.items() if v is not None}
    if getattr(catalog.load("methods", run.method), "TRAINED_BY_WAY_IN", False):
        return 0
    strategy = str(given.get("save_strategy", "epoch")).lower()
    per_epoch = max(1, math.ceil(rows / rows_per_update(run)))
    updates = int(given.get("max_steps") or -1)
    if updates <= 0:
        updates = math.ceil(float(given.get("num_train_epochs") or epochs(run, rows)) * per_epoch)
    every = float(given.get("save_steps", 500))
    every = max(1.0, every * updates if every < 1 else every)
    number = {"no": 0, "epoch": math.ceil(updates / per_epoch), "steps": math.ceil(updates / every)}
    limit = given.get("save_total_limit", 2)
    made = number.get(strategy, math.ceil(updates / per_epoch))
    best = given.get("load_best_model_at_end") or given.get("metric_for_best_model")
    return made if not limit else min(made, max(int(limit), 2 if best else 1) + 1)


def size(amount: float) -> str:
    """Bytes as people say them: 4.2 MB, 31 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if amount >= factor:
            return f"{amount / factor:.{0 if amount >= 10 * factor else 1}f} {unit}"
    return f"{amount / 1e3:.0f} kB"


def _sizes(run: Run, task: Any) -> tuple[int, int] | None:
    """Bytes of what is saved, and the number of weights that train, from shapes alone; None where shapes are not enough."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said is said when the model is made
            model = on_meta(run, task)
    except UsageError as error:
        if isinstance(error.__cause__, NotImplementedError):
            return None  # a method that looks at values, such as shira
        raise
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return saved_bytes(model, catalog.load("methods", run.method).SAVES), trainable


def _vocabulary(tokenizer: Any, config: Any) -> tuple[str, dict[str, int]]:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    ids = max(tokenizer.get_vocab().values(), default=0) + 1
    rows = getattr(text, "vocab_size", None)
    facts = {"ids": ids, **({"embeddings": rows} if rows else {})}
    return f"{count(ids)} ids" + (f" for {count(rows)} embeddings" if rows else ""), facts
