"""image-classification: one label, several labels or a number for a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner import catalog
from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks._classifier import Classifier
from hf_tuner.tasks._drawn import Drawn
from hf_tuner.tasks._labels import labels_of
from hf_tuner.tasks._picture_models import require_plain_pixels
from hf_tuner.tasks._task import Findings, Layout, Measures, Usage
from hf_tuner.tasks._vision import (
    PICTURES,
    PictureTask,
    augmenter,
    columns_of,
    decoded,
    input_size,
    picture_columns,
    pixels_of,
)

if TYPE_CHECKING:
    import numpy as np

    from hf_tuner.tasks._pictured import Sample

SHOWN = 12
"""Pictures of the worst errors on the report's page."""


@dataclass(frozen=True)
class Config:
    """Settings of image classification."""

    augment: str = option("crop", "How training pictures are changed: none, crop (and flip), trivial.")

    def __post_init__(self) -> None:
        """Raise ValueError for an augmentation that there is not."""
        known = ["none", *catalog.names("augment")]
        if self.augment not in known:
            raise ValueError(catalog.unknown("augmentation", self.augment, known))


@dataclass(frozen=True, kw_only=True)
class ImageClassification(Classifier, PictureTask):
    """What an image classifier reads, which head it wears, how pictures become pixels and logits become answers."""

    name: ClassVar[str] = "image-classification"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "label"),)
    auto_model: ClassVar[str] = "AutoModelForImageClassification"
    pipeline: ClassVar[str] = "image-classification"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": PICTURES,
        "label": ("label", "labels", "class", "category", "target", "fine_label", "species", "breed", "tags", "y"),
    }
    carried: ClassVar[tuple[str, ...]] = ("image", "label")

    augment: str = "crop"
    seed: int = 0

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """A column of pictures or paths, and one of labels."""
        found = picture_columns(features, given, cls.columns)
        return Layout("pictures with labels" if "label" in found else "pictures", found, lambda row: {})

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Labels that only evaluation has, or that are one class only."""
        found = Findings()
        if "label" not in data["train"].column_names:
            raise UsageError(f"no column for label; found: {columns_of(data['train'])}; "
                             "name it: --columns label=COLUMN")  # fmt: skip
        labels = labels_of(data["train"], run.problem)
        counts = _counts(data["train"]["label"][:], labels)
        found.facts["classes"] = counts
        if labels.problem == "single" and sum(1 for n in counts.values() if n) < 2:
            only = next(name for name, n in counts.items() if n)
            raise UsageError(f'one class only ("{only}"): nothing to learn; pictures need at least two classes')
        ordered = sorted(counts.items(), key=lambda pair: -pair[1])
        named = ", ".join(f"{name} {n:,}" for name, n in ordered[:8]) + (", …" if len(ordered) > 8 else "")
        found.lines["labels"] = f"{labels.note}; {named}" if counts else labels.note
        for split, rows in data.items():
            for i, value in enumerate(rows["label"][:] if split != "train" else ()):
                try:
                    labels.encode(value)
                except UsageError as error:
                    found.errors.append((split, i, str(error)))
        return found

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "ImageClassification":
        """Decide what the labels are from the training rows."""
        settings = run.task_config or Config()
        return cls(labels=labels_of(data["train"], run.problem), augment=settings.augment, seed=run.seed)

    def require_model(self, config: Any, model: str) -> None:
        """Raise UsageError for a classifier that reads something else than pixels."""
        require_plain_pixels(config, self.auto_model, model)

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Labels as class ids, sets of flags or numbers."""
        if "label" not in ready.column_names:
            return ready
        encoded = [self.labels.encode(value) for value in ready["label"][:]]
        return ready.remove_columns("label").add_column("labels", encoded)

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch: pixel_values [rows, channels, height, width], labels [rows(, classes)]."""
        import torch

        pixels = pixels_of(processor, augmenter(self.augment, input_size(processor), self.seed))
        kind = torch.long if self.problem == "single" else torch.float

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            result = {"pixel_values": pixels(rows)}
            if "labels" in rows[0]:
                result["labels"] = torch.tensor([row["labels"] for row in rows], dtype=kind)
            return result

        return batch

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Accuracy, top-5 accuracy, F1 …; for numbers correlations and errors."""
        import numpy as np

        found = super().measure(kept, ready, rows)
        if self.problem != "single" or len(self.label_names) <= 5:
            return found
        references = np.asarray(ready.with_format(None)["labels"])
        best = np.argsort(-np.asarray(kept), axis=1, kind="stable")[:, :5]
        hits = (best == references[:, None]).any(axis=1).astype(float)
        top = {"top5_accuracy": lambda weights: weights @ hits / weights.sum(axis=1)}
        first, *others = found.scores.items()
        return Measures(dict([first, *top.items(), *others]), found.rows, found.notes)

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[Drawn]:
        """The pictures whose wrong answers are surest, with what was expected and predicted."""
        import numpy as np

        from hf_tuner.tasks._picture_grid import grid

        if self.problem != "single":
            return []
        scores, right = self.probabilities(np.asarray(kept)), np.asarray(ready.with_format(None)["labels"])
        best = scores.argmax(axis=1)
        wrong = np.flatnonzero(best != right)
        chosen = wrong[np.argsort(-scores[wrong, best[wrong]], kind="stable")][:SHOWN].tolist()
        if not chosen:
            return []
        names = self.label_names
        cells = [
            (decoded(rows[i]["image"]), (f"is {names[right[i]]}", f"said {names[best[i]]} {scores[i, best[i]]:.2f}"))
            for i in chosen
        ]
        text = f"{len(chosen)} of {len(wrong)} pictures with a wrong answer, the surest first"
        return [Drawn("worst-pictures", "Worst errors in pictures", grid(cells), text)]

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures of every class with their labels, sorted by them."""
        from hf_tuner.tasks._pictured import plain, spread

        known: list[Any] = [self.labels.encode(value) for value in rows["label"][:]]
        chosen = spread([self._flags(one) for one in known], most, seed)
        numbers = self.problem == "regression"
        chosen.sort(key=lambda row: (known[row] if numbers else self._flags(known[row]), row))
        pairs = zip(chosen, rows.select(chosen), strict=True)
        return [plain(row, number, [self._said(known[number])]) for number, row in pairs]

    def _flags(self, encoded: Any) -> list[int]:
        """The classes of an encoded label; none of numbers."""
        if self.problem == "single":
            return [encoded]
        return [k for k, flag in enumerate(encoded) if flag] if self.problem == "multi" else []

    def _said(self, encoded: Any) -> str:
        if self.problem == "regression":
            return f"{encoded:g}"
        return ", ".join(self.label_names[k] for k in self._flags(encoded)) or "no label"

    @property
    def gives(self) -> str:
        """One of n classes, any of n labels, or a number."""
        names = f"{len(self.label_names):,}"
        what = {"single": f"one of {names} classes", "multi": f"any of {names} labels", "regression": "a number"}
        return f"{what[self.problem]} for a picture"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it answers where it should not."""
        return ({
            "single": "It answers with one of its classes for every picture, also for one that shows none of them.",
            "multi": "It knows its own labels only; a picture with no label above 0.5 gets none.",
            "regression": "It answers with a number for every picture, also where a number makes no sense.",
        }[self.problem],)  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """The transformers pipeline, with what it must be told."""
        apply = {"multi": ('function_to_apply="sigmoid"',), "regression": ('function_to_apply="none"',)}
        return Usage(
            reads="a column `image` with paths of pictures",
            example='["picture.jpg"]',
            answer="Each answer has the likeliest classes with their scores.",
            options=apply.get(self.problem, ()),
        )


def _counts(values: Sequence[Any], labels: Any) -> dict[str, int]:
    """Rows of each class; empty for numbers."""
    import numpy as np

    if labels.problem == "regression":
        return {}
    encoded = [labels.encode(value) for value in values]
    if labels.problem == "multi":
        return {name: int(n) for name, n in zip(labels.names, np.asarray(encoded).sum(axis=0), strict=True)}
    found = np.bincount(encoded, minlength=len(labels.names))
    return {name: int(n) for name, n in zip(labels.names, found, strict=True)}
