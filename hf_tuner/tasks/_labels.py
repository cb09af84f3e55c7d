"""What labels are: classes, sets of classes or numbers; their names and order; and how a value becomes a target.

The rules, in the order they are tried (`problem` other than "auto" overrides them):

- a class label of the data set: classes, in its own order;
- lists: several classes each; equally long lists of 0 and 1 are one flag for each class;
- true/false: two classes, false first;
- whole numbers, negative and 1-based ones too: classes, in numeric order, named by their text;
- decimal numbers: up to 20 different whole values (0.0, 1.0, 2.0) are classes, all else is regression;
- text: classes in natural order (2 before 10); text that is decimal numbers throughout follows the rule above.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

FEW = 20
"""Decimal numbers that are all whole are classes up to this many different values."""


@dataclass(frozen=True)
class Labels:
    """The labels of one run, decided once from its training rows and kept with the model."""

    problem: str
    """One of "single", "multi" and "regression"."""
    names: tuple[str, ...] = ()
    """Class names in the order of the model's outputs; empty for regression."""
    note: str = ""
    """What was decided and why, in one sentence."""
    raw: str = "names"
    """How integers stand in the data: "names" (their text is a class name), "places" (a class label's positions)
    or "flags" (lists of 0 and 1, one for each class)."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Class name → position."""
        return {name: index for index, name in enumerate(self.names)}

    def __getstate__(self) -> dict[str, Any]:
        # Without what was cached: two equal values must pickle alike, for `datasets` hashes them.
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def encode(self, value: Any) -> int | list[float] | float:
        """A raw label as a target: class position, one 0.0/1.0 for each class, or a number.

        Raises UsageError for a value that is not among the labels.
        """
        if self.problem == "regression":
            return _number(value)
        if self.problem == "single":
            return self.place(value)
        if not isinstance(value, list | tuple):
            value = [value]
        if self._is_flags(value):
            return [float(flag) for flag in value]
        chosen = {self.place(item) for item in value}
        return [float(index in chosen) for index in range(len(self.names))]

    def place(self, value: Any) -> int:
        """Position of one class. Raises UsageError with the nearest name."""
        if self.raw == "places" and _is_whole(value):
            index = value
        else:
            index = self.places.get(text_of(value), self.places.get(_class_text(value)))
        if index is None and not any(_integer(name) for name in self.names):
            # Names such as "spam" cannot be meant by a number, so it is a position.
            index = int(text_of(value)) if _integer(text_of(value)) else None
        if index is None or not 0 <= index < len(self.names):
            close = nearest(text_of(value), self.names)
            hint = f'; did you mean "{close}"?' if close else ""
            shown = ", ".join(self.names[:10]) + (", …" if len(self.names) > 10 else "")
            raise UsageError(f'label "{text_of(value)}" is not one of the {len(self.names)} classes ({shown}){hint}')
        return index

    def name(self, value: Any) -> str:
        """The class name of a raw value, or its own text when it is no class of these."""
        try:
            return self.names[self.place(value)]
        except UsageError:
            return text_of(value)

    def _is_flags(self, value: Sequence[Any]) -> bool:
        if len(value) != len(self.names) or not all(isinstance(v, int | float) and v in (0, 1) for v in value):
            return False
        # A list longer than two that holds only 0 and 1 cannot be a list of different positions.
        return self.raw == "flags" or len(value) > 2


def infer(values: Iterable[Any], feature: Any = None, problem: str = "auto") -> Labels:
    """Decide what the labels are from the training rows' raw values and the column's `datasets` feature.

    Empty values (None, NaN, blank text) are passed over. Raises UsageError for values that can be no label, and
    for a `problem` that they cannot serve.
    """
    seen = [value for value in values if not is_empty(value)]
    if not seen:
        raise UsageError('column "label" has no values')
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else None)
    own = getattr(feature, "names", None) or getattr(inner, "names", None)
    lists = isinstance(seen[0], list | tuple)
    if own is not None:
        return _declared(tuple(own), lists, problem)
    if lists:
        return _sets(seen, problem)
    if not all(isinstance(v, str | bool | int | float) for v in seen):
        odd = next(v for v in seen if not isinstance(v, str | bool | int | float))
        raise UsageError(
            f'column "label" holds {type(odd).__name__} values ({str(odd)[:40]}); expected text, numbers or lists'
        )
    return _plain(set(seen), problem)


def labels_of(rows: Any, problem: str = "auto") -> Labels:
    """What the labels of a `datasets.Dataset` are: as `infer`, from the different values of its column "label"."""
    feature = rows.features["label"]
    if hasattr(feature, "dtype") and not hasattr(feature, "feature"):  # one value a row; lists are looked at whole
        return infer(rows.unique("label"), feature, problem)
    return infer(rows["label"][:], feature, problem)


def by_name(data: Any, column: str = "label") -> Any:
    """The same `datasets.Dataset` with class-label ids replaced by their names (labels saved with a model are
    matched by name, for another data set may number them in another order)."""
    from datasets import Value

    feature = data.features[column]
    inner = getattr(feature, "feature", None)
    names = getattr(feature, "names", None) or getattr(inner, "names", None)
    if names is None:
        return data

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(item) for item in value]
        return None if value is None or value < 0 else names[value]

    values = [named(value) for value in data[column][:]]
    kind = Value("string") if inner is None else type(feature)(Value("string"))
    return data.remove_columns(column).add_column(column, values, feature=kind)


def is_empty(value: Any) -> bool:
    """Whether a label is missing: null, NaN or blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def text_of(value: Any) -> str:
    """The class name of a raw value: true, 3 (for 3.0 too), 0.5, or the text itself."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def natural(text: str) -> tuple[Any, ...]:
    """Sort key: numbers inside text count as numbers, and case comes last."""
    if _decimal(text):
        return (0, float(text), (), text)
    parts = re.split(r"(\d+)", text.casefold())
    return (1, 0, tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts), text)


def _declared(names: tuple[str, ...], lists: bool, problem: str) -> Labels:
    problem = ("multi" if lists else "single") if problem == "auto" else problem
    if problem == "regression":
        if lists:
            raise UsageError("--problem regression: the labels are lists of classes, not numbers")
        return Labels("regression", (), "regression on the positions of the data set's class label, as asked", "places")
    if problem == "single" and lists:
        raise UsageError("--problem single: the labels are lists; use --problem multi")
    return Labels(problem, names, f"{_classes(names)}, in the order of the data set's own class label", "places")


def _sets(values: list[Any], problem: str) -> Labels:
    if problem in ("single", "regression"):
        raise UsageError(f"--problem {problem}: the labels are lists; use --problem multi")
    if not all(isinstance(value, list | tuple) for value in values):
        raise UsageError('column "label" mixes lists and single values')
    if any(isinstance(item, list | tuple | dict) for value in values for item in value):
        raise UsageError('column "label" holds lists of lists; expected lists of class names')
    found = {item for value in values for item in value if not is_empty(item)}
    if not found:
        raise UsageError('column "label" holds empty lists only')
    lengths = {len(value) for value in values}
    if found <= {0, 1} and len(lengths) == 1 and max(lengths) > 1:
        names = tuple(str(index) for index in range(max(lengths)))
        return Labels("multi", names, f"lists of 0 and 1: one flag for each of {len(names)} labels", "flags")
    names = _ordered({text_of(item) for item in found})
    return Labels("multi", names, f"lists: any number of {_classes(names)} for each row, in natural order")


def _plain(values: set[Any], problem: str) -> Labels:
    texts = {text_of(value) for value in values}
    numbers = _numbers(values)
    if problem == "regression":
        if numbers is None:
            word = next((t for t in sorted(texts) if not _decimal(t)), "true")
            raise UsageError(f'--problem regression: label "{word}" is not a number')
        return Labels("regression", (), f"regression, as asked ({_range(numbers)})")
    odd = next((t for t in sorted(texts) if re.search(r"[|;,]", t)), None)
    if problem == "multi" and odd is not None:
        raise UsageError(f'--problem multi: label "{odd}" is one text; give lists of labels (JSON Lines or Parquet)')
    if problem in ("single", "multi"):
        names = _ordered({_class_text(v) for v in values} if numbers is not None else texts)
        return Labels(problem, names, f"{_classes(names)}, as asked")
    if numbers is None or not _has_decimals(values):
        names = _ordered(texts)
        return Labels("single", names, _why(values, names))
    whole = all(number.is_integer() for number in numbers)
    if whole and len(set(numbers)) <= FEW:
        names = _ordered({str(int(number)) for number in numbers})
        return Labels("single", names, f"decimal numbers with few whole values are taken as {_classes(names)}; "
                      "--problem regression predicts the number instead")  # fmt: skip
    return Labels("regression", (), f"regression: the labels are {len(set(numbers))} different decimal numbers "
                  f"({_range(numbers)}); --problem single makes each a class")  # fmt: skip


def _why(values: set[Any], names: tuple[str, ...]) -> str:
    if all(isinstance(value, bool) for value in values):
        return f"{_classes(names)}, false before true"
    if all(_integer(name) for name in names):
        return (
            f"whole numbers are taken as {_classes(names)}, in numeric order; --problem regression predicts the number"
        )
    return f"{_classes(names)}, in natural order"


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4]) + (f", … {names[-1]}" if len(names) > 5 else "".join(f", {n}" for n in names[4:]))
    return f"{len(names)} class{'es' * (len(names) != 1)} ({shown})"


def _ordered(texts: set[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=natural))


def _class_text(value: Any) -> str:
    """The name of a number's class: "1.0" in a CSV file is the class 1."""
    if isinstance(value, str) and _decimal(value) and not _integer(value):
        return text_of(float(value))
    return text_of(value)


def _numbers(values: set[Any]) -> list[float] | None:
    """The values as numbers, or None when one is not."""
    if any(isinstance(value, bool) for value in values):
        return None
    if not all(isinstance(value, int | float) or _decimal(value) for value in values):
        return None
    return [float(value) for value in values]


def _has_decimals(values: set[Any]) -> bool:
    return any(isinstance(v, float) or (isinstance(v, str) and not _integer(v)) for v in values)


def _range(numbers: list[float]) -> str:
    return f"{min(numbers):g} to {max(numbers):g}"


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f'label "{value}" is not a number; --problem single treats labels as classes')
    return number


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+", text))


def _decimal(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text.strip()))


def majority_logits(labels: list[Any], problem: str, classes: int, rows: int) -> "np.ndarray":
    """Logits [rows, classes] that say the same for every row: class shares, label shares, or the mean."""
    import numpy as np

    values = np.asarray(labels)
    if problem == "regression":
        return np.full((rows, 1), values.mean(), np.float32)
    if problem == "multi":
        share = np.clip(values.mean(axis=0), 1e-6, 1 - 1e-6)
        return np.tile(np.log(share / (1 - share)).astype(np.float32), (rows, 1))
    share = np.bincount(values, minlength=classes) / len(values)
    return np.tile(np.log(np.maximum(share, 1e-9)).astype(np.float32), (rows, 1))
