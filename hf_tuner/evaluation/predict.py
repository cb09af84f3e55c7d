"""Predict with a saved run: what the task's users want for every row, in batches sorted by length."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from hf_tuner.data.load import no_bars
from hf_tuner.data.picture_rows import undecoded
from hf_tuner.data.seals import sound
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.loop import Kept, keep_outputs, keep_told
from hf_tuner.models.restore import Restored, restore

JSON_LINES = (".jsonl", ".ndjson")


def encoded(task: Any, processor: Any, rows: Dataset, max_length: int, split: str = "test") -> Dataset:
    """Encoded rows, packed where the task packs; the data's own columns are dropped."""
    encode = task.encode(processor, max_length)
    carried = [name for name in task.carried if name in rows.column_names]
    aside = [] if task.sees else carried
    plain = rows.remove_columns(aside) if set(aside) != set(rows.column_names) else _numbered(rows)

    def made(cached: bool | None = None) -> Dataset:
        return plain.map(encode, batched=True, batch_size=100 if task.sees else 1000, remove_columns=plain.column_names,
                         desc=None, load_from_cache_file=cached)  # fmt: skip

    with no_bars():
        ready = sound(made, lambda: made(False), "tokenised texts")
        if carried:  # as they are: pictures are decoded when they are needed, and never copied
            ready = concatenate_datasets([rows.select_columns(carried), ready], axis=1)
        return task.pack(ready, split, max_length)


def _numbered(rows: Dataset) -> Dataset:
    """As many rows with nothing but a number, where every column is carried."""
    return Dataset.from_dict({"number": np.arange(len(rows))})


def kept_of(
    saved: Restored, rows: Dataset, batch_size: int | None = None, *, alone: bool = False
) -> tuple[Kept, Dataset]:
    """What a restored run keeps of rows with the task's columns, and the encoded rows; `alone` as in `keep_outputs`."""
    task = saved.task
    batch_size = batch_size or task.at_once
    ready = encoded(task, saved.processor, rows, saved.manifest.max_length)
    collate = task.collate(saved.processor)
    if alone:
        return keep_outputs(saved.model, ready, collate, task.outputs, batch_size, alone=True), ready
    return keep_told("answering", saved.model, ready, collate, task.outputs, batch_size), ready


def predict(run: Path | str, rows: Sequence[Any] | Dataset,
            batch_size: int | None = None, **settings: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Predictions of a saved run for texts, pictures (paths or PIL), or rows with the task's columns: a dictionary each,
    the answer first.

    `settings` are those of the task that may be changed when it answers, such as `max_new_tokens=40`.

    >>> predict("runs/demo", ["where is my parcel?"])[0]["prediction"]     # doctest: +SKIP
    'track_order'
    """
    if isinstance(rows, str):
        raise UsageError("predict takes a list of texts; for one text: predict(run, [text])")
    if not len(rows):
        return []
    saved = restore(run)
    data = rows if isinstance(rows, Dataset) else _rows(saved.task, rows)
    saved = replace(saved, task=saved.task.answering(**settings))
    kept, ready = kept_of(saved, data, batch_size)
    return saved.task.answers(kept, ready, data, saved.processor)


def _rows(task: Any, given: Sequence[Any]) -> Dataset:
    """What a user hands over from Python as rows with the task's columns."""
    from hf_tuner.data.rows import task_columns

    text = next(name for name in task.columns if name not in task.targets)
    rows = undecoded(Dataset.from_list([dict(one) if isinstance(one, Mapping) else {text: one} for one in given]))
    rows.tuner_folder = Path()
    return task_columns(rows, task, None, answers=False)


def write_predictions(path: Path, rows: Dataset, predictions: list[dict[str, Any]], probabilities: bool) -> None:
    """Write the input's columns and the answers: one JSON object a line for .jsonl, else CSV with nested values as JSON.

    With `probabilities`, one column a class. Pictures (PNG as bytes) become files in a folder beside `path`, named by
    their row; the answer holds their names. An answer that is called as a column of the input becomes `predicted_NAME`.
    """
    shown = [_flat(answer, probabilities) for answer in _with_files(path, predictions)]
    shown = [{_free(name, rows.column_names): value for name, value in answer.items()} for answer in shown]
    aside = path.with_name(f".{path.name}.writing")
    lines = path.suffix.lower() in JSON_LINES
    aside.write_text(_json_lines(rows, shown) if lines else _table(rows, shown), encoding="utf-8", newline="")
    aside.replace(path)


def _free(name: str, taken: Sequence[str]) -> str:
    """A name for an answer's column that the input does not have: what it gives stays beside what is given."""
    return f"predicted_{name}" if name in taken else name


def _with_files(path: Path, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers with the names of files, below the folder of `path`, in place of bytes."""
    result = []
    for number, answer in enumerate(answers, start=1):
        named = {}
        for name in (name for name, value in answer.items() if isinstance(value, bytes)):
            file = Path(f"{path.stem}_{name}") / f"{number:05d}.png"
            (path.parent / file).parent.mkdir(exist_ok=True)
            (path.parent / file).write_bytes(answer[name])
            named[name] = file.as_posix()
        result.append({**answer, **named})
    return result


def _flat(answer: dict[str, Any], probabilities: bool) -> dict[str, Any]:
    """An answer without its probabilities, or with them as columns of their own."""
    own = {name: value for name, value in answer.items() if name != "probabilities"}
    return {**own, **(answer.get("probabilities", {}) if probabilities else {})}


def _table(rows: Dataset, answers: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*rows.column_names, *(answers[0] if answers else ())])
    for row, answer in zip(rows, answers, strict=True):
        writer.writerow([*(_nested(_given(value)) for value in row.values()), *map(_cell, answer.items())])
    return text.getvalue()


def _json_lines(rows: Dataset, answers: list[dict[str, Any]]) -> str:
    joined = (
        {**{name: _given(value) for name, value in row.items()}, **answer}
        for row, answer in zip(rows, answers, strict=True)
    )
    return "".join(json.dumps(one, ensure_ascii=False, default=str) + "\n" for one in joined)


def _given(value: Any) -> Any:
    """A value of the input; a picture by the name of its file."""
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        return value["path"] or ""
    return value


def _cell(answer: tuple[str, Any]) -> Any:
    """A value of an answer: numbers with six decimals, several labels side by side, else what is nested as JSON."""
    name, value = answer
    if isinstance(value, float):
        return f"{value:.6f}"
    if name == "prediction" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "|".join(value)
    return _nested(value)


def _nested(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
