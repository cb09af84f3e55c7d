"""causal-lm: go on pretraining a language model on raw text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.console import count
from hf_tuner.tasks import _language as language
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._models import require_decoder
from hf_tuner.tasks._task import Findings, Layout, Measures, Task, Usage
from hf_tuner.tasks._writing import Writing

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of continued pretraining."""

    block_size: int | None = option(None, "Tokens of a training block (default: --max-length).")
    packing: str = option(
        "auto", "Put short texts side by side in a block where the model keeps them apart.", ("auto", "off")
    )
    max_new_tokens: int = option(64, "Tokens that predict writes at most.")
    num_beams: int = option(1, "Beams of predict; 1 takes the likeliest token each time.")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        if self.block_size is not None and self.block_size < 8:
            raise ValueError(f"block_size is {self.block_size}; expected at least 8 tokens")
        if min(self.max_new_tokens, self.num_beams) < 1:
            raise ValueError("max_new_tokens and num_beams are at least 1")


@dataclass(frozen=True, kw_only=True)
class CausalLM(Task):
    """Documents as pieces of a block's length; every token but the first of a document is learnt exactly once."""

    name: ClassVar[str] = "causal-lm"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("text",),)
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    pipeline: ClassVar[str] = "text-generation"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = language.COLUMNS
    targets: ClassVar[tuple[str, ...]] = ()
    new_head: ClassVar[bool] = False
    splits: ClassVar[bool] = True
    before: ClassVar[bool] = True

    block_size: int | None = None
    packing: str = "auto"
    max_new_tokens: int = 64
    num_beams: int = 1

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "CausalLM":
        """The task with the settings of the run. Raises UsageError for blocks longer than --max-length."""
        task = cls(**settings_of(cls, run))
        language.require_block(task.block_size, run)
        return task

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """One column of raw text."""
        return language.raw_text(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """How much text there is."""
        return language.looked_over(data)

    def require_model(self, config: Any, model: str) -> None:
        """Raise UsageError for a model that is no decoder."""
        require_decoder(config, model, self.name)

    def suit(self, model: Any, max_length: int) -> "CausalLM":
        """With the way in which this model keeps packed texts apart."""
        if self.packing != "auto":
            return self
        return replace(self, packing=packing.settled(model, self._size(max_length), causal=True)[0])

    @property
    def note(self) -> str:
        """How texts share blocks."""
        return packing.NOTES.get(self.packing, "")

    def _size(self, max_length: int) -> int:
        return min(self.block_size or max_length, max_length)

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from `text` to pieces: `input_ids`, `labels`, `length`, `bytes`, `first`.

        A piece begins with the last token of the one before, as context only: each token is predicted once, from what
        its piece holds. `bytes` is the size of the text predicted, `first` is 1 where a document begins.
        """
        size, end = self._size(max_length), tokenizer.eos_token_id

        def rows(batch: dict[str, list]) -> dict[str, list]:
            found = tokenizer(batch["text"], return_attention_mask=False, verbose=False,
                              return_offsets_mapping=tokenizer.is_fast)  # fmt: skip
            made: dict[str, list] = {name: [] for name in ("input_ids", "labels", "length", "bytes", "first")}
            spans = found.get("offset_mapping") or [None] * len(batch["text"])
            for text, ids, span in zip(batch["text"], found["input_ids"], spans, strict=True):
                whole = ids if end is None or (ids and ids[-1] == end) else [*ids, end]
                for start in range(0, max(1, len(whole) - 1), size - 1):
                    piece = whole[start : start + size]
                    if len(piece) > 1:
                        made["input_ids"].append(piece)
                        made["labels"].append([-100, *piece[1:]])
                        made["length"].append(len(piece))
                        made["bytes"].append(_bytes(text, span, start, start + size))
                        made["first"].append(int(start == 0))
            return made

        return rows

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Training pieces in blocks; what is measured stays one piece a row."""
        if split != "train" or self.packing in ("auto", packing.OFF):
            return ready
        return packing.filled(ready, self._size(max_length))

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """See `_packing.collated`."""
        return packing.collated(tokenizer.pad_token_id, self.packing)

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Every token but the first of each text is learnt."""
        rows = ready.select(range(min(len(ready), language.LOOKED_AT))).with_format(None)
        tokens = sum(rows["length"][:])
        learnt = sum(label != -100 for labels in rows["labels"] for label in labels)
        return [("loss on tokens that follow others", 0 < learnt < tokens,
                 f"{learnt / max(1, tokens):.1%} of {count(tokens)} tokens looked at")]  # fmt: skip

    def example(self, processor: Any, ready: Any) -> str:
        """The beginning of the first training row; what the loss covers is marked."""
        row = ready.with_format(None)[0]
        return language.marked(processor, row["input_ids"], [label != -100 for label in row["labels"]])

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Negative log-likelihood summed over the tokens that have a label."""
        return self._losses(model, batch)[0].sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """[sum of the losses, number of tokens] of each piece."""
        kept: list[np.ndarray] = []
        for part in language.few_rows(model, batch):
            losses, labels = self._losses(model, part)
            kept += language.sums(losses, labels.ne(-100))
        return kept

    def _losses(self, model: Any, batch: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
        labels = batch.pop("labels")[:, 1:]
        return language.token_losses(packing.logits_of(model, batch, causal=True)[:, :-1], labels), labels

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Perplexity, loss, bits per byte; the bootstrap draws documents."""
        import numpy as np

        plain = ready.with_format(None)
        return language.perplexity(kept, np.asarray(plain["first"]), np.asarray(plain["bytes"]))

    def answering(self, **settings: Any) -> Task:
        """`predict` goes on with each text."""
        return Writing(max_new_tokens=self.max_new_tokens, num_beams=self.num_beams).answering(**settings)

    def samples(self) -> list[dict[str, Any]]:
        """Texts of several kinds."""
        return [{"text": text} for text in language.SAMPLES]

    @property
    def gives(self) -> str:
        """Text that goes on."""
        return "a continuation for a text"

    @property
    def limits(self) -> tuple[str, ...]:
        """What a language model does."""
        return ("It goes on with a text in the manner of the texts it was trained on; nothing it writes is checked.",)

    def usage(self, max_length: int) -> Usage:
        """The text-generation pipeline, greedy."""
        return Usage(
            reads="a column `text`",
            example='["Once upon a time", "The harbour was"]',
            answer="Each answer goes on with its text, with the likeliest token each time.",
            options=(f"max_new_tokens={min(self.max_new_tokens, max_length - 1)}", "do_sample=False"),
            verb="write",
        )


def _bytes(text: str, spans: Sequence[tuple[int, int]] | None, start: int, stop: int) -> int:
    """Bytes of the text that the tokens start+1 to stop stand for: up to where the last ends, from where the first did."""
    if spans is None:
        return len(text.encode()) if start == 0 else 0
    ends = [end for _, end in spans[start:stop]]
    return len(text[ends[0] if ends else 0 : max(ends, default=0)].encode(errors="surrogatepass"))
