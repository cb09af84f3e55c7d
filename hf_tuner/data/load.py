"""`load_data`: from what `--dataset` names to checked train, validation and test rows with the task's columns."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Value

from hf_tuner import console
from hf_tuner.config import Run
from hf_tuner.data import splits, store
from hf_tuner.data.audit import Audit, as_text, audit, clean
from hf_tuner.data.columns import also_possible, describe, match_columns
from hf_tuner.data.files import Reading
from hf_tuner.data.image_folders import is_image_folder
from hf_tuner.data.layouts import ROW, convert, has_layout, layout_of
from hf_tuner.data.meant import right_task
from hf_tuner.data.picture_rows import Seen, looked_at, with_pictures
from hf_tuner.data.sources import Raw, Source, parse, read
from hf_tuner.data.streams import Stream, read_stream, require_streamable
from hf_tuner.data.texts import TEXTS, check_texts, without_leaks
from hf_tuner.data.told import also, labels_lines, tell
from hf_tuner.errors import UsageError
from hf_tuner.tasks._labels import Labels, by_name, labels_of
from hf_tuner.tasks._task import Layout

MOST_ERRORS = 12


def load_data(run: Run, task: type) -> DatasetDict:
    """The rows of a run: splits among train, validation and test, with the canonical columns of `task` only.

    Rows keep their order. The result carries `tuner_notes`: the audit's warnings and facts, and for data from the Hub
    the commit it was read at (`revision`). What was found is printed in a few lines. Raises one UsageError with everything that is
    wrong with the data, and EnvironmentFault when it cannot be fetched or read.
    """
    notes: list[str] = []
    with no_bars():
        source, reading = parse(run.dataset, run.dataset_config), Reading(run.encoding, run.separator)
        _require_texts(source, task)
        require_streamable(run)
        raw, rest = read_stream(source, reading) if run.streaming else (read(source, reading), None)
        numbers = _Numbers()
        chosen = splits.choose(numbers.add(raw), run, notes)
        made = _arranged if has_layout(task) else _matched
        checked, lines, columns, later = made(run, task, raw, chosen, numbers, notes)
    checked.data.tuner_stream = Stream(rest, later) if rest is not None else None
    checked.data.tuner_notes = {
        "warnings": list(checked.warnings),
        "audit": {"columns": columns, **{k: v for k, v in checked.facts.items() if k != "examples"}},
        **({"revision": raw.revision} if raw.revision else {}),
        **({"streamed": True} if rest is not None else {}),
    }
    tell({"data": raw.origin, **lines}, checked, raw.notes + notes)
    return checked.data


Loaded = tuple[Audit, dict[str, str], Mapping[str, str], Callable[[Dataset, int], Dataset]]
"""Audited rows, lines for the screen, canonical name → column, and what makes canonical rows of later windows of a stream."""


def _matched(
    run: Run, task: type, raw: Raw, chosen: Mapping[str, Dataset], numbers: "_Numbers", notes: list[str]
) -> Loaded:
    """Rows of a task whose columns need only finding."""
    with right_task(run.task, _names(raw, chosen["train"]), run.columns):
        columns = match_columns(_names(raw, chosen["train"]), task, run.columns)
    rows = {name: _project(split, columns, raw, name, notes) for name, split in chosen.items()}
    if run.eval_dataset:
        rows["test"] = _measured(run, task, columns, numbers, notes)
    first = _whole_rows(splits.labelled(_same_classes(rows), notes), run, columns, numbers)
    data = _completed(dict(first.data), run, task, notes)
    first.facts["held_out"] = [
        s for s in data if s not in first.data or (s == "validation" and splits.share_of(run.eval_split))
    ]
    labels, checked = _checked(data, run, columns, first)
    others = also_possible(_names(raw, chosen["train"]), task, columns)

    def later(rows: Dataset, before: int) -> Dataset:
        return clean({"train": _project(rows, columns, raw, "train", [])}, drop_empty=True).data["train"]

    return checked, {"columns": describe(columns) + also(others), **labels_lines(labels, checked)}, columns, later


def _arranged(
    run: Run, task: type, raw: Raw, chosen: Mapping[str, Dataset], numbers: "_Numbers", notes: list[str]
) -> Loaded:
    """Rows of a task that recognises layouts itself."""
    for text in raw.faults.values():
        notes.append(text)
    errors: list[str] = []
    with right_task(run.task, _names(raw, chosen["train"]), run.columns):
        layout = layout_of(chosen["train"], task, run.columns, run.task_config, raw.faults)
    pictures: Sequence[str] = getattr(task, "pictures", ())
    chosen = _with_columns(chosen, layout.columns, getattr(task, "targets"), notes)  # noqa: B009

    def place(number: int) -> str:
        file, row = numbers.place(number)
        return f"{file} row {row}"

    def converted(part: Dataset, own: Layout, folder: Path | None) -> Dataset:
        shown = [own.columns[name] for name in pictures if name in own.columns]
        part, aside = with_pictures(part, shown, folder), getattr(task, "carried", ())
        return convert(part, own, place, errors, drop_empty=run.drop_empty, carried=aside)

    rows = {name: converted(part, layout, raw.folder) for name, part in chosen.items()}
    if run.eval_dataset:
        part = _sampled(_other(run, numbers, notes), run)
        known = all(_has(part, column) for column in layout.columns.values())
        own = layout if known else layout_of(part, task, None, run.task_config)
        rows["test"] = converted(part, own, numbers.parts[-1][0].folder)
    _refuse(errors)
    rows = _same_classes(rows) if "label" in rows["train"].column_names else rows
    _require_answers(task, rows)
    _refuse([f"{name}: no row is left" for name, part in rows.items() if not part.num_rows])
    data = _completed(rows, run, task, notes)
    shown = [name for name in pictures if name in data["train"].column_names]
    data, seen = _with_pictures_seen(data, shown, run, place) if pictures else (data, None)
    found = getattr(task, "audit")(data, run)  # noqa: B009 - declared by convention
    if seen is not None:
        found.warnings[:0] = seen.warnings
        found.lines["pictures"] = seen.line()
        found.facts |= seen.facts
    ids = {split: store.numbers(part, ROW) for split, part in data.items()}
    _refuse([f"{place(int(ids[split][row]))}: {text}" for split, row, text in found.errors])
    plain = DatasetDict({split: part.remove_columns(ROW) for split, part in data.items()})
    checked = Audit(
        plain, warnings=found.warnings, facts={"rows": {s: r.num_rows for s, r in plain.items()}, **found.facts}
    )
    check_texts(checked, layout.columns, run.fail_on_leak, getattr(task, "texts"))  # noqa: B009
    _refuse(checked.errors)

    def later(window: Dataset, before: int) -> Dataset:
        wrong: list[str] = []
        made = convert(window, layout, lambda number: f"row {before + number + 1}", wrong, drop_empty=run.drop_empty)
        _refuse(wrong)
        return made.remove_columns(ROW)

    return checked, {"columns": f"{layout.name}: {describe(layout.columns)}", **found.lines}, layout.columns, later


def _with_pictures_seen(
    data: DatasetDict, pictures: Sequence[str], run: Run, place: Callable[[int], str]
) -> tuple[DatasetDict, Seen]:
    """The rows with their pictures looked at. Raises UsageError for pictures that cannot be used."""
    ids = {split: store.numbers(part, ROW) for split, part in data.items()}
    data, seen = looked_at(data, pictures, lambda split, row: place(int(ids[split][row])), skip_bad=run.skip_bad,
                           drop_leaked=run.drop_leaked)  # fmt: skip
    leaks = [text for text in seen.warnings if "flatter" in text] if run.fail_on_leak else []
    _refuse(seen.errors + leaks)
    return data, seen


def _has(rows: Dataset, column: str) -> bool:
    """Whether rows have a column; "translation.en" is a field of "translation", "negative_1, negative_2" are two."""
    names = set(rows.column_names)
    return column in names or all({one, one.partition(".")[0]} & names for one in column.split(", "))


def _with_columns(
    chosen: Mapping[str, Dataset], columns: Mapping[str, str], targets: Sequence[str], notes: list[str]
) -> dict[str, Dataset]:
    """The splits that have the columns of train; one that lacks only answers is left aside, and said."""
    result = {}
    for split, rows in chosen.items():
        missing = {name: column for name, column in columns.items() if not _has(rows, column)}
        hidden = [
            columns[name]
            for name in targets
            if name in columns and split != "train" and _all_hidden(rows, columns[name])
        ]
        if hidden:
            notes.append(f'the {split} split has no answers (column "{hidden[0]}" is hidden), so it is not used')
            continue
        if not missing:
            result[split] = rows
            continue
        name, column = next(iter(missing.items()))
        if not set(missing) <= set(targets):
            found = ", ".join(c for c in rows.column_names if c != ROW)
            raise UsageError(f'{split}: no column "{column}" ({name}), as train has; found: {found}')
        notes.append(f'the {split} split has no column "{column}", so it is not used')
    return result


def _all_hidden(rows: Dataset, column: str) -> bool:
    """Whether a plain column holds -1 or nothing throughout, as tests whose answers are kept back do."""
    plain = isinstance(rows.features.get(column), Value | ClassLabel)
    return plain and not set(rows.unique(column)) - {None, -1, -1.0, "-1", ""}


def _require_answers(task: type, rows: Mapping[str, Dataset]) -> None:
    """Raise UsageError for rows to measure that lack what the task is measured against; of train the audit tells."""
    for split, part in ((split, part) for split, part in rows.items() if split != "train"):
        for name in getattr(task, "measured", ()):
            if name not in part.column_names:
                raise UsageError(f"{split}: no column for {name}; to measure, it is needed (--columns {name}=COLUMN)")


def _completed(rows: dict[str, Dataset], run: Run, task: type, notes: list[str]) -> DatasetDict:
    """Sampled, with what is held out of train, and without leaks, as the run asks."""
    if size := parse(run.dataset, run.dataset_config).sample:
        own = [split for split in rows if split != "test" or not run.eval_dataset]
        rows |= {split: splits.sample(rows[split], size, run.seed) for split in own}
        notes.append(f"a sample of at most {console.count(size)} rows of every split, seed {run.seed}")
    data = splits.complete(rows, run, notes)
    texts = getattr(task, "texts", TEXTS)
    return without_leaks(data, notes, texts) if run.drop_leaked and texts else data


def _require_texts(source: Source, task: type) -> None:
    """Raise UsageError for a folder of images and a task that reads texts."""
    if source.path is not None and not getattr(task, "pictures", ()) and is_image_folder(source.path):
        name = getattr(task, "name")  # noqa: B009 - declared by convention
        raise UsageError(f"{source.path} holds images, which {name} does not read: --task image-classification does")


class _Numbers:
    """Numbers all rows that are read, and knows which file and row each number stands for."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.parts: list[tuple[Raw, str]] = []
        self.total = 0

    def add(self, raw: Raw) -> dict[str, Dataset]:
        """The splits of `raw`, each with its rows' numbers as a column."""
        result = {}
        for split, rows in raw.splits.items():
            self.starts.append(self.total)
            self.parts.append((raw, split))
            result[split] = rows.add_column(ROW, np.arange(self.total, self.total + rows.num_rows))
            self.total += rows.num_rows
        return result

    def commits(self) -> dict[str, str]:
        """The commits on the Hub that rows were read at: of the data, and of `--eval-dataset`."""
        read = list(dict.fromkeys(id(raw) for raw, _ in self.parts))
        by_id = {id(raw): raw.revision for raw, _ in self.parts}
        names = ("revision", "eval_revision")
        return {name: str(by_id[key]) for name, key in zip(names, read, strict=False) if by_id[key]}

    def place(self, number: int) -> tuple[str, int]:
        """File and row of a number."""
        at = bisect_right(self.starts, number) - 1
        raw, split = self.parts[at]
        return raw.place(split, number - self.starts[at])


def _names(raw: Raw, rows: Dataset) -> list[str]:
    """Columns there are, those included that could not be read."""
    return [
        *(name for name in rows.column_names if name != ROW),
        *(f for f in raw.faults if f not in rows.column_names),
    ]


def _project(rows: Dataset, columns: Mapping[str, str], raw: Raw, split: str, notes: list[str]) -> Dataset:
    """Only the canonical columns, under their canonical names, text as text."""
    kept = {}
    for name, column in columns.items():
        if column in rows.column_names:
            kept[column] = name
        elif column in raw.faults:
            raise UsageError(raw.faults[column])
        elif name != "label":
            raise UsageError(f'{split}: no column "{column}"; found: {", ".join(_names(raw, rows))}')
    other = [name for name in rows.column_names if name not in kept and name != ROW]
    renamed = rows.remove_columns(other).rename_columns({k: v for k, v in kept.items() if k != v})
    return as_text(renamed, columns, notes if split == "train" else [])


def _measured(run: Run, task: type, columns: Mapping[str, str], numbers: _Numbers, notes: list[str]) -> Dataset:
    """The rows of `--eval-dataset` with canonical columns."""
    source = parse(str(run.eval_dataset))
    raw = read(source, Reading(run.encoding, run.separator))
    rows = _other(run, numbers, notes, raw)
    available = _names(raw, rows)
    own = columns if set(columns.values()) <= set(available) else match_columns(available, task)
    return _sampled(_project(rows, own, raw, "--eval-dataset", []), run)


def _other(run: Run, numbers: _Numbers, notes: list[str], raw: Raw | None = None) -> Dataset:
    """The raw rows of `--eval-dataset`: its test split, or else validation, or else all it has."""
    raw = raw or read(parse(str(run.eval_dataset)), Reading(run.encoding, run.separator))
    parts = numbers.add(raw)
    notes += [*raw.notes, f"test is {raw.origin}"]
    if run.test_split:
        return splits.part(parts, run.test_split, "test")
    return parts[splits.named(parts, "test") or splits.named(parts, "validation") or next(iter(parts))]


def _sampled(rows: Dataset, run: Run) -> Dataset:
    size = parse(str(run.eval_dataset)).sample
    return splits.sample(rows, size, run.seed) if size else rows


def _same_classes(rows: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Splits whose class label is not train's own give names instead of ids: ids of two lists do not compare."""
    train = rows["train"].features.get("label")
    result = dict(rows)
    for name, split in rows.items():
        feature = split.features.get("label")
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, ClassLabel) and feature != train:
            result[name] = by_name(split)
    return result


def _whole_rows(rows: Mapping[str, Dataset], run: Run, columns: Mapping[str, str], numbers: _Numbers) -> Audit:
    """The rows without the empty ones: found before rows are held out, so that counts are those of the files."""
    ids = {split: store.numbers(part, ROW) for split, part in rows.items()}
    first = clean(
        rows,
        drop_empty=run.drop_empty,
        place=lambda split, index: numbers.place(int(ids[split][index])),
        columns=columns,
    )
    if not all(part.num_rows for part in first.data.values()):
        _refuse(first.errors)
    return replace(first, data=DatasetDict({k: part.remove_columns(ROW) for k, part in first.data.items()}))


def _checked(data: DatasetDict, run: Run, columns: Mapping[str, str], first: Audit) -> tuple[Labels | None, Audit]:
    """What the labels are, and the audited rows. Raises one UsageError with all that is wrong."""
    errors: list[str] = []
    labels = None
    if "label" in data["train"].column_names:
        try:
            labels = labels_of(data["train"], run.problem)
        except UsageError as error:
            errors.append(str(error).replace('column "label"', f'column "{columns["label"]}"'))
    checked = audit(data, labels, columns=columns, cleaned=first, fail_on_leak=run.fail_on_leak)
    _refuse(checked.errors + errors)
    return labels, checked


def _refuse(errors: list[str]) -> None:
    """Raise what is wrong, all together; nothing when nothing is."""
    if errors:
        more = [f"… and {len(errors) - MOST_ERRORS} more"] if len(errors) > MOST_ERRORS else []
        raise UsageError("\n".join([*errors[:MOST_ERRORS], *more]))


@contextmanager
def no_bars() -> Iterator[None]:
    """No progress bars for the many small steps; downloads keep theirs."""
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not silent:
            datasets.enable_progress_bars()
