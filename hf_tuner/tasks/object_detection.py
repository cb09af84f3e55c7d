"""object-detection: boxes with labels on pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks._box_audit import (
    box_findings,
    encoded_boxes,
    encoded_crowds,
    expected_boxes,
    format_of,
    names_of,
    sizes_of,
)
from hf_tuner.tasks._box_batches import AUGMENT, batches, canvas, extremes
from hf_tuner.tasks._box_layouts import box_layout
from hf_tuner.tasks._boxes import FORMATS
from hf_tuner.tasks._picture_models import require_own_loss
from hf_tuner.tasks._task import Findings, Layout, Measures, Usage
from hf_tuner.tasks._vision import PICTURES, PictureTask, check_settings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hf_tuner.tasks._drawn import Drawn
    from hf_tuner.tasks._pictured import Sample

DRAWN = 8


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of object detection."""

    box_format: str = option(
        "auto",
        "How boxes are written: coco (left, top, width, height), xyxy (corners), yolo (centre and size as shares), normalised "
        "(corners as shares); auto takes the one that keeps them inside their pictures.",
        ("auto", *FORMATS),
    )
    bad_boxes: str = option(
        "refuse", "Boxes outside of their picture or without area: refuse them, or clip.", ("refuse", "clip")
    )
    augment: str = option(
        "crop", "How training pictures and their boxes are changed: none, flip, crop (and flip).", AUGMENT
    )
    image_size: int = option(0, "Longest edge of pictures in pixels for the model; 0: as its processor says.")
    threshold: float = option(0.5, "Score from which a detection is given as an answer.")

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        check_settings(self.image_size, self.threshold)


@dataclass(frozen=True, kw_only=True)
class ObjectDetection(PictureTask):
    """What a detector reads, how boxes are written and measured, and how its outputs become boxes again."""

    name: ClassVar[str] = "object-detection"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "objects"), ("image", "boxes"))
    auto_model: ClassVar[str] = "AutoModelForObjectDetection"
    pipeline: ClassVar[str] = "object-detection"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": PICTURES,
        "objects": ("objects", "annotations"),
        "boxes": ("boxes", "bboxes", "bbox"),
        "labels": ("labels", "categories", "category"),
    }
    optional: ClassVar[tuple[str, ...]] = ("objects", "boxes", "labels")
    targets: ClassVar[tuple[str, ...]] = ("objects", "boxes", "labels", "written", "crowds", "crowd_labels")
    measured: ClassVar[tuple[str, ...]] = ("boxes",)
    batch_norm: ClassVar[str] = "frozen"
    pace: ClassVar[tuple[int, int]] = (8, 10)
    at_once: ClassVar[int] = 16
    logged: ClassVar[tuple[str, ...]] = ("map", "map_50")
    problem: ClassVar[str] = "detection"

    names: tuple[str, ...]
    box_format: str
    density: float
    """Boxes of a training picture on average."""
    shapes: tuple[tuple[int, int], ...] = ()
    """Width and height of the widest, the squarest and the tallest training picture."""
    bad_boxes: str = "refuse"
    augment: str = "crop"
    image_size: int = 0
    threshold: float = 0.5
    seed: int = 0

    # --- from data

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Pictures with a column of objects, or with columns of boxes and labels."""
        return box_layout(features, first, given, PICTURES)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """The format of the boxes and its proof, faulty boxes, labels that training never sees."""
        settings = run.task_config or Config()
        return box_findings(data, settings.box_format, settings.bad_boxes)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "ObjectDetection":
        """Labels, format and shapes of the training rows."""
        settings, rows = run.task_config or Config(), data["train"]
        labels = rows["labels"][:]
        return cls(names=names_of(rows), box_format=format_of(rows, settings.box_format).name, seed=run.seed,
                   density=sum(map(len, labels)) / max(1, len(labels)), shapes=extremes(sizes_of(rows)),
                   bad_boxes=settings.bad_boxes, augment=settings.augment, image_size=settings.image_size,
                   threshold=settings.threshold)  # fmt: skip

    def prepare(self, rows: Any) -> Any:
        """The same rows. Raises UsageError for labels that the model does not know."""
        other = (
            sorted({label for row in rows["labels"][:] for label in row} - set(self.names))
            if "labels" in rows.column_names
            else []
        )
        if other:
            raise UsageError(f'label "{other[0]}" is not among those of the model: {", ".join(self.names[:10])}')
        return rows

    @property
    def note(self) -> str:
        """What the labels are, and how boxes are written."""
        return f"{len(self.names)} labels; boxes are {FORMATS[self.box_format]}"

    @property
    def label_names(self) -> tuple[str, ...]:
        """Labels in the order of the logits."""
        return self.names

    def config_options(self) -> dict[str, Any]:
        """Number and names of the labels."""
        known = dict(enumerate(self.names))
        return {"num_labels": len(known), "id2label": known, "label2id": {name: index for index, name in known.items()}}

    def require_model(self, config: Any, model: str) -> None:
        """Raise UsageError for a detector without a loss."""
        require_own_loss(config, self.auto_model, model)

    def dress(self, processor: Any) -> str:
        """Make the processor resize to `image_size`."""
        if not self.image_size:
            return ""
        fixed = bool(dict(processor.size).get("height"))
        names = ("height", "width") if fixed else ("shortest_edge", "longest_edge")
        processor.size = dict.fromkeys(names, self.image_size)
        return f"pictures of {self.image_size} pixels at most (--image-size)"

    def reads_as(self, processor: Any) -> str:
        """Size of what the model gets, padding with it."""
        height, width = canvas(processor, self.shapes)
        return f"{type(processor).__name__}: {width} × {height} pixels with padding"

    # --- rows to tensors

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """Boxes as corners in pixels of the upright picture and labels as class ids, where there are any."""
        ids, form = {name: index for index, name in enumerate(self.names)}, self.box_format

        def rows(batch: dict[str, list]) -> dict[str, list]:
            made: dict[str, list] = {"length": [1] * len(next(iter(batch.values())))}
            if "boxes" not in batch:
                return made
            sizes = zip(batch["width"], batch["height"], strict=True)
            pairs = [encoded_boxes(boxes, labels, form, size, ids)
                     for boxes, labels, size in zip(batch["boxes"], batch["labels"], sizes, strict=True)]  # fmt: skip
            made |= {"boxes": [boxes for boxes, _ in pairs], "labels": [labels for _, labels in pairs]}
            return made | (encoded_crowds(batch, form, ids) if "crowds" in batch else {})

        return rows

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch, see `batches`."""
        return batches(processor, self.augment, self.seed, self.shapes)

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Proof that every encoded box lies in a picture and has an area and a label."""
        plain = ready.with_format(None)
        pairs = [(box, label) for boxes, labels in zip(plain["boxes"][:], plain["labels"][:], strict=True)
                 for box, label in zip(boxes, labels, strict=True)]  # fmt: skip
        good = all(b[2] > b[0] >= 0 and b[3] > b[1] >= 0 and 0 <= label < len(self.names) for b, label in pairs)
        told = f"{len(pairs):,} boxes in {len(ready):,} pictures"
        return [("every box has an area and a label", bool(pairs) and good, told)]

    # --- training

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Boxes of the batch."""
        return batch["class_labels"].ge(0).sum() * batch["counted"].any()

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The model's own loss as a sum over boxes."""
        from hf_tuner.tasks._box_loss import summed_loss

        return summed_loss(model, batch, self.density)

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Up to 100 detections [detections, 6] of each picture: corners in pixels, score, class."""
        from hf_tuner.tasks._box_loss import bare, detections, inputs

        made = model(**inputs(model, batch))
        return list(detections(made, bare(model).config, batch["sizes"]).cpu().numpy())

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """COCO's average precision over overlaps, at 0.5 and 0.75, by size and by class."""
        from hf_tuner.metrics._detection import compared, scores

        return Measures(scores(compared(kept, expected_boxes(ready)), self.names), len(kept))

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": detections} for each picture, surest first: {"label", "score", "box"} (corners in pixels)."""
        result = []
        for found in kept:
            sure = sorted((one for one in found.tolist() if one[4] >= self.threshold), key=lambda one: -one[4])
            result.append(
                {"prediction": [{"label": self.names[int(one[5])], "score": one[4], "box": one[:4]} for one in sure]}
            )
        return result

    def details(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, Any]:
        """Average precision of each class."""
        from hf_tuner.metrics._detection import class_table, compared

        return {"class_scores": class_table(compared(kept, expected_boxes(ready)), self.names)}

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> "list[Drawn]":
        """The first pictures, each with what was expected (left) and what was found (right)."""
        from hf_tuner.tasks._box_drawing import side_by_side

        return side_by_side(kept[:DRAWN], ready, expected_boxes(ready)[:DRAWN], self.names, self.threshold)

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures that show every label, with their boxes as training reads them."""
        from datasets import Dataset

        from hf_tuner.tasks._box_drawing import pictured
        from hf_tuner.tasks._pictured import spread

        chosen = spread(rows["labels"][:], most, seed)
        few = rows.select(chosen)
        ready = Dataset.from_dict(self.encode(None, 0)(few.remove_columns("image")[:]))
        return pictured(zip(chosen, few, expected_boxes(ready), strict=True), self.names)

    # --- words for the card

    @property
    def gives(self) -> str:
        """Boxes of n kinds."""
        return f"boxes around {len(self.names):,} kinds of things in a picture"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return ("It finds its own kinds of things only, and those best that are about as large as in the training pictures.",
                f"At most {100} things are found in a picture.")  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """The processor before, and its post-processing after the model."""
        return Usage(
            reads="a column `image` with paths of pictures",
            example='["picture.jpg"]',
            answer="Each answer has a label, a score and a box: left, top, right, bottom in pixels.",
            verb="detect",
            imports=("AutoImageProcessor",),
            lines=(
                "import torch",
                "from PIL import Image",
                "",
                'picture = Image.new("RGB", (640, 480))  # or Image.open("picture.jpg").convert("RGB")',
                "with torch.no_grad():",
                '    outputs = model(**processor(picture, return_tensors="pt"))',
                "sizes = [(picture.height, picture.width)]",
                f"found = processor.post_process_object_detection(outputs, {self.threshold}, sizes)[0]",
                'for score, label, box in zip(found["scores"], found["labels"], found["boxes"]):',
                "    print(model.config.id2label[int(label)], round(float(score), 3), box.tolist())",
                'print(len(found["scores"]), "found")',
            ),
        )
