"""Classes by name for pictures: which of some texts fits best, by a model that puts both into one space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.errors import UsageError
from hf_tuner.tasks._two_towers import embeddings, logits
from hf_tuner.tasks._vision import PictureTask, inputs_of

if TYPE_CHECKING:
    import numpy as np

PLACE = "{}"
"""Where a template takes the name of a class."""


@dataclass(frozen=True, kw_only=True)
class ZeroShot(PictureTask):
    """Chooses one of `names` for every picture, as the pipeline zero-shot-image-classification does."""

    processor: ClassVar[str] = "AutoProcessor"

    names: tuple[str, ...]
    template: str
    pairwise: bool
    padded: int

    def __post_init__(self) -> None:
        """Raise UsageError for a template that has no place for a class."""
        if PLACE not in self.template:
            raise UsageError(f"template={self.template}: expected {PLACE} where a class is put in, such as "
                             f"template=This is a photo of {PLACE}.")  # fmt: skip

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch of their pictures and, once, of the texts of all classes."""
        pixels = inputs_of(processor.image_processor, None)
        length: dict[str, Any] = (
            {"padding": "max_length", "max_length": self.padded} if self.padded else {"padding": True}
        )
        words = [self.template.replace(PLACE, name) for name in self.names]
        tokens = processor.tokenizer(words, truncation=True, return_tensors="pt", **length)
        read = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
        return lambda rows: {**pixels(rows), **read}

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Logits [classes] of each picture."""
        return list(logits(model, *embeddings(model, batch)).cpu().numpy())

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The class that fits best with its probability, and all probabilities: of every class by itself where the model
        judges pairs, else of one among them."""
        import numpy as np
        from scipy.special import expit, softmax

        values = np.asarray(kept, np.float64)
        shares = expit(values) if self.pairwise else softmax(values, axis=1)
        return [
            {
                "prediction": self.names[int(row.argmax())],
                "score": float(row.max()),
                "probabilities": dict(zip(self.names, map(float, row), strict=True)),
            }
            for row in shares
        ]


def names_in(labels: Any) -> tuple[str, ...]:
    """Classes from "dog|cat", or from a list. Raises UsageError for fewer than two, or one that is there twice."""
    given = labels.split("|") if isinstance(labels, str) else list(labels)
    names = tuple(str(name).strip() for name in given)
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UsageError(f"labels={labels}: expected two or more different classes, such as labels=dog|cat")
    return names
