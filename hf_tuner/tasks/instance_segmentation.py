"""instance-segmentation: a mask with a label for every thing on a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.tasks._segment_task import SegmentConfig, SegmentTask
from hf_tuner.tasks._task import Measures, Usage

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Config(SegmentConfig):
    """Settings of instance segmentation."""


@dataclass(frozen=True, kw_only=True)
class InstanceSegmentation(SegmentTask):
    """What a segmenter reads, how masks are written and measured, and how its outputs become masks again."""

    name: ClassVar[str] = "instance-segmentation"
    measured: ClassVar[tuple[str, ...]] = ()
    stuff: ClassVar[bool] = False
    logged: ClassVar[tuple[str, ...]] = ("map", "map_50")

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "InstanceSegmentation":
        """Classes of the training rows."""
        return cls(**cls.settings(data, run))

    def found(self, classes: Any, masks: Any, at_size: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
        """Up to 100 masks, which may overlap."""
        from hf_tuner.tasks._segment_loss import instances

        return instances(classes, masks, at_size)

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """COCO's average precision of masks over overlaps, at 0.5 and 0.75, by size and by class."""
        import numpy as np

        from hf_tuner.metrics._detection import scores

        made = scores(self._compared(kept, ready), self.names)
        if not all(np.isfinite(one).all() for one in kept):
            return Measures({name: lambda weights: np.full(len(weights), np.nan) for name in made}, len(kept))
        return Measures(made, len(kept))

    def details(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, Any]:
        """Average precision of each class."""
        from hf_tuner.metrics._detection import class_table

        return {"class_scores": class_table(self._compared(kept, ready), self.names)}

    def _compared(self, kept: "list[np.ndarray]", ready: Any) -> list[Any]:
        """Each picture's masks beside those that are expected."""
        from hf_tuner.metrics._detection import Compared
        from hf_tuner.tasks._runs import covered, overlap, pixels

        made = []
        for found, known in self.known(kept, ready):
            said, right = found.bits(), covered(known.masks)
            shared = overlap(said, right, known.crowd)
            made.append(
                Compared(found.score, found.label, pixels(said), known.label, pixels(right), known.crowd, shared)
            )
        return made

    # --- words for the card

    @property
    def gives(self) -> str:
        """Masks of n kinds."""
        return f"masks of {len(self.names):,} kinds of things in a picture"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return ("It finds its own kinds of things only, and those best that are about as large as in the training pictures.",
                "At most 100 things are found in a picture.",
                "The processor's own post-processing goes by 384 × 384 pixels, hf-tuner by those of the picture: edges differ "
                "a little.")  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """The processor before, and its post-processing after the model."""
        return self.shown(
            "Each answer has a label, a score and a map whose pixels are the numbers of the segments.",
            (
                "sizes = [(picture.height, picture.width)]",
                "found = processor.post_process_instance_segmentation("
                f"outputs, threshold={self.threshold}, target_sizes=sizes)[0]",
            ),
        )
