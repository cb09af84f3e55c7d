"""image-to-text: a caption for a picture, by models that see and write (BLIP, GIT, a ViT with a GPT-2)."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner import catalog
from hf_tuner.config import Run, option
from hf_tuner.console import count, say, warn
from hf_tuner.tasks._captioner import Captioner, captioner_of
from hf_tuner.tasks._captions import CAPTIONS, audit_captions, caption_layout, typical
from hf_tuner.tasks._drawn import Drawn
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._language import by_token, few_rows, sums, token_losses
from hf_tuner.tasks._pictured import Sample, captioned, place_of
from hf_tuner.tasks._reading import bytes_of, decoded_bytes, text_of
from hf_tuner.tasks._task import Findings, Layout, Measures, Usage
from hf_tuner.tasks._vision import PICTURES, PictureTask, augmenter, decoded, input_size, pixels_of, seeded

if TYPE_CHECKING:
    import numpy as np
    import torch

SAMPLE = 2_000
"""Captions whose tokens are counted, and training rows among which the most typical caption is looked for."""
ROOM = 1.2
"""How much longer than nearly all known captions a written one may become."""
SHORTEST = 8
"""Tokens that a caption may have in any case."""
SHOWN, LETTERS = 12, 27
"""Pictures in the report with what was said of them, and letters of a line below one."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of image-to-text."""

    captions: str = option("one", "Which captions of a picture are learned: one, drawn anew for each epoch, or each of them.",
                           ("one", "each"))  # fmt: skip
    augment: str = option("none", "How training pictures are changed: none, crop (and flip), trivial.")
    max_new_tokens: int | None = option(
        None, "Longest caption that is written, in tokens (default: a fifth longer than 99 % of the training captions)."
    )
    num_beams: int = option(1, "Beams searched when writing: 3 is usual in papers and takes about three times as long.")
    length_penalty: float = option(1.0, "With beams: above 1 prefers longer captions, below shorter ones.")
    no_repeat_ngram_size: int = option(0, "No run of so many tokens is written twice (0: it may).")

    def __post_init__(self) -> None:
        """Raise ValueError for values that make no sense."""
        known = ["none", *catalog.names("augment")]
        if self.augment not in known:
            raise ValueError(catalog.unknown("augmentation", self.augment, known))
        for name, least in (("num_beams", 1), ("no_repeat_ngram_size", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; expected 1 or more")
        if self.num_beams > 64:
            raise ValueError(f"num_beams is {self.num_beams}; more than 64 beams only cost time and memory")


@dataclass(frozen=True, kw_only=True)
class ImageToText(PictureTask):
    """Pictures and what is said of them; scored by CIDEr-D, BLEU and ROUGE, beside the most typical caption for all."""

    name: ClassVar[str] = "image-to-text"
    auto_model: ClassVar[str] = "AutoModelForImageTextToText"
    pipeline: ClassVar[str] = "image-to-text"
    processor: ClassVar[str] = "AutoProcessor"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {"image": PICTURES, "captions": CAPTIONS}
    targets: ClassVar[tuple[str, ...]] = ("captions",)
    measured: ClassVar[tuple[str, ...]] = ("captions",)
    new_head: ClassVar[bool] = False
    before: ClassVar[bool] = True

    captions: str = "one"
    augment: str = "none"
    max_new_tokens: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0
    crosses: bool = False
    """The model is an encoder and a decoder; see `Captioner` for this and what follows."""
    start: int = 0
    end: int = 0
    padding: int = 0
    own_ends: bool = False

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """A column of pictures or paths, and captions: a text, a list of them, or numbered columns."""
        return caption_layout(cls.columns, features, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """How many captions there are and whether they say something. Raises UsageError when there are none."""
        return audit_captions(data)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "ImageToText":
        """The settings of the run."""
        return cls(**settings_of(cls, run), seed=run.seed)

    # --- the model

    def for_model(self, run: Run, config: Any, processor: Any, data: Mapping[str, Any]) -> "ImageToText":
        """The task with the model's own tokens and a sane length. Raises UsageError for a model that is no captioner."""
        writer = captioner_of(config, processor, run.model)
        tokens = {name: getattr(writer, name) for name in ("crosses", "start", "end", "padding", "own_ends")}
        text = config.get_text_config(decoder=True)
        positions = int(getattr(text, "max_position_embeddings", None) or 10**6) - 1
        longest = min(run.max_length or positions, positions)
        return replace(self, **tokens)._with_length(processor, data["train"], longest)

    def _with_length(self, processor: Any, rows: Any, longest: int) -> "ImageToText":
        """The task with how long a caption may become, from those there are, at most `longest`; what is cut is said."""
        import math

        import numpy as np

        if "captions" not in rows.column_names:
            return replace(self, max_new_tokens=min(self.max_new_tokens or longest, longest))
        few = rows.select(range(0, len(rows), max(1, math.ceil(len(rows) / SAMPLE))))["captions"][:]
        made = self.writer.targets(processor.tokenizer, [one for row in few for one in row], 10**6)
        lengths = np.array(list(map(len, made)))
        usual = max(SHORTEST, math.ceil(ROOM * float(np.percentile(lengths, 99))))
        new = min(self.max_new_tokens or usual, longest)
        searched = f"{self.num_beams} beams" if self.num_beams > 1 else "greedy"
        say(f"{'targets':<9} half up to {int(np.median(lengths))} tokens, longest {lengths.max()}; "
            f"written up to {new} ({searched})")  # fmt: skip
        if cut := int((lengths > longest).sum()):
            warn(
                f"train: {count(cut)} of {count(len(lengths))} captions looked at have over {longest} tokens and are cut"
            )
        return replace(self, max_new_tokens=new)

    @property
    def writer(self) -> Captioner:
        """How the model writes."""
        return Captioner(self.crosses, self.start, self.end, self.padding, self.own_ends)

    def reads_as(self, processor: Any) -> str:
        """Size and normalisation of what the model gets."""
        return super().reads_as(processor.image_processor)

    # --- rows to tensors

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from captions to `targets`, their ids each with the token that ends it, `said`, and the
        `length` of the longest."""
        writer, tokenizer = self.writer, processor.tokenizer

        def rows(batch: dict[str, list]) -> dict[str, list]:
            if "captions" not in batch:
                return {"length": [1] * len(next(iter(batch.values())))}
            targets = [writer.targets(tokenizer, said, max_length) for said in batch["captions"]]
            return {"targets": targets, "said": batch["captions"], "length": [max(map(len, row)) for row in targets]}

        return rows

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """With --captions each, a training row for each caption."""
        if self.captions == "one" or split != "train" or "targets" not in ready.column_names:
            return ready
        targets, said = ready["targets"][:], ready["said"][:]
        chosen = [(row, at) for row, known in enumerate(targets) for at in range(len(known))]
        made = ready.select([row for row, _ in chosen]).remove_columns(["targets", "said", "length"])
        made = made.add_column("targets", [[targets[row][at]] for row, at in chosen])
        made = made.add_column("said", [[said[row][at]] for row, at in chosen])
        return made.add_column("length", [len(targets[row][at]) for row, at in chosen])

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from rows to a batch: pixel_values [rows, channels, height, width], and where there are captions
        what the model reads and `labels` [rows, tokens]: of several one that seed, epoch and row decide, the first to
        measure."""
        images = processor.image_processor
        pixels = pixels_of(images, augmenter(self.augment, input_size(images), self.seed))
        writer, seed = self.writer, self.seed

        def chosen(row: Mapping[str, Any]) -> Sequence[int]:
            known: Sequence[Sequence[int]] = row["targets"]
            at = seeded(seed, int(row["epoch"]), int(row["row"])) % len(known) if "epoch" in row else 0
            return known[at]

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            made = {"pixel_values": pixels(rows)}
            if "targets" in rows[0]:
                made |= writer.padded([chosen(row) for row in rows], [row.get("row", 0) != -1 for row in rows])
            return made

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Every caption ends, once, and where it ends."""
        every = [ids for row in ready.with_format(None)["targets"][:] for ids in row]
        ended = sum(ids[-1:] == [self.end] and ids.count(self.end) == 1 for ids in every)
        several = [ids for ids in every if len(ids) > 1]
        return [
            ("every caption ends once", ended == len(every), f"{count(ended)} of {count(len(every))}"),
            ("the loss covers the captions", len(several) == len(every), f"{count(sum(map(len, every)))} tokens, none of "
             "the picture's"),
        ]  # fmt: skip

    def example(self, processor: Any, ready: Any) -> str:
        """The first training row: what is to be written of its picture."""
        return f"a picture  ⟦{processor.tokenizer.decode(ready.with_format(None)[0]['targets'][0])[:300]}⟧"

    # --- training

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Sum over the captions' tokens of the plug's loss (the cross-entropy)."""
        from torch.nn import functional

        logits, labels = self.writer.taught(model, batch), batch["labels"]
        kept = labels != -100
        logits, labels = logits[kept].float(), labels[kept]
        each = plug(logits, labels) if plug else functional.cross_entropy(logits, labels, reduction="none")
        return each.sum()

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Ids written for each row [tokens], without what begins, ends and pads them."""
        ids = model.generate(pixel_values=batch["pixel_values"], **self.search()).cpu().numpy()
        return [self.writer.written(row) for row in ids]

    def search(self) -> dict[str, Any]:
        """Arguments of `generate`: the same for evaluating, predicting, and in the card's code."""
        chosen: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams, "do_sample": False,
                                  "no_repeat_ngram_size": self.no_repeat_ngram_size, "min_length": 0}  # fmt: skip
        beams = {"length_penalty": self.length_penalty, "early_stopping": True} if self.num_beams > 1 else {}
        return {**chosen, **beams, **self.writer.tokens()}

    def quick_outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Loss summed, tokens, and tokens that are the likeliest, [3] for each row, with the captions given word by word."""
        made: list[np.ndarray] = []
        for part in few_rows(model, batch, "labels"):
            logits, labels = self.writer.taught(model, part), part["labels"]
            kept = labels != -100
            made += sums(token_losses(logits, labels), kept, (logits.argmax(dim=-1) == labels) & kept)
        return made

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """Loss and accuracy per token; no caption is written while training."""
        return by_token(kept)

    def readable(self, kept: "list[np.ndarray]", processor: Any) -> "list[np.ndarray]":
        """Captions, each as its bytes in UTF-8."""
        return decoded_bytes(kept, processor)

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """CIDEr-D, BLEU (of lower-cased captions) and ROUGE-L against all captions of each picture."""
        from hf_tuner.metrics._bleu import bleu
        from hf_tuner.metrics._cider import ALONE, cider
        from hf_tuner.metrics._rouge import UNICODE_NOTE, needs_any_script, rouge
        from hf_tuner.metrics._weighted import mean

        texts, references = [text_of(one) for one in kept], rows["captions"][:]
        any_script = needs_any_script(references)
        small = [text.lower() for text in texts], [[one.lower() for one in row] for row in references]
        found = {
            "cider": cider(texts, references),
            "bleu": bleu(*small),
            "rouge_l": mean(rouge(texts, references, any_script=any_script)["rouge_l"]),
        }
        notes = {**({"rouge_l": UNICODE_NOTE} if any_script else {}), **({"cider": ALONE} if len(texts) == 1 else {})}
        return Measures(found, len(texts), notes)

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """One caption for all pictures: the most typical of those learned."""
        few = train.select(range(0, len(train), max(1, len(train) // SAMPLE)))["said"][:]
        common = bytes_of(typical([one for row in few for one in row]))
        return {"typical caption": [common] * len(rows)}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": caption} for each row."""
        return [{"prediction": text_of(one)} for one in self.readable(kept, processor)]

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The captions least like what is known of their pictures, by the CIDEr-D of the row."""
        texts, references, order, scores = self._ordered(kept, rows)
        return [{"text": place_of(rows[i]["image"], i), "expected": references[i][0], "predicted": texts[i],
                 "score": float(scores[i])} for i in order[:10]]  # fmt: skip

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[Drawn]:
        """The pictures with the worst captions, and some from all, best to worst, with what was expected and given."""
        from hf_tuner.tasks._picture_grid import grid

        texts, references, order, scores = self._ordered(kept, rows)
        spread = [order[round(i * (len(order) - 1) / max(1, SHOWN - 1))] for i in range(SHOWN)][::-1]
        made = []
        for name, title, chosen, text in (
            ("worst-captions", "Worst captions", order[:SHOWN], "the lowest CIDEr-D first"),
            ("captions", "Captions from best to worst", list(dict.fromkeys(spread)), "spread evenly over all pictures"),
        ):
            cells = [(decoded(rows[i]["image"]), _lines(references[i][0], texts[i], scores[i])) for i in chosen]
            made.append(Drawn(name, title, grid(cells), f"{len(chosen)} of {len(texts)} pictures, {text}"))
        return made

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures with their captions."""
        return captioned(rows, "captions", most, seed)

    def _ordered(
        self, kept: "list[np.ndarray]", rows: Any
    ) -> "tuple[list[str], list[list[str]], list[int], np.ndarray]":
        """Captions, what is known, rows from worst to best, and the CIDEr-D of each row."""
        import numpy as np

        from hf_tuner.metrics._cider import cider_of_rows

        texts, references = [text_of(one) for one in kept], rows["captions"][:]
        scores = cider_of_rows(texts, references)
        return texts, references, np.argsort(scores, kind="stable").tolist(), scores

    # --- words for the card

    @property
    def note(self) -> str:
        """Which captions were learned."""
        return "each caption of a picture is a training row" if self.captions == "each" else \
            "of several captions of a picture one is learned in each epoch"  # fmt: skip

    @property
    def gives(self) -> str:
        """A caption."""
        return "a caption for a picture"

    @property
    def limits(self) -> tuple[str, ...]:
        """What captions may do."""
        return ("A caption may name what the picture does not show, and guesses at who people are and what they do.",
                f"It writes {self.max_new_tokens} tokens at most.")  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """Code that captions a picture."""
        usual = {"do_sample": False, "no_repeat_ngram_size": 0, "min_length": 0, "num_beams": 1}
        search = {name: value for name, value in self.search().items() if usual.get(name, ...) != value}
        lines = (
            "from PIL import Image",
            "",
            'pictures = [Image.open("picture.jpg").convert("RGB")]',
            'inputs = processor.image_processor(pictures, return_tensors="pt")',
            "model.eval()",
            'ids = model.generate(pixel_values=inputs["pixel_values"],',
            f"                     {', '.join(f'{name}={value!r}' for name, value in search.items())})",
            "print(processor.tokenizer.batch_decode(ids, skip_special_tokens=True))",
        )
        return Usage(reads="a column `image` with paths of pictures", example='["picture.jpg"]',
                     answer="Each answer is the caption of a picture.", lines=lines, verb="write")  # fmt: skip


def _lines(expected: str, given: str, score: float) -> list[str]:
    """What stands below a picture."""
    said = textwrap.wrap(f"+ {expected}", LETTERS)[:3] + textwrap.wrap(f"> {given}", LETTERS)[:3]
    return [*said, f"CIDEr-D {score:.2f}"]
