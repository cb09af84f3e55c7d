"""What one pass over the texts shows: how long they are, which repeat, which stand in two splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from hf_tuner.console import Progress, count
from hf_tuner.data import store
from hf_tuner.data.splits import keep

if TYPE_CHECKING:
    from hf_tuner.data.audit import Audit

TEXTS = ("text", "text_pair")
HUGE = 1_000_000
"""Characters past which a text is remarked on (the encoder cuts it before tokenising)."""
FEW_ROWS = 10
"""With fewer training rows, suspicions are warnings instead of errors."""


def without_leaks(data: DatasetDict, notes: list[str], columns: Sequence[str] = TEXTS) -> DatasetDict:
    """Train without the rows whose text (`columns`) stands in another split; what was left out is noted."""
    texts = [name for name in columns if name in data["train"].column_names]
    progress = Progress("looking for rows in two splits", sum(rows.num_rows for rows in data.values()))
    hashes, done = {}, 0
    for split, rows in data.items():
        hashes[split] = _look(rows, texts, progress, done).hashes
        done += rows.num_rows
    progress.end()
    others = np.sort(np.concatenate([values for split, values in hashes.items() if split != "train"]))
    good = np.flatnonzero(~_among(hashes["train"], others))
    left = data["train"].num_rows - len(good)
    if not left:
        return data
    notes.append(f"{count(left)} training row{'s' * (left != 1)} left out, as in another split too (--drop-leaked)")
    return DatasetDict({**data, "train": keep(data["train"], good)})


def share(share: float) -> str:
    """A share in per cent, as people say it."""
    return "under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


@dataclass
class _Texts:
    """What one pass over a split gives: hashes of texts and of labels, characters [rows], and how many are odd."""

    hashes: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    zeros: int = 0
    numeric: int = 0


def check_texts(
    found: "Audit", names: Mapping[str, str], fail_on_leak: bool = False, columns: Sequence[str] = TEXTS
) -> None:
    """Add what the texts (`columns`) show to the warnings, errors and facts of an audit."""
    texts = [name for name in columns if name in found.data["train"].column_names]
    if not texts:
        return
    progress = Progress("looking at the texts", sum(rows.num_rows for rows in found.data.values()))
    seen, done = {}, 0
    for split, rows in found.data.items():
        seen[split] = _look(rows, texts, progress, done)
        done += rows.num_rows
    progress.end()
    train, counts = np.unique(seen["train"].hashes, return_counts=True)
    extra = int((counts - 1).sum())
    found.facts["duplicates"] = extra
    total = len(seen["train"].hashes)
    if extra:
        found.warnings.append(
            f"train: {count(extra)} of {count(total)} rows repeat the text of another ({share(extra / total)})"
        )
    _check_conflicts(found, seen["train"], len(train))
    if counts.max() > max(total / 2, FEW_ROWS - 1):
        found.warnings.append(
            f'column "{names[texts[0]]}" is nearly constant: one text fills {share(counts.max() / total)} of train'
        )
    found.facts["leaked"] = {}
    for split in seen:
        if split != "train":
            _check_leak(found, split, np.flatnonzero(_among(seen[split].hashes, train)), texts[0], fail_on_leak)
    _check_sizes(found, seen, names)


def _look(rows: Dataset, texts: list[str], progress: Progress, before: int) -> _Texts:
    """Hashes of the texts without regard to case and spacing, and what else one pass can see."""
    total = rows.num_rows
    seen = _Texts(np.zeros(total, np.int64), np.zeros(total, np.int64), np.zeros(total, np.int32))
    labelled = "label" in rows.column_names
    for start, arrays in store.batches(rows, [*texts, "label"] if labelled else texts):
        here = slice(start, start + len(arrays[texts[0]]))
        for name, array in ((name, as_strings(arrays[name], as_read)) for name in texts):
            seen.sizes[here] += pc.fill_null(pc.utf8_length(array), 0).to_numpy(zero_copy_only=False)
            seen.zeros += pc.sum(pc.match_substring(array, "\x00")).as_py() or 0
            if name == "text":
                seen.numeric += pc.sum(pc.match_substring_regex(array, r"^\s*[-+]?[\d.,]+\s*$")).as_py() or 0
        columns = [
            [" ".join((text or "").casefold().split()) for text in as_strings(arrays[name]).to_pylist()]
            for name in texts
        ]
        # Python's own 64-bit hash: it changes from process to process, and these live in one.
        seen.hashes[here] = list(map(hash, columns[0] if len(columns) == 1 else zip(*columns, strict=True)))
        if labelled:
            seen.labels[here] = _label_hashes(arrays["label"])
        progress.at(before + here.stop, f"{before + here.stop:,} rows")
    return seen


def as_strings(array: pa.Array, as_text: Callable[[Any], str] = str) -> pa.Array:
    """Lists and objects by `as_text`; by Python's own print of them only equal ones are equal."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array
    return pa.array([None if value is None else as_text(value) for value in array.to_pylist()], pa.large_string())


def as_read(value: Any) -> str:
    """What a person reads of a value: words with spaces between, messages by what they say, a line each."""
    if isinstance(value, Mapping):
        return as_read(
            value.get("content") or value.get("more") or ("" if "content" in value else list(value.values()))
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (" " if all(isinstance(one, str) for one in value) else "\n").join(map(as_read, value))
    return "" if value is None else str(value)


def _check_conflicts(found: "Audit", train: _Texts, texts: int) -> None:
    """Texts that stand in train with more than one label: nothing can learn both."""
    pairs = np.sort(train.hashes ^ (train.labels * 0x9E3779B97F4A7C1 | 1))
    repeated = 1 + int((pairs[1:] != pairs[:-1]).sum()) - texts
    found.facts["conflicts"] = max(0, repeated)
    if repeated > 0:
        found.warnings.append(
            f"train: {_texts(repeated, 'stands', 'stand')} there again with another label: which is right?"
        )


def _check_leak(found: "Audit", split: str, rows: np.ndarray, column: str, fail: bool) -> None:
    found.facts["leaked"][split] = len(rows)
    if not len(rows):
        return
    total = found.data[split].num_rows
    shown = " ".join(as_read(found.data[split][int(rows[0])][column]).split())
    shown = shown if len(shown) <= 50 else shown[:49] + "…"
    said = f"{split}: {count(len(rows))} of {count(total)} rows ({share(len(rows) / total)}) stand in train too"
    if fail:
        found.errors.append(f"{said} (--fail-on-leak); --drop-leaked leaves them out of train")
    else:
        found.warnings.append(
            f"{said}: results on them flatter the model; --drop-leaked leaves them out of train, --fail-on-leak refuses them"
        )
    found.facts.setdefault("examples", []).append(f'such a row of {split} is "{shown}"')


def _check_sizes(found: "Audit", seen: Mapping[str, _Texts], names: Mapping[str, str]) -> None:
    lengths = np.percentile(seen["train"].sizes, [50, 95, 100])
    found.facts["characters"] = {k: int(v) for k, v in zip(("p50", "p95", "max"), lengths, strict=True)}
    huge = sum(int((texts.sizes > HUGE).sum()) for texts in seen.values())
    zeros = sum(texts.zeros for texts in seen.values())
    if huge:
        found.warnings.append(f"{_texts(huge, 'has', 'have')} over a million characters; only the beginning is read")
    if zeros:
        found.warnings.append(f"{_texts(zeros, 'holds', 'hold')} NUL characters (kept): is the encoding right?")
    if seen["train"].numeric > 0.95 * found.data["train"].num_rows:
        found.warnings.append(
            f'column "{names.get("text", "text")}" holds numbers only: is it the text? --columns text=COLUMN'
        )


def _texts(number: int, one: str, many: str) -> str:
    return f"1 text {one}" if number == 1 else f"{count(number)} texts {many}"


def _label_hashes(array: pa.Array) -> Any:
    """Hashes [rows] of labels; each different one is hashed once, lists one by one."""
    if pa.types.is_nested(array.type):
        return [hash(str(value)) for value in array.to_pylist()]
    encoded = array.dictionary_encode(null_encoding="encode")
    values = np.array([hash(str(value)) for value in encoded.dictionary.to_pylist()], np.int64)
    return values[encoded.indices.to_numpy(zero_copy_only=False)]


def _among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which of the values stand in a sorted array."""
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values
