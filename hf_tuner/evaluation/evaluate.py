"""Measure a saved run on a data set: the very code that measured it when it was trained."""

from pathlib import Path
from typing import Any

import numpy as np

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.data.rows import read_rows, task_columns
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.evaluation.intervals import measured
from hf_tuner.evaluation.predict import kept_of
from hf_tuner.evaluation.reference import with_base
from hf_tuner.models.restore import restore
from hf_tuner.plain_yaml import read_yaml


def evaluate(run: Path | str, *, dataset: str | None = None, dataset_config: str | None = None, split: str | None = None,
             columns: str | None = None, batch_size: int | None = None) -> tuple[str, int, dict[str, Any]]:  # fmt: skip
    """Name of the split or file, number of rows, and {metric: {value, low, high}} of a saved run.

    Where the model is set beside its base, each metric also has `base`, what that reaches.
    Raises UsageError for rows whose labels the model does not know.
    """
    saved = restore(run)
    folder, task = saved.folder, saved.task
    batch_size = batch_size or task.at_once
    if dataset:
        name, raw = read_rows(dataset, config=dataset_config, split=split)
        alone = split is None and Path(dataset).expanduser().is_file()  # its rows are called "train" for want of a name
        name = Path(dataset).name if alone else name
        rows, where = task_columns(raw, task, columns, answers=True), dataset if alone else f"{dataset} ({name})"
    else:
        given = data_settings(folder, task)
        data = load_data(given, type(task))
        name = split or next((s for s in ("test", "validation", "train") if s in data), "train")
        if name not in data:
            raise UsageError(f"--split {name}: this data has {', '.join(data)}")
        rows, where = data[name], f"{given.dataset} ({name})"
    if lacking := [column for column in task.measured if column not in rows.column_names]:
        raise UsageError(
            f"{where}: no column for {lacking[0]}; to measure, it is needed (--columns {lacking[0]}=COLUMN)"
        )
    try:
        kept, ready = kept_of(saved, task.prepare(rows), batch_size)
        ready = with_base(task, saved.model, ready, task.collate(saved.processor), batch_size)
    except UsageError as error:  # a label that the model does not know
        raise UsageError(f"{where}: {error}") from error
    scores = measured(task, task.readable(kept, saved.processor), ready, rows)
    if "reference" in ready.column_names:
        base = task.quick([np.array(row) for row in ready.with_format(None)["reference"][:]], ready, rows)
        scores = {metric: {**score, "base": base.get(metric)} for metric, score in scores.items()}
    return name, len(rows), scores


def data_settings(folder: Path, task: Any) -> Run:
    """The data part of the run's own configuration: the same splits come out again."""
    text = read_yaml(folder / "run.yaml", wrong=ArtifactError)
    keys = ("dataset", "dataset_config", "eval_dataset", "train_split", "eval_split", "test_split", "columns", "problem",
            "encoding", "separator", "drop_empty", "streaming", "seed")  # fmt: skip
    training: dict[str, Any] = {
        k: text[k] for k in ("eval_strategy", "load_best_model_at_end", "max_steps") if k in text
    }
    known = {k: text[k] for k in keys if k in text}
    return Run(task=task.name, output_dir=str(folder), training=training, task_config=task, **known)
