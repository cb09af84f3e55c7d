"""semantic-segmentation: a class for every pixel of a picture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks._drawn import Drawn
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks._mask_audit import found_in, mask_findings
from hf_tuner.tasks._masks import IGNORED, Code, as_png, code_of, decoded_mask, sheet
from hf_tuner.tasks._named import Named
from hf_tuner.tasks._pictured import Sample, place_of, spread
from hf_tuner.tasks._task import Findings, Layout, Measures, Usage
from hf_tuner.tasks._vision import PICTURES, PictureTask, augmenter, columns_of, decoded, input_size, picture_columns

if TYPE_CHECKING:
    import numpy as np
    import torch

SHOWN, WORST = 5, 20
"""Pictures that are drawn, and that are listed."""
CONFUSED = 40
"""Classes at most whose confusions are shown."""
DEFAULT_SIZE = (512, 512)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How masks are read and pictures are changed."""

    classes: str = option("auto", "Class names: sky,road,car or a JSON file (auto: id2label.json beside the data).")
    ignore_index: int | None = option(
        None, "A number in masks of pixels that count for nothing, besides 255 where it has no name (-1: none at all)."
    )
    reduce_labels: bool = option(False, "0 in masks is background that counts for nothing; classes begin at 1.")
    augment: str = option(
        "crop", "How training pictures and masks are changed: none, crop (and flip).", ("none", "crop")
    )


@dataclass(frozen=True, kw_only=True)
class SemanticSegmentation(Named, PictureTask):
    """What a segmenter reads, how masks become classes, and logits class maps of the picture's own size."""

    name: ClassVar[str] = "semantic-segmentation"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("image", "mask"), ("image", "annotation"))
    auto_model: ClassVar[str] = "AutoModelForSemanticSegmentation"
    pipeline: ClassVar[str] = "image-segmentation"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": PICTURES,
        "mask": ("mask", "masks", "annotation", "segmentation", "segmentation_mask", "semantic_mask", "seg_map", "seg",
                 "label", "labels", "annotations", "mask_path", "mask_file", "mask_file_name", "label_path", "gt"),
    }  # fmt: skip
    targets: ClassVar[tuple[str, ...]] = ("mask",)
    measured: ClassVar[tuple[str, ...]] = ("mask",)
    carried: ClassVar[tuple[str, ...]] = ("image", "mask")
    pictures: ClassVar[tuple[str, ...]] = ("image", "mask")
    leaves_out: ClassVar[tuple[str, ...]] = ("auxiliary_head",)
    pace: ClassVar[tuple[int, int]] = (8, 10)
    at_once: ClassVar[int] = 16

    ids: tuple[int, ...]
    """The number in masks of each class."""
    ignored: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()
    """Training pixels of each class."""
    reduce_labels: bool = False
    augment: str = "crop"
    seed: int = 0

    # --- from data

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """A column of pictures or paths, and one of masks or their paths."""
        found = picture_columns(features, given, cls.columns)
        spare = [c for c, feature in features.items() if type(feature).__name__ == "Image" and c not in found.values()]
        if "mask" not in found and spare:
            found["mask"] = spare[0]
        return Layout("pictures with masks" if "mask" in found else "pictures", found, lambda row: {})

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Masks of another size than their picture, numbers that are no class, and how much of what there is."""
        if "mask" not in data["train"].column_names:
            raise UsageError(f"no column for mask; found: {columns_of(data['train'])}; "
                             "name it: --columns mask=COLUMN")  # fmt: skip
        return mask_findings(data, lambda found: _code(run, found))

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "SemanticSegmentation":
        """Decide which numbers are which classes."""
        found, given = found_in(data), run.task_config or Config()
        code = _code(run, found)
        pixels = tuple(found["train"].get(number, 0) for number in code.ids)
        labels = Labels("single", code.names, code.note)
        return cls(labels=labels, ids=code.ids, ignored=code.ignored, pixels=pixels, reduce_labels=given.reduce_labels,
                   augment=given.augment, seed=run.seed)  # fmt: skip

    @property
    def code(self) -> Code:
        """What the numbers in masks mean."""
        return Code(self.ids, self.label_names, self.ignored, self.note)

    # --- the model

    def dress(self, processor: Any) -> str:
        """Whole pictures in one size: nothing is cut off at the sides, and no proportions are kept."""
        height, width = input_size(processor)
        if not height:
            height, width = DEFAULT_SIZE
        kind = type(processor.size) if hasattr(processor.size, "height") else dict
        processor.size = kind(height=height, width=width)
        settings = {"do_resize": True, "do_center_crop": False, "keep_aspect_ratio": False,
                    "do_reduce_labels": self.reduce_labels}  # fmt: skip
        for name, value in settings.items():
            if hasattr(processor, name):
                setattr(processor, name, value)
        return ""

    # --- rows to tensors

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch: pixel_values [rows, channels, height, width], sizes [rows, 2] of the pictures
        and, where there are masks, labels [rows, height, width] (-100: ignored). Training pictures and masks are cut
        and mirrored together."""
        import torch
        from torch.nn import functional

        size, code = input_size(processor), self.code
        change = augmenter(self.augment, size, self.seed)

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            from torchvision import tv_tensors

            pictures = [decoded(row["image"]) for row in rows]
            result: dict[str, Any] = {"sizes": torch.tensor([[one.height, one.width] for one in pictures])}
            masks = [torch.from_numpy(code.classes(decoded_mask(row["mask"]))) for row in rows if "mask" in row]
            changes = change is not None and "epoch" in rows[0]
            if changes and change is not None:
                pairs = [
                    change((picture, tv_tensors.Mask(mask)), row)
                    for picture, mask, row in zip(pictures, masks, rows, strict=True)
                ]
                pictures, masks = [one for one, _ in pairs], [one.as_subclass(torch.Tensor) for _, one in pairs]
            sized = {"do_resize": False} if changes else {}
            result["pixel_values"] = processor(pictures, return_tensors="pt", **sized)["pixel_values"]
            if masks:
                shape = tuple(result["pixel_values"].shape[-2:])
                near = [functional.interpolate(one[None, None].float(), shape, mode="nearest-exact") for one in masks]
                result["labels"] = torch.cat(near).squeeze(1).long()
                result["labels"][[row.get("row", 0) < 0 for row in rows]] = IGNORED  # filler
            return result

        return batch

    # --- training and measuring

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Sum of the plug's loss over the pixels that are not ignored; logits are brought to the labels' size."""
        from torch.nn import functional

        labels, _ = batch.pop("labels"), batch.pop("sizes")
        logits = model(**batch)["logits"].float()
        logits = functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
        covered = labels != IGNORED
        each = plug or (lambda scores, right: functional.cross_entropy(scores, right, reduction="none"))
        return each(logits.movedim(1, -1)[covered], labels[covered]).sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """The likeliest class of every pixel in the picture's own size, uint8 (uint16 for more than 256 classes)."""
        import numpy as np
        import torch
        from torch.nn import functional

        batch.pop("labels", None)
        sizes = batch.pop("sizes").tolist()
        logits = model(**batch)["logits"].float()
        kind, kept = np.uint8 if len(self.ids) <= 256 else np.uint16, []
        for one, size in zip(logits, sizes, strict=True):
            if not torch.isfinite(one).all():
                kept.append(np.full(size, np.nan, np.float32))  # a class map would hide it
                continue
            whole = functional.interpolate(one[None], tuple(size), mode="bilinear", align_corners=False)
            kept.append(whole[0].argmax(dim=0).cpu().numpy().astype(kind))
        return kept

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Mean IoU, mean Dice, mean accuracy of classes and the share of right pixels."""
        import numpy as np

        from hf_tuner.metrics._segmentation import scores

        found = scores(*self._tallies(kept, rows))
        if not all(np.isfinite(one).all() for one in kept):
            return Measures({name: lambda weights: np.full(len(weights), np.nan) for name in found}, len(kept))
        notes = {"mean_iou": "over the classes that are expected or predicted"}
        return Measures(found, len(kept), notes)

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """Always the class of most training pixels."""
        import numpy as np

        best = int(np.argmax(self.pixels))
        return {"majority": [np.full(mask.shape, best, np.uint16) for mask in map(decoded_mask, rows["mask"])]}

    def details(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, Any]:
        """IoU, precision and recall of each class over pixels, and which classes are taken for which."""
        from hf_tuner.metrics._segmentation import confusion, per_class

        names = self.label_names
        found: dict[str, Any] = {"per_class": per_class(*self._tallies(kept, rows), names)}
        if len(names) <= CONFUSED:
            matrix = confusion(self._pairs(kept, rows), len(names))
            found["confusion"] = {"matrix": matrix.tolist(), "names": list(names)}
        return found

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": class → share of the pixels, most first, "predicted_mask": a PNG of class ids as bytes}."""
        names = self.label_names
        return [{"prediction": _shares(one, names), "predicted_mask": as_png(one, len(names))} for one in kept]

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The pictures of the lowest mean IoU, with the classes that cover most of mask and answer."""
        found, order = [], self._worst_first(kept, rows)
        for i, score in order[:WORST]:
            expected, predicted = next(self._pairs([kept[i]], rows.select([i])))
            said = [_told(one, self.label_names) for one in (expected, predicted)]
            found.append(
                {"text": place_of(rows[i]["image"], i), "expected": said[0], "predicted": said[1], "score": score}
            )
        return found

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[Drawn]:
        """Pictures from the best to the worst answer, each with its mask and its answer laid over it."""
        import numpy as np

        order = self._worst_first(kept, rows)[::-1]
        if not order:
            return []
        places = sorted(set(np.linspace(0, len(order) - 1, SHOWN).astype(int).tolist()))
        chosen = [order[place] for place in places]
        shown = [(decoded(rows[i]["image"]), *next(self._pairs([kept[i]], rows.select([i])))) for i, _ in chosen]
        said = "; ".join(f"{place_of(rows[i]['image'], i)}: mean IoU {score:.2f}" for i, score in chosen)
        text = f"From the best to the worst answer, each line a picture, its mask and the answer. {said}"
        return [Drawn("masks", "Masks and answers", sheet(shown, self.label_names), text)]

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures, each beside its mask laid over it with the colours of its classes."""
        made, chosen = [], spread([()] * len(rows), most, seed)
        for number, row in zip(chosen, rows.select(chosen), strict=True):
            classes, names = self.code.classes(decoded_mask(row["mask"])), self.label_names
            image = sheet([(decoded(row["image"]), classes)], names)
            said = _told(classes, names) if (classes >= 0).any() else "nothing that counts"
            made.append(Sample(image, (said,), place_of(row["image"], number)))
        return made

    # --- words for the card

    @property
    def gives(self) -> str:
        """One of n classes for every pixel."""
        return f"one of {len(self.label_names):,} classes for every pixel of a picture"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return (
            "It gives every pixel one of its classes, also where none of them is; two things of a class are not told apart.",
            "Pictures are brought to one size: details smaller than a few of its pixels are lost.",
        )

    def usage(self, max_length: int) -> Usage:
        """The image processor, the model, and logits as class maps."""
        return Usage(
            reads="a column `image` with paths of pictures",
            example='["picture.jpg"]',
            answer="Each answer is the class of every pixel, in the picture's own size.",
            verb="segment",
            lines=(
                "import torch",
                "from PIL import Image, ImageOps",
                "",
                "",
                "def segment(picture):",
                '    pixels = processor(picture, return_tensors="pt")',
                "    with torch.inference_mode():",
                "        outputs = model.eval()(**pixels)",
                "    sizes = [(picture.height, picture.width)]",
                "    return processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)[0]",
                "",
                "",
                'picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")',
                "print(segment(picture))  # class ids, see model.config.id2label",
            ),
        )

    # --- helpers

    def _pairs(self, kept: "list[np.ndarray]", rows: Any) -> "Iterator[tuple[np.ndarray, np.ndarray]]":
        """Expected and predicted class maps of each row."""
        import numpy as np

        for value, one in zip(rows["mask"], kept, strict=True):
            yield self.code.classes(decoded_mask(value)), np.nan_to_num(one).astype(np.int64)

    def _tallies(self, kept: "list[np.ndarray]", rows: Any) -> tuple[Any, Any, Any]:
        from hf_tuner.metrics._segmentation import tallies

        try:
            return tallies(self._pairs(kept, rows), len(self.ids))
        except ValueError as error:
            raise UsageError(f"{error}: a mask is not of its picture's size") from error

    def _worst_first(self, kept: "list[np.ndarray]", rows: Any) -> list[tuple[int, float]]:
        """Row and mean IoU of each row that has a pixel that counts, worst first."""
        import numpy as np

        from hf_tuner.metrics._segmentation import row_ious

        each = row_ious(*self._tallies(kept, rows))
        order = np.argsort(each, kind="stable")
        return [(int(i), float(each[i])) for i in order if np.isfinite(each[i])]


def _code(run: Run, found: Mapping[str, Mapping[int, int]]) -> Code:
    """What numbers mean: as a saved task says, or by the run's settings and its data."""
    given = run.task_config or Config()
    return given.code if isinstance(given, SemanticSegmentation) else code_of(found, given, str(run.dataset))


def _shares(classes: Any, names: Sequence[str]) -> dict[str, float]:
    import numpy as np

    counts = np.bincount(classes[classes >= 0].ravel(), minlength=len(names))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    return {names[k]: round(float(counts[k] / counts.sum()), 6) for k in order}


def _told(classes: Any, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in list(_shares(classes, names).items())[:5])
