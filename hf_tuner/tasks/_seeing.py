"""What a model that sees reads: chat texts in which pictures become as many tokens as their processor makes of them.

How many depends on nothing but the sizes of a row's pictures, so a processor is asked once about every size, with blank
pictures. When a batch is made it gets the pictures themselves, and must give the very tokens that were counted before.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tuner.errors import UsageError
from hf_tuner.pictures import size_of
from hf_tuner.tasks import _templates as templates
from hf_tuner.tasks._conversations import Message
from hf_tuner.tasks._language import token_losses
from hf_tuner.tasks._packing import bare_model
from hf_tuner.tasks._picture_talk import in_parts
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    import torch

TRIAL = (
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Good morning."}]},
    {"role": "assistant", "content": [{"type": "text", "text": templates.SPOKEN}]},
)
Sizes = tuple[tuple[int, int], ...]
"""Width and height of a row's pictures."""
Spans = list[tuple[int, int]]
PLAIN = {"add_special_tokens": False}
INSTEAD = "--task image-to-text is for captioners without one"


@dataclass(frozen=True)
class Conversation:
    """One row: what leads to the answer, the answer, tools as JSON, and the sizes of its pictures."""

    prompt: list[Message]
    completion: list[Message]
    tools: str
    sizes: Sizes

    @property
    def spoken(self) -> bool:
        """Whether the assistant says anything."""
        return any(message["role"] == "assistant" for message in (*self.prompt, *self.completion))


@dataclass(frozen=True)
class Taught:
    """A conversation as it is learnt: its text with one token a picture, and its tokens in full."""

    text: str
    encoded: templates.Encoded
    fits: bool
    """Whether all its pictures are within the tokens that are kept."""


@dataclass(frozen=True)
class Seeing:
    """A processor for texts and pictures, and what it makes of pictures of each size."""

    processor: Any
    known: dict[Sizes, list[str]] = field(default_factory=dict)
    """Sizes of a row's pictures → the text that stands for each of them."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer in the processor."""
        return self.processor.tokenizer

    def taught(self, rows: Sequence[Conversation], loss_on: str, limit: int) -> list[Taught]:
        """Conversations with what the loss covers, at most `limit` tokens each. Raises UsageError."""
        if not rows:
            return []
        chat = templates.chat_of(self.tokenizer)
        talks = [(in_parts(row.prompt), in_parts(row.completion), row.tools) for row in rows]
        texts, spans = templates.located(self.tokenizer, chat, talks, loss_on)
        short = [self._closed(*pair) for pair in zip(texts, spans, strict=True)]
        long = [self._expanded(*pair, row.sizes) for pair, row in zip(short, rows, strict=True)]
        room = [limit * CHARACTERS_PER_TOKEN + len(whole) - len(text)
                for (whole, _), (text, _) in zip(long, short, strict=True)]  # fmt: skip
        cut = [whole[:most] for (whole, _), most in zip(long, room, strict=True)]
        tokens = templates.tokenised(self.tokenizer, cut)
        made = []
        for i, (whole, places) in enumerate(long):
            how = (chat.end, False, (len(cut[i]), len(whole)), limit)
            encoded = templates.labelled(self.tokenizer, tokens, i, places, how)
            seen = self.pictured(encoded.ids) == self.pictured(tokens["input_ids"][i])
            made.append(Taught(short[i][0], encoded, seen))
        return made

    def asked(self, rows: Sequence[Conversation]) -> list[tuple[str, int]]:
        """Texts up to where the assistant answers, and how many tokens they are with their pictures."""
        texts = templates.prompt_texts(self.tokenizer, [(in_parts(row.prompt), row.tools) for row in rows])
        short = [self._closed(text, [])[0] for text in texts]
        long = [self._expanded(text, [], row.sizes)[0] for text, row in zip(short, rows, strict=True)]
        return list(zip(short, map(len, templates.tokenised(self.tokenizer, long)["input_ids"]), strict=True))

    def pictured(self, ids: Sequence[int]) -> int:
        """How many of the tokens stand for pictures."""
        known = set(self.processor.image_token_ids)
        return sum(token in known for token in ids)

    def tokens(self, size: tuple[int, int]) -> int:
        """How many tokens one picture of a size is."""
        return self.pictured(templates.tokenised(self.tokenizer, self._stand_ins((size,)))["input_ids"][0])

    def batch(self, texts: Sequence[str], pictures: Sequence[Sequence[Any]], side: str) -> "dict[str, torch.Tensor]":
        """What the model reads of texts and each row's PIL images, texts padded on a side: ids and mask [rows, tokens],
        pixels and what goes with them."""
        shown = list(map(list, pictures)) if any(pictures) else None
        made = self.processor(
            text=list(texts), images=shown, padding=True, padding_side=side, return_tensors="pt", **PLAIN
        )
        return dict(made)

    def dress(self, choice: str) -> str:
        """Give the processor its chat template and see that both go together; says what was done. Raises UsageError."""
        name, place = type(self.processor).__name__, getattr(self.processor, "image_token", None)
        if getattr(self.processor, "tokenizer", None) is None or not place:
            raise UsageError(f"{name} has no token that stands for a picture in a text, so it reads no conversations: take a "
                             f"model that chats (SmolVLM, LLaVA, Qwen2-VL, Gemma 3 …); {INSTEAD}")  # fmt: skip
        own = self.processor.chat_template or self.tokenizer.chat_template
        if choice == "auto" and not own:
            raise UsageError(f"{name} comes without a chat template: the model was not made for conversations. Take one that "
                             f"was (often called Instruct), or say how turns are written: --chat-template FILE (Jinja; "
                             f"{place} where a part of a message is an image); {INSTEAD}")  # fmt: skip
        self.tokenizer.chat_template = own
        said = templates.dress(self.tokenizer, choice, TRIAL)
        self.processor.chat_template = self.tokenizer.chat_template
        self._require_pictures(place)
        return said

    def _require_pictures(self, place: str) -> None:
        """Raise UsageError for a template that leaves pictures out, or a processor that changes what it is given."""
        prompt = [dict(TRIAL[0], content="\ufffcGood morning.", more="")]
        row = Conversation(prompt, [dict(TRIAL[1], content=templates.SPOKEN, more="")], "", ((64, 48),))
        chat = templates.chat_of(self.tokenizer)
        text = templates.located(self.tokenizer, chat, [(in_parts(row.prompt), in_parts(row.completion), "")],
                                 "assistant")[0][0]  # fmt: skip
        if text.count(place) != 1:
            raise UsageError(f"the chat template writes {text.count(place)} times {place} for one picture; it has to write it "
                             "once where a part of a message is an image")  # fmt: skip
        text = self._closed(text, [])[0]
        given = list(self._read([text], row.sizes)["input_ids"][0])
        expected = templates.tokenised(self.tokenizer, [self._expanded(text, [], row.sizes)[0]])["input_ids"][0]
        if given != list(expected):
            raise UsageError(f"{type(self.processor).__name__} does not leave a conversation as it is written (PaliGemma's "
                             f"puts pictures first and reads all before the answer at once): {INSTEAD}")  # fmt: skip

    def _closed(self, text: str, spans: Spans) -> tuple[str, Spans]:
        """A text that begins with the token that texts begin with, and whose answers end with the one that ends a turn."""
        start, end = self.tokenizer.bos_token or "", str(self.tokenizer.eos_token)
        made, places, last = "", [], 0
        if (
            start
            and not text.startswith(start)
            and self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        ):
            made = start
        for first, stop in spans:
            said = text[first:stop]
            if end not in said and not text[stop:].lstrip().startswith(end):
                kept = len(said.rstrip())
                made += text[last:first]
                places.append((len(made), len(made) + kept + len(end)))
                made += said[:kept] + end
                last = first + kept
            else:
                places.append((first - last + len(made), stop - last + len(made)))
                made += text[last:stop]
                last = stop
        return made + text[last:], places

    def _expanded(self, text: str, spans: Spans, sizes: Sizes) -> tuple[str, Spans]:
        """A text with what stands for its pictures in full, and where the spans are then."""
        place, pieces = self.processor.image_token, text.split(self.processor.image_token)
        if len(pieces) - 1 != len(sizes):
            raise UsageError(f"the chat template shows {len(pieces) - 1} pictures of {len(sizes)}; a text may not hold {place} "
                             "itself")  # fmt: skip
        stand = self._stand_ins(sizes) if sizes else []
        made, ends = pieces[0], []
        gained: list[int] = []
        for piece, shown in zip(pieces[1:], stand, strict=True):
            before = len(made) - sum(gained)
            ends.append(before + len(place))
            gained.append(len(shown) - len(place))
            made += shown + piece

        def moved(at: int) -> int:
            return at + sum(more for end, more in zip(ends, gained, strict=True) if end <= at)

        return made, [(moved(a), moved(b)) for a, b in spans]

    def _stand_ins(self, sizes: Sizes) -> list[str]:
        """The texts that stand for pictures of these sizes in one row."""
        if sizes not in self.known:
            place = self.processor.image_token
            read = self._read([place * len(sizes)], sizes, return_text_replacement_offsets=True)
            told = read.get("text_replacement_offsets")
            self.known[sizes] = (
                [one["replacement"] for one in told[0]] if told else [self._stand_in(one) for one in sizes]
            )
        return self.known[sizes]

    def _stand_in(self, size: tuple[int, int]) -> str:
        """The text for one picture, from its tokens, where the processor tells no text."""
        ids = self._read([self.processor.image_token], (size,))["input_ids"][0]
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        if list(templates.tokenised(self.tokenizer, [text])["input_ids"][0]) != list(ids):
            raise UsageError(f"{type(self.processor).__name__} does not tell what it writes for a picture")
        return text

    def _read(self, texts: list[str], sizes: Sizes, **options: Any) -> Any:
        from PIL import Image

        return self.processor(text=texts, images=[[Image.new("RGB", size) for size in sizes]], **PLAIN, **options)


def sizes_of(pictures: Sequence[Mapping[str, Any]]) -> Sizes:
    """Width and height of each picture, from its header."""
    return tuple(size_of(one["bytes"] if one["bytes"] is not None else Path(one["path"])) for one in pictures)


def taught_batch(seeing: Seeing) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """A function from encoded rows with their PIL images as "pictures" to a batch to learn: what the model reads, padded on
    the right, and `labels`.

    Raises UsageError when the processor makes other tokens of a row than were counted.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        made = seeing.batch([row["text"] for row in rows], [row["pictures"] for row in rows], "right")
        whole, labels = made["input_ids"].shape, pad_sequence([torch.tensor(row["labels"]) for row in rows], True, -100)
        for row, ids in zip(rows, made["input_ids"].tolist(), strict=True):
            if ids[: len(row["input_ids"])] != list(row["input_ids"]):
                raise UsageError(f"{type(seeing.processor).__name__} makes other tokens of a row's pictures than of blank ones "
                                 f"of their size: {row['text'][:60]!r}")  # fmt: skip
        made = {n: v[:, : labels.shape[1]] if v.shape[:2] == whole else v for n, v in made.items()}
        lengths = torch.tensor([len(row["labels"]) for row in rows])
        made["attention_mask"] = (torch.arange(labels.shape[1]) < lengths[:, None]).long()
        return {**made, "labels": labels}

    return batch


def losses(model: Any, batch: Mapping[str, Any]) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Negative log-likelihoods, which tokens are learnt, and which of them are the likeliest, [rows, tokens] each.

    Logits are asked for from the first token on that is learnt in the batch: those of pictures would fill the memory.
    """
    inputs = dict(batch)
    labels = inputs.pop("labels")
    learnt = labels.ne(-100).any(dim=0).nonzero()
    first = int(learnt[0]) if len(learnt) else labels.shape[1] - 1
    keep = labels.shape[1] - max(first - 1, 0)
    if "logits_to_keep" in inspect.signature(bare_model(model).forward).parameters:
        inputs["logits_to_keep"] = keep
    logits = model(**inputs, use_cache=False)["logits"][:, -keep:][:, :-1]
    labels = labels[:, -keep:][:, 1:]
    known = labels.ne(-100)
    return token_losses(logits, labels), known, (logits.argmax(dim=-1) == labels) & known
