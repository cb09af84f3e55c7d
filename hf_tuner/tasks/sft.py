"""sft: instruction tuning, a language model learns to answer as the assistant of conversations does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.console import count, say
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _chat as chat
from hf_tuner.tasks import _language as language
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks import _templates as templates
from hf_tuner.tasks._conversations import conversation_layout
from hf_tuner.tasks._task import Findings, Layout, Measures

if TYPE_CHECKING:
    import numpy as np
    import torch

EXAMPLES, BEFORE = 20, 30
"""Training rows that an example is chosen from, and tokens of it that stand before the first answer."""
LOSS_ON = ("assistant", "completion", "all")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of instruction tuning."""

    chat_template: str = option(
        "auto", "Chat template: auto (the model's own, else chatml or plain), chatml, plain, or a Jinja file."
    )
    loss_on: str = option(
        "assistant",
        "What is learnt: every turn of the assistant, the last answer (completion), or every token (all).",
        LOSS_ON,
    )
    packing: str = option(
        "auto", "Put short conversations side by side in a row where the model keeps them apart.", ("auto", "off")
    )
    max_new_tokens: int = option(64, "Tokens that predict writes at most.")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class SFT(chat.ChatTask):
    """Conversations in the model's chat template; what the assistant says is learnt, with the token that ends a turn."""

    name: ClassVar[str] = "sft"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("messages",),
        ("conversations",),
        ("instruction", "output"),
        ("instruction", "response"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("question", "answer"),
    )

    loss_on: str = "assistant"
    packing: str = "auto"

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Chat messages, ShareGPT, instructions, prompts and completions, or questions and answers."""
        return conversation_layout(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Conversations without an answer, roles out of order."""
        return chat.talk(data, "no turn of the assistant: there is nothing to learn from it")

    def suit(self, model: Any, max_length: int) -> "SFT":
        """With the way in which this model keeps packed conversations apart."""
        if self.packing != "auto":
            return self
        return replace(self, packing=packing.settled(model, max_length, causal=True)[0])

    @property
    def note(self) -> str:
        """What is learnt, and how conversations share rows."""
        learnt = {"assistant": "every turn of the assistant is learnt", "completion": "the last answer is learnt",
                  "all": "every token is learnt"}[self.loss_on]  # fmt: skip
        return "; ".join(filter(None, [learnt, packing.NOTES.get(self.packing)]))

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function to `input_ids`, `labels`, `length`, and how many turns end and are learnt to end."""
        how, loss_on = templates.chat_of(tokenizer), self.loss_on

        def rows(batch: dict[str, list]) -> dict[str, list]:
            empty: list[list] = [[]] * len(batch["prompt"])
            whole = zip(batch["prompt"], batch.get("completion") or empty, batch["tools"], strict=True)
            made = templates.encode(tokenizer, how, list(whole), loss_on, max_length)
            return {
                "input_ids": [one.ids for one in made],
                "labels": [one.labels for one in made],
                "length": [len(one.ids) for one in made],
                "turns": [one.turns for one in made],
                "ends": [one.ends for one in made],
            }

        return rows

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Training rows with something to learn, in packed rows; what is measured stays one conversation a row."""
        if split != "train":
            return ready
        learns = [number for number, row in enumerate(ready.with_format(None)["labels"]) if max(row, default=-100) >= 0]
        if not learns:
            raise UsageError(f"no conversation reaches an answer within {max_length} tokens: a larger --max-length")
        if len(learns) < len(ready):
            say(f"  note      {count(len(ready) - len(learns))} conversations are left out: no answer begins within "
                f"{max_length} tokens")  # fmt: skip
            ready = ready.select(learns).flatten_indices()
        if self.packing in ("auto", packing.OFF):
            return ready
        return packing.filled(ready, max_length, "conversations")

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """See `_packing.collated`."""
        return packing.collated(tokenizer.pad_token_id, self.packing)

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """The loss covers some tokens and (unless all are asked for) not all; each answer's end is learnt once."""
        rows = ready.with_format("numpy")
        tokens = int(rows["length"][:].sum())
        learnt = sum(int((labels != -100).sum()) for labels in rows["labels"])
        turns, ends = int(rows["turns"][:].sum()), int(rows["ends"][:].sum())
        return [
            ("loss on answers", 0 < learnt < tokens, f"loss on {learnt / max(1, tokens):.0%} of {count(tokens)} tokens"),
            ("answers end once", turns == ends, f"{count(ends)} ends learnt for {count(turns)} turns of the assistant"),
        ]  # fmt: skip

    def example(self, processor: Any, ready: Any) -> str:
        """How much is learnt, and where the answer of a short conversation begins; what the loss covers is marked."""
        ids, labels = _shortest(ready.select(range(min(len(ready), EXAMPLES))).with_format(None))
        begin = max(0, next((i for i, label in enumerate(labels) if label != -100), 0) - BEFORE)
        shown = language.marked(processor, ids[begin:], [label != -100 for label in labels[begin:]])
        return f"{self.masks(ready)[0][2]}: {'… ' if begin else ''}{shown}"

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Negative log-likelihood summed over the tokens that are learnt."""
        return self._losses(model, batch)[0].sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """[sum of the losses, tokens that are learnt, those of them that were likeliest] of each conversation."""
        return [row for part in language.few_rows(model, batch) for row in language.sums(*self._losses(model, part))]

    def _losses(self, model: Any, batch: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        labels = batch.pop("labels")[:, 1:]
        logits = packing.logits_of(model, batch, causal=True)[:, :-1]
        right = logits.argmax(dim=-1) == labels
        return language.token_losses(logits, labels), labels.ne(-100), right

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Perplexity, loss and accuracy of the tokens that would be learnt; the bootstrap draws conversations."""
        import numpy as np

        return language.perplexity(kept, np.ones(len(kept), int))

    @property
    def gives(self) -> str:
        """What it gives for what."""
        return "the assistant's next message in a conversation"


def _shortest(rows: Any) -> tuple[list[int], list[int]]:
    """Ids and labels of the shortest conversation in encoded, perhaps packed rows."""
    texts: list[tuple[list[int], list[int]]] = []
    for row in rows:
        start = 0
        for size in packing.sizes_of(row):
            texts.append((row["input_ids"][start : start + size], row["labels"][start : start + size]))
            start += size
    return min(texts, key=lambda text: len(text[0]))
