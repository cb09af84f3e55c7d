"""Predict with a saved run: labels by name, scores, batches sorted by length."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hf_tuner.data.load import no_bars
from hf_tuner.data.seals import sound
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.loop import predict_logits
from hf_tuner.models.restore import Restored, restore


def encoded(task: Any, processor: Any, rows: Dataset, max_length: int) -> Dataset:
    """Token ids, lengths and labels of rows; the text columns are dropped."""
    encode = task.encode(processor, max_length)

    def tokenised(cached: bool | None = None) -> Dataset:
        return rows.map(encode, batched=True, remove_columns=rows.column_names, desc=None, load_from_cache_file=cached)

    with no_bars():
        return sound(tokenised, lambda: tokenised(False), "tokenised texts")


def logits_of(saved: Restored, rows: Dataset, batch_size: int = 64, *, alone: bool = False) -> np.ndarray:
    """Logits [rows, classes] of a restored run on rows with the task's columns; `alone` as in `predict_logits`."""
    task = saved.task
    ready = encoded(task, saved.processor, rows, saved.manifest.max_length)
    return predict_logits(saved.model, ready, task.collate(saved.processor), batch_size, alone=alone)


def predict(run: Path | str, texts: Sequence[str] | Dataset, batch_size: int = 64) -> list[dict[str, Any]]:
    """Predictions of a saved run for texts, or for rows {"text", "text_pair"}: [{prediction, score, probabilities}].

    >>> predict("runs/demo", ["where is my parcel?"])[0]["prediction"]     # doctest: +SKIP
    'track_order'
    """
    if isinstance(texts, str):
        raise UsageError("predict takes a list of texts; for one text: predict(run, [text])")
    rows = texts if isinstance(texts, Dataset) else Dataset.from_list([_row(t) for t in texts])
    if not len(rows):
        return []
    saved = restore(run)
    if saved.task.pair and "text_pair" not in rows.column_names:
        raise UsageError('this run reads pairs: predict(run, [{"text": …, "text_pair": …}])')
    logits = logits_of(saved, rows, batch_size)
    names = saved.task.labels.names or ("value",)
    return [
        {"prediction": answer, "score": score, "probabilities": dict(zip(names, map(float, values), strict=True))}
        for (answer, score), values in zip(saved.task.decode(logits), saved.task.probabilities(logits), strict=True)
    ]


def _row(text: Any) -> dict[str, str]:
    return {"text": text} if isinstance(text, str) else {k: v for k, v in text.items() if k in ("text", "text_pair")}


def write_predictions(path: Path, rows: Dataset, predictions: list[dict[str, Any]], probabilities: bool) -> None:
    """Write the input columns, then prediction, score, and one column per class if asked for, as CSV."""
    classes = list(predictions[0]["probabilities"]) if probabilities and predictions else []
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*rows.column_names, "prediction", "score", *classes])
        for row, answer in zip(rows, predictions, strict=True):
            said = answer["prediction"]
            label = "|".join(said) if isinstance(said, list) else said
            scores = [f"{answer['probabilities'][c]:.6f}" for c in classes]
            writer.writerow([*row.values(), label, f"{answer['score']:.6f}", *scores])
    aside.replace(path)
