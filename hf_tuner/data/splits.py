"""Which rows train, which choose and which measure: named splits, samples, and what is held out when one is missing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, List, ReadInstruction, Value, concatenate_datasets

from hf_tuner.catalog import nearest
from hf_tuner.config import Run
from hf_tuner.console import count
from hf_tuner.data import store
from hf_tuner.errors import UsageError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


def choose(splits: Mapping[str, Dataset], run: Run, notes: list[str]) -> dict[str, Dataset]:
    """The train, validation and test rows among the splits of a data set, by name or as the run says.

    Raises UsageError for a split that does not exist, with those that do.
    """
    result = {}
    # What trains does not measure unless that is asked for.
    trained = set(re.findall(r"([^\s+\[\]]+)(?:\[[^\]]*\])?", run.train_split or ""))
    for role, asked in (("train", run.train_split), ("validation", run.eval_split), ("test", run.test_split)):
        if asked and not share_of(asked):
            result[role] = part(splits, asked, {"train": "train", "validation": "eval", "test": "test"}[role])
            continue
        name = named(splits, role)
        if name is not None and name not in trained:
            result[role] = splits[name]
            if name not in SPLIT_WORDS[role]:
                notes.append(f'{role} is the split "{name}"')
    if "train" not in result:
        result["train"] = splits[_only(splits, result)]
    return {role: result[role] for role in ("train", "validation", "test") if role in result}


def part(splits: Mapping[str, Dataset], spec: str, flag: str) -> Dataset:
    """Rows of a specification such as "train", "train[:80%]" or "train+validation"."""
    sizes = {name: rows.num_rows for name, rows in splits.items()}
    malformed = f'--{flag}-split "{spec}" is not a split such as train or train[:80%]'
    try:
        instruction = ReadInstruction.from_spec(spec)
    except (ValueError, AssertionError) as error:
        raise UsageError(malformed) from error
    for name in re.findall(r"([^\s+\[\]]+)(?:\[[^\]]*\])?", spec):
        if name not in sizes:
            close = nearest(name, list(sizes))
            hint = f'; did you mean "{close}"?' if close else ";"
            raise UsageError(f'--{flag}-split "{spec}": no split "{name}"{hint} there are: {", ".join(sizes)}')
    try:
        pieces = instruction.to_absolute(sizes)
    except (ValueError, AssertionError) as error:
        raise UsageError(f"{malformed} ({error})") from error
    spans = [(p.splitname, p.from_ or 0, sizes[p.splitname] if p.to is None else p.to) for p in pieces]
    rows = [splits[name].select(range(start, stop)) for name, start, stop in spans if start < stop] or [
        next(iter(splits.values())).select([])
    ]
    result = rows[0] if len(rows) == 1 else concatenate_datasets(rows)
    if result.num_rows == 0:
        raise UsageError(f'--{flag}-split "{spec}" holds no rows (of {count(sum(sizes.values()))})')
    return result


def share_of(text: str | None) -> float | None:
    """The share in "10%"; None when the text is a split's name. Raises UsageError outside 0 to 100 %."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text or "")
    if match is None:
        return None
    share = float(match[1]) / 100
    if not 0 < share < 1:
        raise UsageError(f'--eval-split "{text}": expected a share between 0% and 100%, such as 10%')
    return share


def labelled(data: Mapping[str, Dataset], notes: list[str]) -> dict[str, Dataset]:
    """The splits without those whose labels are hidden (no column, or -1 or null throughout, as in GLUE's tests)."""
    return {name: split for name, split in data.items() if not _hidden(name, split, data["train"], notes)}


def complete(data: Mapping[str, Dataset], run: Run, notes: list[str]) -> DatasetDict:
    """Hold rows of train out where a split is needed.

    Without validation and test, 20 % of train become the test split. With a test split but no validation, 10 % of
    train become validation if something selects on it (an `eval_strategy`, or `load_best_model_at_end`).
    `--eval-split 10%` always holds out that share. Rows are drawn by class where possible, with the run's seed.
    """
    rows = DatasetDict(data)
    share = share_of(run.eval_split)
    if share and "validation" in rows:
        notes.append("the validation split of the data is not used, as --eval-split holds rows of train out")
        del rows["validation"]
    if share is None and "validation" not in rows and "test" not in rows:
        _hold_out(rows, "test", TEST_SHARE, run.seed, notes)
    if "validation" not in rows and (share or _selects(run)):
        _hold_out(rows, "validation", share or VALIDATION_SHARE, run.seed, notes)
    if "test" not in rows:
        notes.append("no test split: results are reported on validation")
    return DatasetDict({name: rows[name] for name in ("train", "validation", "test") if name in rows})


def sample(rows: Dataset, size: int, seed: int) -> Dataset:
    """A seeded random sample in the original order, by class where labels are classes."""
    if size >= rows.num_rows:
        return rows
    return keep(rows, draw(rows, size, seed, keep_one=False))


def keep(rows: Dataset, indices: np.ndarray) -> Dataset:
    """The rows at sorted, unique `indices`.

    Plain columns are copied: `Dataset.select` keeps a list of indices that makes each later batch many times slower.
    """
    if not all(isinstance(feature, Value | ClassLabel | List) for feature in rows.features.values()):
        return rows.select(indices)
    mask = np.zeros(rows.num_rows, dtype=bool)
    mask[indices] = True
    shelf = store.Shelf()
    for start, arrays in store.batches(rows, rows.column_names):
        table = pa.table(dict(arrays))
        shelf.put(table.filter(pa.array(mask[start : start + table.num_rows])))
    return store.dataset(shelf.tables() or [rows.data.table.slice(0, 0)], rows.features)


def draw(rows: Dataset, size: int, seed: int, keep_one: bool) -> np.ndarray:
    """Sorted indices [size] of randomly drawn rows; each class gives its share (largest remainders).

    With `keep_one`, no class gives its last row, so that every class drawn still trains.
    """
    generator = np.random.default_rng(seed)
    classes = _classes(rows)
    if classes is None:
        return np.sort(generator.permutation(rows.num_rows)[:size])
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    wanted = sizes * (size / rows.num_rows)
    limits = sizes - 1 if keep_one else sizes
    taken = np.minimum(np.floor(wanted).astype(int), limits)
    order = np.lexsort((generator.random(len(sizes)), taken - wanted))  # largest remainder first, ties at random
    for index in [i for i in order if taken[i] < limits[i]][: max(0, size - int(taken.sum()))]:
        taken[index] += 1
    chosen = [generator.permutation(np.flatnonzero(codes == code))[:number] for code, number in enumerate(taken)]
    return np.sort(np.concatenate(chosen))


def _classes(rows: Dataset) -> np.ndarray | None:
    """A class number [rows] for each row, or None when labels are missing, lists, numbers or mostly unique."""
    feature = rows.features.get("label")
    plain = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "string", "large_string", "bool"))
    if not plain and not isinstance(feature, ClassLabel):
        return None
    column = rows.select_columns(["label"]).with_format("arrow")[:]["label"]
    encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    if len(encoded.dictionary) > rows.num_rows / 2:
        return None
    return encoded.indices.to_numpy(zero_copy_only=False)


def _hold_out(rows: DatasetDict, name: str, share: float, seed: int, notes: list[str]) -> None:
    train = rows["train"]
    size = round(train.num_rows * share)
    if train.num_rows < 2 or size < 1:
        raise UsageError(
            f"{train.num_rows} training row{'s' * (train.num_rows != 1)}: too few to hold {100 * share:g} % out "
            f"for {name}; give more rows, or a file of their own with --eval-dataset"
        )
    taken = draw(train, size, seed, keep_one=True)
    if len(taken) == 0:
        taken = np.sort(np.random.default_rng(seed).permutation(train.num_rows)[:size])
    how = "by class" if _classes(train) is not None else "at random"
    rows[name] = keep(train, taken)
    rows["train"] = keep(train, np.setdiff1d(np.arange(train.num_rows), taken))
    notes.append(f"no {name} split: {count(len(taken))} rows ({100 * share:g} %) of train held out {how}, seed {seed}")


def _selects(run: Run) -> bool:
    """Whether training looks at validation to decide something."""
    training: Mapping[str, Any] = run.training
    return str(training.get("eval_strategy", "no")).lower() not in ("no", "none") or bool(
        training.get("load_best_model_at_end")
    )


def _hidden(name: str, split: Dataset, train: Dataset, notes: list[str]) -> bool:
    """Whether a split for measuring has no labels."""
    if name == "train" or "label" not in train.column_names:
        return False
    hidden = {None, -1, "-1", ""}
    if "label" in split.column_names:
        if not isinstance(split.features["label"], Value | ClassLabel) or set(split.unique("label")) - hidden:
            return False
        if set(split.unique("label")) & set(train.unique("label")) & {-1, "-1"}:
            return False  # here -1 is a class
    notes.append(f"the {name} split has no labels (all hidden), so it is not used")
    return True


def named(splits: Mapping[str, Dataset], role: str) -> str | None:
    """The split that a role ("test") is called by; None when there is none."""
    for name in splits:
        if name.lower() in SPLIT_WORDS[role]:
            return name
    # "validation_matched" is a validation split; the first of several is taken and said.
    return next((name for name in splits if re.split(r"[_.-]", name.lower())[0] in SPLIT_WORDS[role]), None)


def _only(splits: Mapping[str, Dataset], taken: Mapping[str, Dataset]) -> str:
    """The one split that can only mean training."""
    free = [name for name, rows in splits.items() if all(rows is not other for other in taken.values())]
    if len(free) == 1:
        return free[0]
    raise UsageError(f"no train split; there are: {', '.join(splits)}. Say which: --train-split NAME")


def split_of(path: Path) -> str | None:
    """Split that a file's name, or else one of its folders, tells: "train-00000-of-00002.parquet" is train."""
    for part in (path.name.split(".")[0], *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in SPLIT_WORDS.items():
            if any(word in names for word in words):
                return split
    return None
