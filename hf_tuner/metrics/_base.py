"""What every metric file shares: checked arrays, and `evaluate.Metric` made to work offline without leaving files.

`evaluate.load("accuracy")` needs the Hub and runs the code it downloads; these classes need neither and work with
`evaluate.combine`.
"""

import inspect
from collections.abc import Sequence as Items
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError

WHOLE, REAL, WORD = datasets.Value("int64"), datasets.Value("float64"), datasets.Value("string")
LABELS = ((WHOLE, WHOLE), (datasets.Sequence(WHOLE), datasets.Sequence(WHOLE)), (WORD, WORD))
"""Class ids, rows of 0/1 for several labels, or class names."""
SETS = ((datasets.Sequence(WHOLE), datasets.Sequence(WHOLE)),)
"""Rows of 0/1, one column for each label."""
SCORES = ((REAL, WHOLE), (datasets.Sequence(REAL), WHOLE), (datasets.Sequence(REAL), datasets.Sequence(WHOLE)))
"""Scores [rows] or [rows, classes], with class ids or rows of 0/1."""
NUMBERS = ((REAL, REAL),)
"""One number for each row."""
AVERAGES = ("macro", "micro", "weighted", "binary")


class ArrayMetric(evaluate.Metric):
    """An `evaluate.Metric` around a pure function `score(predictions, references, **options) -> float`.

    Options are given at construction (`Metric(average="micro")`), so that `evaluate.combine` can mix metrics with
    different ones, or to `compute`. The result is `{name of the metric's file: value}`.
    """

    score: ClassVar[Any]
    formats: ClassVar[tuple] = LABELS
    text: ClassVar[str] = ""

    def __init__(self, *, num_process: int = 1, **options: Any) -> None:
        own = {k: options.pop(k) for k in list(options) if k in self.options()}
        # One process keeps its rows in memory; several share them through evaluate's cache folder.
        super().__init__(num_process=num_process, **{"keep_in_memory": num_process == 1, **options})
        self.given = own
        self._module_info.module_name = self.key()

    @classmethod
    def key(cls) -> str:
        """Name of the metric: the name of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def options(cls) -> list[str]:
        """Names of the settings its function takes."""
        return [n for n in inspect.signature(cls.score).parameters if n not in ("predictions", "references")]

    def _info(self) -> evaluate.MetricInfo:
        features = [datasets.Features({"predictions": p, "references": r}) for p, r in self.formats]
        return evaluate.MetricInfo(
            description=self.text, citation="", inputs_description=f"\n{self.text}", features=features
        )

    def _build_data_dir(self) -> str:
        return "" if self.keep_in_memory else super()._build_data_dir()

    def _infer_feature_from_batch(self, batch: dict[str, Any]) -> Any:
        whole = all(f["predictions"] in (WHOLE, WORD, datasets.Sequence(WHOLE)) for f in self.features)
        given = np.asarray(batch["predictions"])
        # evaluate would cut 0.9 down to 0 without a word.
        if whole and given.dtype.kind == "f" and not np.array_equal(given, np.round(given)):
            raise UsageError(
                f"{self.name} compares labels and {given.flat[0]:.4g} is a score; take the argmax of the scores first"
            )
        return super()._infer_feature_from_batch(batch)

    def _compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        chosen = {**self.given, **{k: v for k, v in options.items() if k in self.options()}}
        return {self.key(): type(self).score(np.asarray(predictions), np.asarray(references), **chosen)}


def arrays(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as numpy arrays. Raises UsageError when there are no rows or not equally many."""
    left, right = np.asarray(predictions), np.asarray(references)
    if left.ndim == 0 or right.ndim == 0 or len(left) != len(right):
        raise UsageError(f"{_rows(left)} predictions for {_rows(right)} references; there must be one for each")
    if len(left) == 0:
        raise UsageError("no rows to score; give at least one prediction and its reference")
    return left, right


def same_shape(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as numpy arrays of one shape. Raises UsageError when they differ."""
    left, right = arrays(predictions, references)
    if left.shape != right.shape:
        raise UsageError(f"predictions have the shape {left.shape} and references {right.shape}; they must be the same")
    return left, right


def numbers(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [rows]; a last axis of one is dropped. Raises UsageError for other shapes."""
    left, right = (np.asarray(a, np.float64) for a in arrays(predictions, references))
    left, right = (a[:, 0] if a.ndim == 2 and a.shape[1] == 1 else a for a in (left, right))
    if left.ndim != 1 or right.ndim != 1:
        raise UsageError(f"one number for each row is expected; found the shapes {left.shape} and {right.shape}")
    return left, right


def probabilities(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float64 [rows, classes] and class ids [rows]; [rows] is taken as P(class 1).

    Raises UsageError for values outside 0 and 1 (logits) and class ids without a column.
    """
    left, right = arrays(predictions, references)
    left = left.astype(np.float64)
    left = np.stack([1 - left, left], axis=1) if left.ndim == 1 else left
    if left.ndim != 2 or right.ndim != 1:
        raise UsageError(
            f"expected probabilities [rows, classes] and class ids [rows]; found {left.shape}, {right.shape}"
        )
    if np.any((left < 0) | (left > 1 + 1e-6)):
        raise UsageError(
            f"expected probabilities; found {left.min():.4g} … {left.max():.4g}; apply softmax to logits first"
        )
    if right.min() < 0 or right.max() >= left.shape[1]:
        raise UsageError(f"class ids must be 0 … {left.shape[1] - 1}; found {right.min()} … {right.max()}")
    return left, right.astype(np.int64)


def average_of(name: str, known: Items[str] = AVERAGES) -> str:
    """A checked name of an average. Raises UsageError with the nearest name."""
    if name not in known:
        close = nearest(str(name), list(known))
        hint = f'; did you mean "{close}"?' if close else ""
        raise UsageError(f'average "{name}": expected one of {", ".join(known)}{hint}')
    return name


def mean_over_classes(scores: np.ndarray, truth: np.ndarray, score: Any, usable: np.ndarray) -> float:
    """Mean of `score(truth of a class, scores of a class)` over the usable classes; NaN when there are none."""
    values = [score(truth[:, k], scores[:, k]) for k in np.flatnonzero(usable)]
    return float(np.mean(values)) if values else float("nan")


def one_column_each(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and 0/1 truth, both [rows, columns]: one column for two classes, else one for each class.

    `scores` is [rows] or [rows, classes]; `truth` is class ids [rows] or 0/1 [rows, classes].
    Raises UsageError when they don't fit.
    """
    if truth.ndim == 1 and scores.ndim == 2 and scores.shape[1] > 2:
        truth = truth[:, None] == np.arange(scores.shape[1])
    elif truth.ndim == 1 and scores.ndim == 2 and scores.shape[1] == 2:
        scores, truth = (scores[:, 1] - scores[:, 0])[:, None], truth[:, None]
    elif truth.ndim == 1 and scores.ndim == 1:
        scores, truth = scores[:, None], truth[:, None]
    if scores.shape != truth.shape:
        raise UsageError(f"scores have the shape {scores.shape} and references {truth.shape}; they don't fit")
    return scores.astype(np.float64), np.asarray(truth, np.int64)


def _rows(array: np.ndarray) -> str:
    return str(len(array)) if array.ndim else "a single value instead of a list of"
