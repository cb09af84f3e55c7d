"""What the tasks share whose answers are segments: data, batches, the loss, and the classes' names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.tasks._segment_audit import segment_findings
from hf_tuner.tasks._segment_batches import AUGMENT, batches, dress, has_segments
from hf_tuner.tasks._segment_classes import is_mapped, known_labels, map_counts, names_of, numbered
from hf_tuner.tasks._segment_layouts import COLUMNS, TARGETS, segment_layout
from hf_tuner.tasks._segments import known_of, unpacked
from hf_tuner.tasks._task import Findings, Layout, Usage
from hf_tuner.tasks._vision import PictureTask, check_settings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hf_tuner.tasks._drawn import Drawn
    from hf_tuner.tasks._pictured import Sample
    from hf_tuner.tasks._segments import Known, Segments

DRAWN = 8


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Settings of tasks with segments."""

    classes: str = option(
        "auto", "Names of class numbers in maps: 1=cat or a list, or a JSON file (auto: id2label.json beside the data)."
    )
    ignore_index: int | None = option(
        None, "A class number in maps that is none, besides 255 where it has no name (-1: every number is one)."
    )
    bad_segments: str = option(
        "refuse",
        "Segments that stand out of their picture or cover no pixel: refuse them, or clip.",
        ("refuse", "clip"),
    )
    augment: str = option("crop", "How training pictures and masks are changed: none, crop (and flip).", AUGMENT)
    image_size: int = option(0, "Edge of the square in pixels that the model reads; 0: as its processor says.")
    threshold: float = option(0.5, "Score from which a segment is given as an answer.")

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        check_settings(self.image_size, self.threshold)


@dataclass(frozen=True, kw_only=True)
class SegmentTask(PictureTask):
    """A task whose rows have a picture and segments, and whose model gives a class and a mask for each of its queries."""

    auto_model: ClassVar[str] = "AutoModelForUniversalSegmentation"
    pipeline: ClassVar[str] = "image-segmentation"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = COLUMNS
    optional: ClassVar[tuple[str, ...]] = tuple(name for name in COLUMNS if name != "image")
    targets: ClassVar[tuple[str, ...]] = TARGETS
    carried: ClassVar[tuple[str, ...]] = ("image", "map")
    pictures: ClassVar[tuple[str, ...]] = ("image", "map")
    batch_norm: ClassVar[str] = "frozen"
    pace: ClassVar[tuple[int, int]] = (8, 10)
    at_once: ClassVar[int] = 16
    problem: ClassVar[str] = "detection"
    stuff: ClassVar[bool]
    """Whether what is no thing (sky, road) is a segment too."""

    names: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    """The class number in maps of each class, where maps alone say what segments are."""
    density: float = 1.0
    """Segments of a training picture on average."""
    bad_segments: str = "refuse"
    augment: str = "crop"
    image_size: int = 0
    threshold: float = 0.5
    seed: int = 0

    # --- from data

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Pictures with a column of objects, with segments and labels, or with maps."""
        return segment_layout(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Segments outside, without a pixel or of no class, crowds, maps of another size."""
        return segment_findings(data, run, run.task_config or SegmentConfig(), cls.stuff)

    @classmethod
    def settings(cls, data: Mapping[str, Any], run: Run) -> dict[str, Any]:
        """The fields of the task for these rows."""
        given, rows = run.task_config or SegmentConfig(), data["train"]
        made: dict[str, Any] = {
            name: getattr(given, name) for name in ("bad_segments", "augment", "image_size", "threshold")
        }
        made["seed"] = run.seed
        if is_mapped(rows):
            known = numbered(data, run, given, cls.stuff)
            total = sum(one[0] for number, one in map_counts(data, cls.stuff)["train"].items() if number in known)
            return {
                **made,
                "names": tuple(known.values()),
                "numbers": tuple(known),
                "density": total / max(1, len(rows)),
            }
        names = names_of(rows, cls.stuff)
        pairs = zip(rows["labels"][:], rows["crowds"][:], strict=True)
        total = sum(label in names and not crowd for row in pairs for label, crowd in zip(*row, strict=True))
        return {**made, "names": names, "density": total / max(1, len(rows))}

    def for_model(self, run: Run, config: Any, processor: Any, data: Mapping[str, Any]) -> "SegmentTask":
        """The same. Raises UsageError for models whose masks cannot be trained here."""
        from hf_tuner.tasks._segment_loss import require_known

        require_known(config, self.image_size)
        return self

    def prepare(self, rows: Any) -> Any:
        """The same rows. Raises UsageError for labels that the model does not know."""
        return known_labels(rows, self.names, self.stuff)

    @property
    def note(self) -> str:
        """How many classes there are, and what says so."""
        return f"{len(self.names)} classes" + (", the numbers found in the maps" if self.numbers else "")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Labels in the order of the logits."""
        return self.names

    def config_options(self) -> dict[str, Any]:
        """Number and names of the labels."""
        known = dict(enumerate(self.names))
        return {"id2label": known, "label2id": {name: index for index, name in known.items()}}

    def dress(self, processor: Any) -> str:
        """Pictures of one size, see `_segment_batches.dress`."""
        dress(processor, self.image_size)
        return ""

    @property
    def ids(self) -> dict[int, int]:
        """Class number in maps → class id."""
        return {number: index for index, number in enumerate(self.numbers)}

    # --- rows to tensors

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """Segments as they are written and labels as class ids, where there are any; classes that are none are left out."""
        ids = {name: index for index, name in enumerate(self.names)}

        def rows(batch: dict[str, list]) -> dict[str, list]:
            made: dict[str, list] = {"length": [1] * len(next(iter(batch.values())))}
            if "segments" not in batch:
                return made
            known = [[place for place, label in enumerate(labels) if label in ids] for labels in batch["labels"]]
            pick = {name: [[row[i] for i in places] for row, places in zip(batch[name], known, strict=True)]
                    for name in ("segments", "labels", "crowds")}  # fmt: skip
            return {**made, **pick, "labels": [[ids[label] for label in row] for row in pick["labels"]]}

        return rows

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch, see `batches`."""
        return batches(processor, self.augment, self.seed, self.ids, self.stuff)

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Proof that training pictures have segments, and that those are of known classes."""
        if "segments" not in ready.column_names:
            told = f"{self.density * len(ready):,.0f} segments in {len(ready):,} maps"
            return [("every segment has a class", self.density > 0, told)]
        labels = [label for row in ready.with_format(None)["labels"][:] for label in row]
        good = bool(labels) and all(0 <= label < len(self.names) for label in labels)
        return [("every segment has a class", good, f"{len(labels):,} segments in {len(ready):,} pictures")]

    # --- training

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Masks of the batch."""
        return batch["class_labels"].ge(0).sum() * batch["counted"].any()

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The model's own loss as a sum over masks."""
        from hf_tuner.tasks._segment_loss import summed_loss

        return summed_loss(model, batch, self.density)

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """The segments of each picture, see `packed`."""
        from functools import partial

        import torch

        from hf_tuner.tasks._segment_loss import resized
        from hf_tuner.tasks._segments import broken, from_masks, packed

        made, kept = model(pixel_values=batch["pixel_values"]), []
        canvas = tuple(batch["pixel_values"].shape[-2:])
        sizes = zip(batch["inside"].tolist(), batch["sizes"].tolist(), strict=True)
        for index, (inside, size) in enumerate(sizes):
            classes, masks = made["class_queries_logits"][index], made["masks_queries_logits"][index]
            if not (torch.isfinite(classes).all() and torch.isfinite(masks).all()):
                kept.append(broken(*size))
                continue
            at_size = partial(resized, canvas=canvas, inside=tuple(inside), size=tuple(size))
            kept.append(packed(from_masks(*self.found(classes, masks, at_size))))
        return kept

    def found(self, classes: Any, masks: Any, at_size: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
        """Masks bool [n, height, width], scores and classes [n] of one picture's class and mask logits."""
        raise NotImplementedError

    def roughly(self, kept: "list[np.ndarray]") -> "list[np.ndarray]":
        """A map [height, width] of the class that is surest at each pixel, from 1, for each picture; 0 where there is none."""
        from hf_tuner.tasks._segments import surest

        return [surest(unpacked(one)) for one in kept]

    def known(self, kept: "list[np.ndarray]", ready: Any) -> "list[tuple[Segments, Known]]":
        """What was found in each picture, beside what it is annotated with."""
        made = []
        for one, row in zip(map(unpacked, kept), ready, strict=True):
            if not has_segments(row):
                raise ValueError("rows without segments cannot be measured")
            made.append((one, known_of(row, one.height, one.width, self.ids, self.stuff)))
        return made

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": segments} for each picture, surest first: {"label", "score", "box", "segmentation"}; the box is
        left, top, right, bottom in pixels, the segmentation COCO's runs (RLE)."""
        from hf_tuner.tasks._segment_drawing import listed

        return [{"prediction": listed(unpacked(one), self.names, self.threshold)} for one in kept]

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> "list[Drawn]":
        """The first pictures, each with what was expected (left) and what was found (right)."""
        from hf_tuner.tasks._segment_drawing import side_by_side

        first = self.known(kept[:DRAWN], ready.select(range(min(DRAWN, len(kept)))))
        return side_by_side(first, ready, self.names, self.threshold)

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures that show every label, with their segments as training reads them laid over them."""
        from hf_tuner.tasks._pictured import spread
        from hf_tuner.tasks._segment_drawing import pictured

        chosen = spread(rows["labels"][:] if "labels" in rows.column_names else [()] * len(rows), most, seed)
        few = rows.select(chosen)
        made = self.encode(None, 0)(few.remove_columns([one for one in self.carried if one in few.column_names])[:])
        ready = ({**row, **{name: made[name][at] for name in made}} for at, row in enumerate(few))

        return pictured(zip(chosen, ready, strict=True), self.names, self.ids, self.stuff)

    def shown(self, answer: str, lines: tuple[str, ...]) -> Usage:
        """The code of a card: the processor, the model, and `lines` that make `found` of `outputs`."""
        return Usage(
            reads="a column `image` with paths of pictures",
            example='["picture.jpg"]',
            answer=answer,
            verb="segment",
            imports=("AutoImageProcessor",),
            lines=(
                "import torch",
                "from PIL import Image",
                "",
                'picture = Image.new("RGB", (640, 480))  # or Image.open("picture.jpg").convert("RGB")',
                "with torch.no_grad():",
                '    outputs = model(pixel_values=processor(picture, return_tensors="pt")["pixel_values"])',
                *lines,
                'for segment in found["segments_info"]:',
                '    mask = found["segmentation"] == segment["id"]',
                '    print(model.config.id2label[segment["label_id"]], segment["score"], int(mask.sum()), "pixels")',
                'print(len(found["segments_info"]), "found")',
            ),
        )
