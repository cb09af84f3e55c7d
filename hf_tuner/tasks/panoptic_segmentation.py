"""panoptic-segmentation: every pixel to one segment, of a thing that can be counted or of stuff such as sky."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.tasks._segment_classes import countable
from hf_tuner.tasks._segment_task import SegmentConfig, SegmentTask
from hf_tuner.tasks._task import Measures, Usage

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Config(SegmentConfig):
    """Settings of panoptic segmentation."""

    things: str = option(
        "auto",
        "Classes that can be counted: car,person (auto: what the data say, else those of which a picture has two).",
    )
    covered: float = option(0.8, "Share of a mask that must not lie behind surer ones, for its segment to be given.")

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        super().__post_init__()
        if not 0 <= self.covered <= 1:
            raise ValueError(f"covered is {self.covered}; expected 0 to 1, such as 0.8")


@dataclass(frozen=True, kw_only=True)
class PanopticSegmentation(SegmentTask):
    """What a segmenter reads, how segments are written and measured, and how its outputs become a map again."""

    name: ClassVar[str] = "panoptic-segmentation"
    stuff: ClassVar[bool] = True
    logged: ClassVar[tuple[str, ...]] = ("pq", "sq", "rq")

    countable: tuple[bool, ...]
    """Whether each class is one of things."""
    covered: float = 0.8

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "PanopticSegmentation":
        """Classes of the training rows, and which of them are things."""
        given = run.task_config or Config()
        made = cls.settings(data, run)
        things = countable(data, made["names"], made.get("numbers", ()), getattr(given, "things", "auto"))
        return cls(**made, countable=things, covered=given.covered)

    @property
    def note(self) -> str:
        """The classes, and which of them are stuff."""
        stuff = [name for name, thing in zip(self.names, self.countable, strict=True) if not thing]
        named = ", ".join(stuff[:8]) + (", …" if len(stuff) > 8 else "")
        return f"{super().note}; {len(stuff)} of stuff" + (f" ({named})" if stuff else "")

    def found(self, classes: Any, masks: Any, at_size: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
        """Masks that share no pixel; one for each class of stuff."""
        from hf_tuner.tasks._segment_loss import panoptic

        stuff = {index for index, thing in enumerate(self.countable) if not thing}
        return panoptic(classes, masks, at_size, stuff, (self.threshold, self.covered))

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Panoptic quality, of things and of stuff, and what it is made of."""
        import numpy as np

        from hf_tuner.metrics._panoptic import scores

        made = scores(self._tallies(kept, ready), self.names, self.countable)
        if not all(np.isfinite(one).all() for one in kept):
            return Measures({name: lambda weights: np.full(len(weights), np.nan) for name in made}, len(kept))
        return Measures(made, len(kept))

    def details(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, Any]:
        """Panoptic quality of each class."""
        from hf_tuner.metrics._panoptic import class_table

        return {"class_scores": class_table(self._tallies(kept, ready), self.names, self.countable)}

    def _tallies(self, kept: "list[np.ndarray]", ready: Any) -> Any:
        from hf_tuner.metrics._panoptic import Matches, tallies
        from hf_tuner.tasks._runs import covered, pixels, shared

        made = []
        for found, known in self.known(kept, ready):
            said, right = found.bits(), covered(known.masks)
            nothing = covered(~known.masks.any(axis=0)[None])
            made.append(Matches(shared(said, right), shared(said, nothing)[:, 0], found.label, pixels(said), known.label,
                                pixels(right), known.crowd))  # fmt: skip
        return tallies(made, len(self.names))

    # --- words for the card

    @property
    def gives(self) -> str:
        """Segments of n classes."""
        things = sum(self.countable)
        return f"a map of segments of {len(self.names):,} classes ({things:,} of things) for a picture"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return ("It knows its own classes only; pixels of which it is not sure belong to no segment.",
                "The processor's own post-processing goes by 384 × 384 pixels and gives every pixel to a segment, hf-tuner "
                "leaves out those that no mask covers: the two differ a little.")  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """The processor before, and its post-processing after the model."""
        stuff = sorted(index for index, thing in enumerate(self.countable) if not thing)
        fused = "{" + ", ".join(map(str, stuff)) + "}" if stuff else "set()"
        return self.shown(
            "The answer is a map whose pixels are the numbers of segments, and the label and score of each segment.",
            (
                f'settings = {{"threshold": {self.threshold}, "target_sizes": [(picture.height, picture.width)]}}',
                f"stuff = {fused}  # classes of which a picture has one segment at most",
                'name = "stuff_classes" if hasattr(processor, "do_split_image") else "label_ids_to_fuse"',
                "found = processor.post_process_panoptic_segmentation(outputs, **settings, **{name: stuff})[0]",
            ),
        )
