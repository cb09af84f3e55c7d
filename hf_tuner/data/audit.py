"""Look at every row before anything is trained: what cannot work is refused, what looks odd is said.

Works in batches over Arrow columns; of each text only an 8-byte hash and its length are kept.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Value

from hf_tuner.console import count
from hf_tuner.data import store
from hf_tuner.data.splits import keep
from hf_tuner.data.texts import FEW_ROWS, TEXTS, check_texts, share
from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import Labels, is_empty, text_of


@dataclass(frozen=True)
class Audit:
    """What was found. `data` is what may be used: the rows as given, or without the empty ones."""

    data: DatasetDict
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """rows, dropped, held_out (splits made of rows of train),
    classes (name → training rows), unused (classes a split lacks), characters (p50, p95, max),
    duplicates in train, conflicts (texts of train with more than one label), leaked (rows of a split that stand in
    train), and examples (rows quoted, for the screen only:
    warnings are published with the run, rows are not)."""


def audit(
    data: Mapping[str, Dataset],
    labels: Labels | None = None,
    *,
    drop_empty: bool = False,
    place: Callable[[str, int], tuple[str, int]] | None = None,
    columns: Mapping[str, str] | None = None,
    cleaned: Audit | None = None,
    fail_on_leak: bool = False,
) -> Audit:
    """Check all splits. `labels` is what was inferred from train (None: labels are not looked at).

    `place` turns a split and a row index into a file name and row number, `columns` canonical names into those of
    the data: both only serve the messages. `cleaned` is what `clean` said when it has run before. With `fail_on_leak`,
    evaluation rows that stand in train are an error. Nothing is raised for bad rows: they are in `errors`.
    """
    names = _names(data, columns)
    first = cleaned or clean(data, drop_empty=drop_empty, place=place, columns=columns)
    rows = first.data if drop_empty and not cleaned else DatasetDict(data)
    found = Audit(rows, [*first.errors], [*first.warnings], {**first.facts})
    found.facts["rows"] = {split: rows.num_rows for split, rows in found.data.items()}
    if all(rows.num_rows for rows in found.data.values()):
        if labels is not None and "label" in found.data["train"].column_names:
            _check_labels(found, labels, names["label"])
        check_texts(found, names, fail_on_leak)
    return found


def as_text(rows: Dataset, names: Mapping[str, str], notes: list[str]) -> Dataset:
    """Numbers, dates and true/false in text columns become text, with a note.

    Raises UsageError for lists and objects, which have no one way to be text.
    """
    for name in TEXTS:
        feature = rows.features.get(name)
        if feature is None or (isinstance(feature, Value) and feature.dtype in ("string", "large_string")):
            continue
        if isinstance(feature, ClassLabel) or not isinstance(feature, Value):
            shown = " ".join(str(feature).split())[:80]
            raise UsageError(
                f'column "{names.get(name, name)}" holds {shown}, not text; join or flatten it, '
                f"or name another column: --columns {name}=COLUMN"
            )
        rows = rows.cast_column(name, Value("string"))
        if feature.dtype != "null":
            notes.append(f'column "{names.get(name, name)}" holds {feature.dtype} values, read as text')
    return rows


# --- empty cells


def clean(
    data: Mapping[str, Dataset],
    *,
    drop_empty: bool = False,
    place: Callable[[str, int], tuple[str, int]] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Audit:
    """The rows whose text and label are there. The others are errors, or, with `drop_empty`, a warning."""
    place, names = place or (lambda split, index: (split, index + 1)), _names(data, columns)
    found = Audit(DatasetDict(), facts={"dropped": {}})
    for split, rows in data.items():
        empty = np.empty(0, np.int64)
        for column in (name for name in (*TEXTS, "label") if name in rows.column_names):
            indices = _empty_rows(rows, column)
            said = _empty(split, indices, rows.num_rows, names[column], place) if len(indices) else ""
            if said and column == "text_pair":
                found.warnings.append(said)
            elif said:
                empty = np.union1d(empty, indices)
                found.errors.extend([] if drop_empty else [f"{said}; --drop-empty skips them"])
        found.data[split] = keep(rows, np.setdiff1d(np.arange(rows.num_rows), empty)) if len(empty) else rows
        if len(empty):
            _count_empty(found, split, len(empty), rows.num_rows, drop_empty)
    return found


def _count_empty(found: Audit, split: str, empty: int, total: int, drop: bool) -> None:
    found.facts["dropped"][split] = empty
    if drop:
        found.warnings.append(f"{split}: {count(empty)} of {count(total)} rows left out as empty")
    if empty == total:
        found.errors.append(f"{split}: nothing is left without the empty rows")


def _names(data: Mapping[str, Dataset], columns: Mapping[str, str] | None) -> dict[str, str]:
    """What each canonical column is called in the data."""
    return {**{name: name for rows in data.values() for name in rows.column_names}, **(columns or {})}


def _empty_rows(rows: Dataset, column: str) -> np.ndarray:
    """Indices of rows where a column is null, NaN, blank, or a class label of -1."""
    missing = -1 if isinstance(rows.features[column], ClassLabel) else None
    result = [np.empty(0, np.int64)]
    for start, array in store.column(rows, column):
        kind = array.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            mask = pc.or_kleene(pc.is_null(array), pc.equal(pc.utf8_trim_whitespace(array), ""))
        elif missing is not None:
            mask = pc.or_kleene(pc.is_null(array), pc.equal(array, missing))
        elif pa.types.is_floating(kind):
            mask = pc.is_null(array, nan_is_null=True)
        else:
            mask = pc.is_null(array)
        result.append(np.flatnonzero(pc.fill_null(mask, True).to_numpy(zero_copy_only=False)) + start)
    return np.concatenate(result)


def _empty(split: str, indices: np.ndarray, total: int, column: str, place: Callable[..., tuple[str, int]]) -> str:
    spots = [place(split, int(index)) for index in indices[:5]]
    file = spots[0][0]
    numbers = ", ".join(str(n) for f, n in spots if f == file) + (", …" if len(indices) > 5 else "")
    plural = "s" * (len(indices) != 1)
    return f'{file} row{plural} {numbers}: column "{column}" is empty ({count(len(indices))} of {count(total)} rows)'


# --- labels


def _check_labels(found: Audit, labels: Labels, column: str) -> None:
    if labels.problem == "regression":
        _check_numbers(found, column)
        return
    counts = {split: _label_counts(rows, labels) for split, rows in found.data.items() if "label" in rows.column_names}
    train, total = counts["train"], found.data["train"].num_rows
    found.facts["classes"] = {name: train[name] for name in labels.names if name in train}
    found.facts["unused"] = {s: sorted(set(train) - set(c)) for s, c in counts.items() if s != "train"}
    if len(train) == 1 and labels.problem == "single":
        found.errors.append(
            f'column "{column}" has one class only ("{next(iter(train))}", {count(total)} rows): nothing to learn; '
            "give rows of another class, or name another column: --columns label=COLUMN"
        )
    ids = labels.problem == "single" and _check_ids(found, train, total, column)
    if not ids:  # of ids, most are never seen
        _check_unseen(found, labels, counts, column)
    if labels.problem == "single":
        _check_balance(found, train, total, column)
    found.warnings.extend(_near_names(list(train), column))
    odd = [name for name in train if name.startswith("-") and name[1:].isdecimal()]
    if odd:
        rows = ", ".join(f"{name} ({count(train[name])} rows)" for name in sorted(odd)[:5])
        found.warnings.append(f'column "{column}": negative ids {rows} are classes of their own; '
                              "leave those rows out if they mean unlabelled")  # fmt: skip
    lists = sum(n for name, n in train.items() if name.startswith("[") and name.endswith("]"))
    if lists > total / 2:
        found.errors.append(f'column "{column}" holds lists written as text ({next(iter(train))[:40]}); '
                            "give real lists in JSON Lines or Parquet")  # fmt: skip


def _check_unseen(found: Audit, labels: Labels, counts: Mapping[str, Counter[str]], column: str) -> None:
    for split, here in counts.items():
        unseen = {name: n for name, n in here.items() if name not in counts["train"]}
        if not unseen:
            continue
        listed = ", ".join(f'"{name}" ({count(n)})' for name, n in sorted(unseen.items(), key=lambda p: -p[1])[:8])
        more = ", …" if len(unseen) > 8 else ""
        plural = "s" * (len(unseen) != 1)
        text = f'{split}: {len(unseen)} label{plural} of column "{column}" never seen in train: {listed}{more}'
        if labels.raw == "places" and set(unseen) <= set(labels.names):
            found.warnings.append(f"{text}; the model cannot learn them, their rows count as measured")
        elif split in found.facts.get("held_out", ()):
            found.errors.append(f"{text}; hf-tuner itself held these rows out of train. A label needs rows enough to be learnt and "
                                "measured: leave such rows out, add more, or give rows to measure with --eval-dataset")  # fmt: skip
        else:
            found.errors.append(f"{text}; add such rows to train, leave them out, or mend the spelling")


def _check_ids(found: Audit, train: Counter[str], total: int, column: str) -> bool:
    """Whether labels are nearly as many as rows, and so an error."""
    if len(train) <= total / 2 or len(train) < 3:
        return False
    shown = ", ".join(list(train)[:5])
    text = f'column "{column}" has {count(len(train))} classes in {count(total)} rows ({shown}, …):'
    cure = "ids or numbers? Name another column (--columns label=COLUMN) or use --problem regression"
    (found.errors if total >= FEW_ROWS else found.warnings).append(f"{text} {cure}")
    return total >= FEW_ROWS


def _check_balance(found: Audit, train: Counter[str], total: int, column: str) -> None:
    name, most = train.most_common(1)[0]
    if len(train) > 1 and most > 0.98 * total:
        found.warnings.append(f'column "{column}" is nearly constant: {share(most / total)} of train is "{name}"')
    single = sorted(name for name, n in train.items() if n == 1)
    if single and len(train) <= total / 2:
        shown = ", ".join(single[:5]) + (", …" if len(single) > 5 else "")
        found.warnings.append(f"{len(single)} class{'es' * (len(single) != 1)} with a single training row: {shown}")


def _check_numbers(found: Audit, column: str) -> None:
    for split, rows in found.data.items():
        values = np.concatenate([[_float(v) for v in a.to_pylist()] for _, a in store.column(rows, "label")])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            shown = rows[int(bad[0])]["label"]
            found.errors.append(
                f'{split}: column "{column}" is not a number in {count(len(bad))} of {count(rows.num_rows)} rows '
                f'(first: "{shown}"); mend them, or --problem single makes each value a class'
            )
        elif split == "train" and values.max() == values.min():
            found.errors.append(f'column "{column}" is {values[0]:g} in every training row: nothing can be learnt')
        elif split == "train":
            found.facts["numbers"] = {
                "min": float(values.min()),
                "mean": float(values.mean()),
                "max": float(values.max()),
            }


def _label_counts(rows: Dataset, labels: Labels) -> Counter[str]:
    """Rows for each class name; in lists every label counts."""
    if labels.raw == "flags":
        vectors = np.array(rows["label"][:])
        return Counter({name: int(n) for name, n in zip(labels.names, vectors.sum(axis=0), strict=True) if n})
    feature = rows.features["label"]
    inner = getattr(feature, "feature", feature)
    own = getattr(inner, "names", None)
    result: Counter[str] = Counter()
    for _, array in store.column(rows, "label"):
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            array = array.flatten()
        for value, number in ((p["values"], p["counts"]) for p in pc.value_counts(array).to_pylist()):
            if not is_empty(value) and not (own and value < 0):
                result[own[value] if own else labels.name(value)] += number
    return result


def _near_names(names: Sequence[str], column: str) -> list[str]:
    """A warning when class names differ only in case, spaces or leading zeros."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = " ".join(name.casefold().split())
        groups.setdefault(str(int(plain)) if plain.isdecimal() else plain, []).append(name)
    alike = [sorted(group) for group in groups.values() if len(group) > 1]
    if not alike:
        return []
    shown = "; ".join(" / ".join(f'"{name}"' for name in group) for group in alike[:5])
    return [f'column "{column}": classes that differ only in case, spaces or zeros: {shown}; are they the same?']


def _float(value: Any) -> float:
    try:
        return float(text_of(value) if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        return float("nan")
