"""image-text-to-text: a model that sees and chats: questions about pictures, captions, instructions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.console import count, say
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _chat as chat
from hf_tuner.tasks import _language as language
from hf_tuner.tasks import _picture_talk as talk
from hf_tuner.tasks import _seeing as seeing
from hf_tuner.tasks import _seen_answers as scores
from hf_tuner.tasks import _templates as templates
from hf_tuner.tasks._drawn import Drawn
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._reading import decoded_bytes, text_of
from hf_tuner.tasks._task import Findings, Layout, Measures, Task, Usage
from hf_tuner.tasks._vision import decoded
from hf_tuner.tasks._writing import written

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hf_tuner.tasks._pictured import Sample

EXAMPLES, BEFORE = 20, 30
"""Training rows that an example is chosen from, and tokens of it that stand before the first answer."""
LONGEST_ANSWER, SHORTEST = 256, 8
"""Tokens that an answer may have at most, and in any case, where nothing else is asked for."""
ROOM = 1.2
"""How much longer than nearly all known answers a written one may become."""
SAMPLE = 2_000
"""Answers whose tokens are counted."""
ASK = "ask."
"""Begins the names of what a batch holds to answer, beside what it holds to learn."""
DESCRIBE = "Describe the picture."


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of conversations about pictures."""

    chat_template: str = option("auto", "Chat template: auto (the processor's own) or a Jinja file.")
    loss_on: str = option(
        "assistant",
        "What is learnt: every turn of the assistant, or the last answer (completion).",
        ("assistant", "completion"),
    )
    ask: str = option(DESCRIBE, "What is asked about pictures that come without a question.")
    score: str = option(
        "auto",
        "How it is measured: written answers by exact match (answers), written texts by BLEU and ROUGE (texts), how likely "
        "the known answers are (likelihood), or what fits the data (auto).",
        ("auto", "answers", "texts", "likelihood"),
    )
    max_new_tokens: int | None = option(
        None, "Tokens of a written answer at most (default: a fifth more than 99 % of the known answers)."
    )
    num_beams: int = option(1, "Beams searched when writing.")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        for name in ("max_new_tokens", "num_beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if not self.ask.strip():
            raise ValueError(f"ask is empty; expected a question, such as {DESCRIBE!r}")


@dataclass(frozen=True, kw_only=True)
class ImageTextToText(Task):
    """Conversations with pictures in the model's chat template; what the assistant says is learnt, with its end."""

    name: ClassVar[str] = "image-text-to-text"
    auto_model: ClassVar[str] = "AutoModelForImageTextToText"
    pipeline: ClassVar[str] = "image-text-to-text"
    processor: ClassVar[str] = "AutoProcessor"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = talk.COLUMNS
    targets: ClassVar[tuple[str, ...]] = ("answer", "caption", "references")
    texts: ClassVar[tuple[str, ...]] = ()
    carried: ClassVar[tuple[str, ...]] = ("images",)
    pictures: ClassVar[tuple[str, ...]] = ("images",)
    sees: ClassVar[bool] = True
    new_head: ClassVar[bool] = False
    pace: ClassVar[tuple[int, int]] = (8, 5)
    at_once: ClassVar[int] = 8
    before: ClassVar[bool] = True

    chat_template: str = "auto"
    loss_on: str = "assistant"
    ask: str = DESCRIBE
    score: str = "auto"
    max_new_tokens: int | None = None
    num_beams: int = 1

    # --- from data

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "ImageTextToText":
        """The settings of the run, and how these rows are measured. Raises UsageError for a template that is not there."""
        settings = settings_of(cls, run)
        score = settings.get("score", "auto")
        given = {"chat_template": templates.template_text(settings.get("chat_template", "auto"))}
        return cls(**{**settings, **given, "score": scores.fitting(data["train"]) if score == "auto" else score})

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Chat messages, prompts, questions with one or several answers, or captions, beside one or several pictures."""
        columns = {name: column for name, column in given.items() if name != "ask"}
        return talk.picture_talk(features, first, columns, given.get("ask", DESCRIBE))

    @classmethod
    def asked(cls, settings: Any) -> Mapping[str, str]:
        """What is asked about pictures that come without a question."""
        return {"ask": settings.ask} if settings is not None else {}

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Conversations without an answer, roles out of order, pictures that are shown and not there."""
        found = chat.talk(data, "no turn of the assistant: there is nothing to learn from it")
        for split, rows in data.items():
            for number, (prompt, images) in enumerate(zip(rows["prompt"], rows.select_columns("images"), strict=True)):
                marked = sum(message["content"].count(talk.PICTURE) for message in prompt)
                shown = len(talk.pictures_of(images["images"]))
                if marked not in (0, shown):
                    found.errors.append((split, number, talk.mismatch(marked, shown)))
        return found

    # --- the model

    def dress(self, processor: Any) -> str:
        """Give processor and tokenizer the chat template, and the token that ends a turn as their end."""
        return seeing.Seeing(processor).dress(self.chat_template)

    def for_model(self, run: Run, config: Any, processor: Any, data: Mapping[str, Any]) -> "ImageTextToText":
        """With how long a written answer may become, from the answers there are. Raises UsageError for encoder-decoders."""
        if getattr(config, "is_encoder_decoder", False):
            raise UsageError(f"--model {run.model}: {config.model_type} reads with an encoder and writes with a decoder, and "
                             f"does not chat; {seeing.INSTEAD}")  # fmt: skip
        if self.max_new_tokens is not None:
            return self
        import numpy as np

        rows = data["train"].select(range(min(len(data["train"]), SAMPLE)))["completion"]
        texts = [turns[-1]["content"] for turns in rows if turns] or [""]
        lengths = [len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        usual = int(np.ceil(ROOM * (float(np.percentile(lengths, 99)) + 1)))
        task = replace(self, max_new_tokens=min(max(usual, SHORTEST), LONGEST_ANSWER))
        say(f"{'answers':<9} half up to {int(np.median(lengths))} tokens, longest {max(lengths)}; written up to "
            f"{task.max_new_tokens}; {task.note}")  # fmt: skip
        return task

    def reads_as(self, processor: Any) -> str:
        """How many tokens a picture is."""
        eyes = seeing.Seeing(processor)
        sizes = ((320, 240), (1024, 768))
        told = [f"{eyes.tokens(size)} tokens for {size[0]} × {size[1]} pixels" for size in sizes]
        return f"{type(processor).__name__}: {told[0]}" + ("" if told[0][:4] == told[1][:4] else f", {told[1]}")

    @property
    def note(self) -> str:
        """What is learnt and how it is measured."""
        learnt = "every turn of the assistant" if self.loss_on == "assistant" else "the last answer"
        return f"{learnt} is learnt; measured by {scores.MEASURED[self.score]}"

    @property
    def writes(self) -> bool:
        """Whether answers are written to be measured."""
        return self.score != "likelihood"

    # --- rows to tensors

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function to `text` (a token a picture), `input_ids` and `labels` in full, `turns`, `ends` and `shown`
        (tokens of pictures that are learnt: none), `asked` (the text up to the answer), `target` and `length`."""
        eyes, loss_on, writes = seeing.Seeing(processor), self.loss_on, self.writes
        room = self.max_new_tokens or LONGEST_ANSWER

        def rows(batch: dict[str, list]) -> dict[str, list]:
            talks = conversations(batch)
            spoken = [i for i, one in enumerate(talks) if one.spoken]
            learnt = dict(zip(spoken, eyes.taught([talks[i] for i in spoken], loss_on, max_length), strict=True))
            asked = eyes.asked(talks) if writes else [("", 0)] * len(talks)
            nothing = seeing.Taught("", templates.Encoded([], [], 0, 0), True)
            made: dict[str, list] = {name: [] for name in COLUMNS}
            for i, (one, (text, size)) in enumerate(zip(talks, asked, strict=True)):
                taught = learnt.get(i) or nothing
                ids, labels = taught.encoded.ids, taught.encoded.labels if taught.fits else []
                made["text"].append(taught.text)
                made["input_ids"].append(ids)
                made["labels"].append(labels)
                made["turns"].append(taught.encoded.turns)
                made["ends"].append(taught.encoded.ends)
                made["shown"].append(eyes.pictured([label for label in labels if label != -100]))
                made["asked"].append(text)
                made["target"].append(one.completion[-1]["content"] if one.completion else "")
                made["length"].append(max(len(ids), min(size + room, max_length) if i not in learnt else 0))
                made["open"].append(not writes or size < max_length)
            return made

        return rows

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Training rows with something to learn. Raises UsageError where pictures or questions do not fit."""
        plain = ready.select_columns(["labels", "text", "open"]).with_format(None)
        said = [bool(text) for text in plain["text"][:]]
        learns = [max(row, default=-100) >= 0 for row in plain["labels"][:]]
        if split != "train":
            closed = [i + 1 for i, fits in enumerate(plain["open"][:]) if not fits]
            closed += [i + 1 for i, (s, row) in enumerate(zip(said, plain["labels"][:], strict=True)) if s and not row]
            if closed:
                raise UsageError(f"{split}: {count(len(closed))} rows do not fit in {max_length} tokens with their pictures "
                                 f"(row {closed[0]} of it first): a larger --max-length, or smaller pictures")  # fmt: skip
            return ready
        kept = [i for i, learnt in enumerate(learns) if learnt]
        if not kept:
            raise UsageError(f"no conversation reaches an answer within {max_length} tokens: a larger --max-length, or smaller "
                             "pictures")  # fmt: skip
        if len(kept) < len(ready):
            say(f"  note      {count(len(ready) - len(kept))} conversations are left out: no answer begins within "
                f"{max_length} tokens")  # fmt: skip
            return ready.select(kept)
        return ready

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function to one batch: what the model reads with `labels`, padded on the right; where answers are measured also
        what it is asked, padded on the left, under names that begin with "ask."."""
        eyes, writes = seeing.Seeing(processor), self.writes
        learn = seeing.taught_batch(eyes)
        pad, end = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id

        def batch(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            rows = [{**row, "pictures": [decoded(one) for one in talk.pictures_of(row["images"])]} for row in given]
            made = learn(rows) if all(row["labels"] for row in rows) else {}
            if writes and "epoch" not in rows[0]:
                asked = eyes.batch([row["asked"] for row in rows], [row["pictures"] for row in rows], "left")
                made |= {ASK + name: value for name, value in asked.items()} | {"stops": (end, pad)}
            return made

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """The loss covers some tokens and not all, none that stands for a picture; each answer's end is learnt once."""
        rows = ready.select_columns(["labels", "turns", "ends", "shown"]).with_format("numpy")
        tokens = sum(len(labels) for labels in rows["labels"])
        learnt = sum(int((labels != -100).sum()) for labels in rows["labels"])
        turns, ends, shown = (int(rows[name][:].sum()) for name in ("turns", "ends", "shown"))
        return [
            ("loss on answers", 0 < learnt < tokens, f"loss on {learnt / max(1, tokens):.0%} of {count(tokens)} tokens"),
            ("no loss on pictures", shown == 0, f"{count(shown)} tokens of pictures are learnt"),
            ("answers end once", turns == ends, f"{count(ends)} ends learnt for {count(turns)} turns of the assistant"),
        ]  # fmt: skip

    def example(self, processor: Any, ready: Any) -> str:
        """How much is learnt, and where the answer of a short conversation begins; what the loss covers is marked."""
        few = ready.select(range(min(len(ready), EXAMPLES))).select_columns(["input_ids", "labels"]).with_format(None)
        row = min(few, key=lambda one: len(one["input_ids"]))
        ids, labels = row["input_ids"], row["labels"]
        begin = max(0, next((i for i, label in enumerate(labels) if label != -100), 0) - BEFORE)
        shown = language.marked(processor.tokenizer, ids[begin:], [label != -100 for label in labels[begin:]])
        return f"{self.masks(ready)[0][2]}: {'… ' if begin else ''}{shown}"

    # --- training and measuring

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Negative log-likelihood summed over the tokens that are learnt."""
        return seeing.losses(model, _to_learn(batch))[0].sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Ids that were written for each row [tokens]; else the sums of `quick_outputs`."""
        if not self.writes:
            return self.quick_outputs(model, batch)
        given = {name.removeprefix(ASK): value for name, value in batch.items() if name.startswith(ASK)}
        return written(model, given, batch["stops"], self._search())

    def quick_outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """[sum of the losses, tokens that are learnt, those of them that were likeliest] of each conversation."""
        return language.sums(*seeing.losses(model, _to_learn(batch)))

    def _search(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens or LONGEST_ANSWER, "num_beams": self.num_beams}

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """Loss and accuracy per token; no answer is written while training."""
        return language.by_token(kept)

    def readable(self, kept: "list[np.ndarray]", processor: Any) -> "list[np.ndarray]":
        """Texts, each as its bytes in UTF-8; sums stay."""
        return decoded_bytes(kept, processor.tokenizer) if self.writes else kept

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Scores of the answers, or perplexity; the bootstrap draws rows."""
        import numpy as np

        if not self.writes:
            return language.perplexity(kept, np.ones(len(kept), int))
        return scores.measured(self.score, [text_of(one) for one in kept], scores.references_of(rows))

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """The commonest answer of training for every picture."""
        return scores.majority(train, len(ready)) if self.writes else {}

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The answers furthest from those known."""
        return scores.worst(self.score, [text_of(one) for one in kept], rows)[0] if self.writes else []

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[Drawn]:
        """The pictures with the worst answers."""
        return scores.drawn(self.score, [text_of(one) for one in kept], rows) if self.writes else []

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Pictures with what is said of them."""
        return scores.pictured(rows, most, seed)

    # --- users

    def answering(self, **settings: Any) -> Task:
        """`predict` writes an answer for each row."""
        task: Any = super().answering(**{"max_new_tokens": self.max_new_tokens or LONGEST_ANSWER, **settings})
        return task if task.writes else replace(task, score="texts")

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": what was written, "finished": whether it ended by itself}."""
        most, texts = self._search()["max_new_tokens"], decoded_bytes(kept, processor.tokenizer)
        return [
            {"prediction": text_of(text), "finished": len(ids) < most} for text, ids in zip(texts, kept, strict=True)
        ]

    def samples(self) -> list[dict[str, Any]]:
        """Questions about pictures made from numbers."""
        return scores.samples()

    @property
    def gives(self) -> str:
        """What it gives for what."""
        return "an answer to a question about pictures" if self.score == "answers" else "a text about pictures"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return (
            "It says what is likely for pictures like those it was trained on, whether they show it or not.",
            "It knows no conversation that is longer, with its pictures, than the tokens it was trained with.",
        )

    def usage(self, max_length: int) -> Usage:
        """How a stranger asks it about a picture."""
        return scores.usage(self._search())


COLUMNS = ("text", "input_ids", "labels", "turns", "ends", "shown", "asked", "target", "length", "open")


def conversations(batch: Mapping[str, list]) -> list[seeing.Conversation]:
    """Rows with their pictures in place. Raises UsageError for rows that show others than they have."""
    made = []
    empty: list[list] = [[]] * len(batch["prompt"])
    several = zip(batch["prompt"], batch.get("completion") or empty, batch["tools"], batch["images"], strict=True)
    for prompt, completion, tools, images in several:
        pictures = talk.pictures_of(images)
        made.append(
            seeing.Conversation(talk.placed(prompt, len(pictures)), completion, tools, seeing.sizes_of(pictures))
        )
    return made


def _to_learn(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a batch that is learnt."""
    return {name: value for name, value in batch.items() if not name.startswith(ASK) and name != "stops"}
