"""contrastive-image-text: pictures and texts in one space, for search and classes by name (CLIP, SigLIP)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner import catalog
from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _caption_rows as rows_of
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._groups import ABSENT, collate_groups, grouped
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Findings, Layout, Measures, Task, Usage
from hf_tuner.tasks._two_towers import (
    belonging,
    contrastive,
    embeddings,
    is_pairwise,
    logits,
    picture_key,
    require_two_towers,
)
from hf_tuner.tasks._vision import PictureTask, augmenter, input_size, inputs_of, seeded

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hf_tuner.metrics._retrieval import Search
    from hf_tuner.tasks._drawn import Drawn
    from hf_tuner.tasks._pictured import Sample

CHANCE = 0
"""How many numbers an embedding has that says nothing: everything is equally near."""
EXAMPLES = ("a photo of a dog", "a photo of a cat")
SHOWN = 20


@dataclass(frozen=True)
class Config:
    """Settings of contrastive-image-text."""

    augment: str = option(
        "none", 'How training pictures are changed: none, crop, trivial (mirrored ones no longer match "left").'
    )

    def __post_init__(self) -> None:
        """Raise ValueError for an augmentation that there is not."""
        known = ["none", *catalog.names("augment")]
        if self.augment not in known:
            raise ValueError(catalog.unknown("augmentation", self.augment, known))


@dataclass(frozen=True, kw_only=True)
class ContrastiveImageText(PictureTask):
    """What a model of two towers reads, what it learns from rows of a picture and captions, how well each finds the other."""

    name: ClassVar[str] = "contrastive-image-text"
    auto_model: ClassVar[str] = "AutoModel"
    processor: ClassVar[str] = "AutoProcessor"
    pipeline: ClassVar[str] = "zero-shot-image-classification"
    columns: ClassVar[dict[str, tuple[str, ...]]] = rows_of.COLUMNS
    optional: ClassVar[tuple[str, ...]] = ("text",)
    targets: ClassVar[tuple[str, ...]] = ()
    measured: ClassVar[tuple[str, ...]] = ("text",)
    new_head: ClassVar[bool] = False
    before: ClassVar[bool] = True

    augment: str = "none"
    seed: int = 0
    pairwise: bool = False
    """Whether every pair is judged by itself (SigLIP), instead of against the others of the batch (CLIP)."""
    padded: int = 0
    """Tokens that texts are padded to; 0: no further than the longest of a batch."""
    labels: str = ""
    """Classes by name, with | between them, where `predict` is to choose one."""
    template: str = "This is a photo of {}."
    """What a class is put into."""

    # --- from data

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Pictures, with captions where there are any. Raises UsageError when there is no picture."""
        return rows_of.layout(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Rows without captions, and captions that are all the same."""
        return rows_of.audit(data)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "ContrastiveImageText":
        """The task with the run's settings. Raises UsageError for micro-batches of one row, which has no wrong answers."""
        if run.training.get("per_device_train_batch_size") in (1, "1"):
            raise UsageError("--per-device-train-batch-size 1: the other rows of a micro-batch are a row's wrong answers, and "
                             "there are none; use 2 at the very least, 32 and more is better")  # fmt: skip
        return cls(**{**settings_of(cls, run), "seed": run.seed})

    def for_model(self, run: Run, config: Any, processor: Any, data: Mapping[str, Any]) -> "ContrastiveImageText":
        """This task. Raises UsageError for a model without two towers, and an augmentation that needs a fixed size."""
        require_two_towers(config)
        if self.augment != "none" and 0 in input_size(processor.image_processor):
            raise UsageError(f"--augment {self.augment}: pictures keep their own shape with this model; leave it out")
        return self

    def suit(self, model: Any, max_length: int) -> "ContrastiveImageText":
        """The task with the loss of the model's kind; SigLIP reads texts that are padded to its whole length."""
        pairwise = is_pairwise(model)
        text = model.config.get_text_config()
        return replace(self, pairwise=pairwise, padded=text.max_position_embeddings if pairwise else 0)

    @property
    def note(self) -> str:
        """Which loss is learned."""
        return "every pair is judged by itself (sigmoid)" if self.pairwise else "learned with the symmetric softmax"

    def samples(self) -> list[dict[str, Any]]:
        """Pictures with two texts each, to compare two models on where the run's own data is not at hand."""
        return [{**row, "text": list(EXAMPLES)} for row in super().samples()]

    # --- rows to tensors

    def reads_as(self, processor: Any) -> str:
        """Size of the pictures that the model gets."""
        height, width = input_size(processor.image_processor)
        size = f"{width} × {height} pixels" if height else "pictures in their own shape"
        return f"{type(processor).__name__}: {size}"

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to token ids of each caption, `length` of the longest, and `labels`, all 1."""
        tokenizer, limit = processor.tokenizer, max_length * CHARACTERS_PER_TOKEN

        def rows(batch: dict[str, list]) -> dict[str, list]:
            count = len(next(iter(batch.values())))
            texts = batch.get("text") or [[] for _ in range(count)]
            flat = [text[:limit] for row in texts for text in row] or [""]
            tokens = tokenizer(flat, truncation=True, max_length=max_length)
            ids = grouped({"input_ids": tokens["input_ids"]}, [len(row) for row in texts])["input_ids"]
            return {"input_ids": ids, "length": [max(map(len, row), default=1) for row in ids], "labels": [1] * count}

        return rows

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch: what the image processor makes of the pictures, input_ids and attention_mask
        [texts, tokens].

        For training one caption a row, drawn anew in every epoch, with `labels` [rows] and `belongs` [rows, rows] (see
        `belonging`); else all captions, with `place` [rows, captions] (see `collate_groups`).
        """
        import torch

        image = processor.image_processor
        pixels = inputs_of(image, augmenter(self.augment, input_size(image), self.seed))
        texts, blank = collate_groups(processor.tokenizer, self.padded), processor.tokenizer("")["input_ids"]

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            ids = [row["input_ids"] for row in rows]
            if "epoch" not in rows[0]:
                alone = not any(ids)  # pictures without texts: the text tower gets one to read all the same
                made = texts([{"input_ids": [blank]}] if alone else [{"input_ids": own} for own in ids])
                place = torch.full((len(rows), 1), ABSENT) if alone else made["place"]
                return {**_read(made), **pixels(rows), "place": place}
            dealt = [
                own[seeded(self.seed, row["epoch"], row["row"]) % len(own)] for own, row in zip(ids, rows, strict=True)
            ]
            known = [[tuple(one) for one in own] for own in ids]
            belongs = belonging([picture_key(row["image"]) for row in rows], known, list(map(tuple, dealt)))
            made = texts([{"input_ids": [one]} for one in dealt])
            labels = torch.tensor([row["labels"] for row in rows])
            return {**_read(made), **pixels(rows), "labels": labels, "belongs": belongs}

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """That the captions still tell pictures apart once they are cut and encoded."""
        first = {hash(tuple(row[0])) for row in ready.with_format(None)["input_ids"]}
        told = f"{len(first):,} different ones among the first captions of {len(ready):,} rows"
        return [("encoded captions differ", len(first) > 1, told)]

    def example(self, processor: Any, ready: Any) -> str:
        """The first row's picture by name and its captions."""
        row = ready[0]
        name = Path(row["image"]["path"] or "picture").name
        return f"{name}: " + " ".join(f"⟦{processor.tokenizer.decode(ids)}⟧" for ids in row["input_ids"])

    # --- training

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Rows that are no filler."""
        return batch["labels"].ne(-100).sum()

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The model's own kind of loss over the rows that are no filler, each beside the others of this micro-batch."""
        real, belongs = batch.pop("labels").ne(-100), batch.pop("belongs")
        pictures, texts = embeddings(model, batch)
        scores = logits(model, pictures[real], texts[real])
        return contrastive(scores, belongs[real][:, real], self.pairwise)

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Embeddings [1 + captions, size] of each row, its picture's first."""
        import numpy as np

        place = batch.pop("place").cpu().numpy()
        pictures, texts = (found.cpu().numpy() for found in embeddings(model, batch))
        return [
            np.concatenate([picture[None], texts[row[row != ABSENT]]])
            for picture, row in zip(pictures, place, strict=True)
        ]

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Recall and reciprocal rank in both directions, see `hf_tuner.metrics._retrieval`; the bootstrap draws pictures."""
        from hf_tuner.metrics import _retrieval as retrieval

        return Measures(*retrieval.measures(_search(kept, rows)))

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """Chance: embeddings that say nothing."""
        import numpy as np

        return {"chance": [np.zeros((1 + len(texts), CHANCE), np.float32) for texts in rows["text"][:]]}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The embedding of a picture; with a text how alike the two are, -1 to 1; of several texts the one that fits best."""
        if "text" not in rows.column_names:
            return [{"prediction": row[0].tolist()} for row in kept]
        cosines = [row[1:] @ row[0] for row in kept]
        if all(len(one) == 1 for one in cosines):
            return [{"prediction": float(one[0])} for one in cosines]
        return [
            {"prediction": texts[int(one.argmax())], "score": float(one.max()), "scores": one.tolist()}
            for one, texts in zip(cosines, rows["text"][:], strict=True)
        ]

    def answering(self, **settings: Any) -> Task:
        """The task as `predict` uses it: with labels="dog|cat" it chooses one of them for every picture."""
        from hf_tuner.tasks._zero_shot import ZeroShot, names_in

        task = super().answering(**settings)
        if not isinstance(task, ContrastiveImageText) or not task.labels:
            return task
        names = names_in(task.labels)
        return ZeroShot(names=names, template=task.template, pairwise=self.pairwise, padded=self.padded)

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """Pictures that are furthest down in what their captions find, with the caption that found another one."""
        from hf_tuner.tasks._worst_retrievals import listed

        return listed(_search(kept, rows), rows["image"], SHOWN)

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> "list[Drawn]":
        """Captions whose own picture is furthest down, and what was found instead."""
        from hf_tuner.tasks._worst_retrievals import drawn

        return drawn(_search(kept, rows), rows["image"])

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures with their captions."""
        from hf_tuner.tasks._pictured import captioned

        return captioned(rows, "text", most, seed)

    # --- words for the card

    @property
    def gives(self) -> str:
        """An embedding for either."""
        return "an embedding for a picture and for a text, and how well the two go together"

    @property
    def limits(self) -> tuple[str, ...]:
        """What a similarity does not say."""
        return (
            "Every picture and text get a similarity, and of several texts one always fits best, also where none is right.",
            "How well it names classes depends on how they are worded; it was measured on captions, not on names of classes.",
        )

    def usage(self, max_length: int) -> Usage:
        """Similarities and classes by name, in code without hf-tuner."""
        padding = (
            f'padding="max_length", max_length={self.padded}'
            if self.padded
            else f"padding=True, max_length={max_length}"
        )
        found = (
            "torch.sigmoid(outputs.logits_per_image)" if self.pairwise else "outputs.logits_per_image.softmax(dim=1)"
        )
        return Usage(
            reads="a column `image` with paths of pictures, and a column `text` where a picture and a text are to be compared",
            example='["picture.jpg"]',
            answer="Each row has the probabilities of the texts for a picture; `image_embeds` and `text_embeds` are what a search "
            'compares. With hf-tuner: `--set "labels=dog|cat"` chooses one of them for every picture.',
            lines=(
                "import torch",
                "from PIL import Image",
                "",
                f"texts = [{', '.join(json.dumps(text) for text in EXAMPLES)}]",
                'pictures = [Image.open("picture.jpg").convert("RGB")]',
                f'batch = processor(images=pictures, text=texts, {padding}, truncation=True, return_tensors="pt")',
                "with torch.inference_mode():",
                "    outputs = model(**batch)",
                f"print({found})",
            ),
        )


def _read(made: Mapping[str, Any]) -> dict[str, Any]:
    """Of a batch of texts what a model reads."""
    return {name: made[name] for name in ("input_ids", "attention_mask") if name in made}


def _search(kept: "Sequence[np.ndarray]", rows: Any) -> "Search":
    from hf_tuner.metrics._retrieval import search_of

    return search_of(kept, rows["text"][:], [picture_key(one) for one in rows["image"]])
