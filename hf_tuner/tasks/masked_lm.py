"""masked-lm: go on pretraining an encoder on raw text, with whole words masked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.console import count
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _language as language
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._filling import MARK, Filling
from hf_tuner.tasks._masking import Masking, words_of
from hf_tuner.tasks._models import require_encoder
from hf_tuner.tasks._task import Findings, Layout, Measures, Task, Usage

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of continued pretraining."""

    block_size: int | None = option(None, "Tokens of a training block (default: --max-length).")
    mask_probability: float = option(0.15, "Share of the tokens that are hidden.")
    whole_words: bool = option(True, "Hide whole words, not single tokens of them.")
    packing: str = option(
        "auto", "Put short texts side by side in a block where the model keeps them apart.", ("auto", "off")
    )
    top_k: int = option(5, "Words that predict gives for each gap.")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        if self.block_size is not None and self.block_size < 8:
            raise ValueError(f"block_size is {self.block_size}; expected at least 8 tokens")
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability is {self.mask_probability}; expected a share such as 0.15")
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class MaskedLM(Task):
    """Documents as pieces of a block's length; hidden words are drawn anew in every epoch, for measuring always the same."""

    name: ClassVar[str] = "masked-lm"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("text",),)
    auto_model: ClassVar[str] = "AutoModelForMaskedLM"
    pipeline: ClassVar[str] = "fill-mask"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = language.COLUMNS
    targets: ClassVar[tuple[str, ...]] = ()
    new_head: ClassVar[bool] = False
    splits: ClassVar[bool] = True
    before: ClassVar[bool] = True

    block_size: int | None = None
    mask_probability: float = 0.15
    whole_words: bool = True
    packing: str = "auto"
    start: int = 0
    """Where positions of packed texts begin."""
    top_k: int = 5
    seed: int = 42

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "MaskedLM":
        """The task with the settings of the run. Raises UsageError for blocks longer than --max-length."""
        task = cls(**settings_of(cls, run), seed=run.seed)
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
        """Raise UsageError for a model that is no encoder."""
        require_encoder(config, model, self.name)

    def suit(self, model: Any, max_length: int) -> "MaskedLM":
        """With the way in which this model keeps packed texts apart."""
        if self.packing != "auto":
            return self
        found, start = packing.settled(model, self._size(max_length), causal=False)
        return replace(self, packing=found, start=start)

    @property
    def note(self) -> str:
        """How texts share blocks, and what is hidden."""
        hidden = f"{self.mask_probability:.0%} of the tokens hidden"
        return "; ".join(filter(None, [hidden, packing.NOTES.get(self.packing)]))

    def _size(self, max_length: int) -> int:
        return min(self.block_size or max_length, max_length)

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from `text` to pieces with special tokens: `input_ids`, `words`, `length`, `first`.

        `words` [tokens] numbers the words of a piece, -1 where nothing can be hidden. Raises UsageError for a tokenizer
        without a mask token, and for a slow one.
        """
        if tokenizer.mask_token_id is None:
            raise UsageError("this tokenizer has no mask token: masked-lm is for encoders such as BERT; for models that "
                             "write, use --task causal-lm")  # fmt: skip
        if not tokenizer.is_fast:
            raise UsageError("this tokenizer cannot say which tokens make a word, nor split long texts (it is a slow one): use a "
                             "model with a tokenizer.json")  # fmt: skip
        size, whole = self._size(max_length), self.whole_words
        special = set(tokenizer.all_special_ids)

        def rows(batch: dict[str, list]) -> dict[str, list]:
            found = tokenizer(batch["text"], truncation=True, max_length=size, return_attention_mask=False,
                              return_overflowing_tokens=True)  # fmt: skip
            from_row = found.get("overflow_to_sample_mapping") or list(range(len(found["input_ids"])))
            made: dict[str, list] = {"input_ids": list(found["input_ids"]), "words": [], "length": [], "first": []}
            for number, ids in enumerate(made["input_ids"]):
                known = found.word_ids(number) if whole else None
                made["words"].append(words_of(ids, known, special))
                made["length"].append(len(ids))
                made["first"].append(int(number == 0 or from_row[number] != from_row[number - 1]))
            return made

        return rows

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Training pieces in blocks; what is measured stays one piece a row."""
        if split != "train" or self.packing in ("auto", packing.OFF):
            return ready
        return packing.filled(ready, self._size(max_length))

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function to one padded batch: `input_ids` with words hidden, `labels` [rows, tokens] and who sees whom.

        What is hidden depends on the seed, the epoch and the row alone; where rows have no number (measuring) on their
        tokens.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        pad, style, start = tokenizer.pad_token_id, self.packing, self.start
        masking = Masking.of(tokenizer, self.mask_probability, self.seed)

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            pairs = [masking(row) for row in rows]
            ids = pad_sequence([torch.from_numpy(p[0]) for p in pairs], batch_first=True, padding_value=pad)
            labels = pad_sequence([torch.from_numpy(p[1]) for p in pairs], batch_first=True, padding_value=-100)
            result = {"input_ids": ids, "labels": labels}
            if "sizes" in rows[0]:
                return {**result, **packing.apart([packing.sizes_of(r) for r in rows], ids.shape[1], style, start)}
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            return {**result, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """About the share of tokens that was asked for can be hidden and is learnt."""
        rows = ready.select(range(min(len(ready), language.LOOKED_AT))).with_format(None)
        tokens = sum(rows["length"][:])
        able = sum(word >= 0 for words in rows["words"] for word in words)
        detail = f"{self.mask_probability:.0%} of {able / max(1, tokens):.1%} of {count(tokens)} tokens looked at"
        return [("loss on hidden words", 0 < able <= tokens, detail)]

    def example(self, processor: Any, ready: Any) -> str:
        """The beginning of the first training row as the model sees it in the first epoch; what it must guess is marked."""
        ids, labels = Masking.of(processor, self.mask_probability, self.seed)({**ready.with_format(None)[0], "row": 0})
        return language.marked(processor, ids.tolist(), (labels != -100).tolist())

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Negative log-likelihood summed over the hidden tokens."""
        labels = batch.pop("labels")
        return language.token_losses(packing.logits_of(model, batch, causal=False), labels).sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """[sum of the losses, hidden tokens, those guessed right] of each piece."""
        kept: list[np.ndarray] = []
        for part in language.few_rows(model, batch):
            labels = part.pop("labels")
            logits = packing.logits_of(model, part, causal=False)
            right = labels.ne(-100) & logits.argmax(dim=-1).eq(labels)
            kept += language.sums(language.token_losses(logits, labels), labels.ne(-100), right)
        return kept

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Perplexity, loss and accuracy on hidden tokens; the bootstrap draws documents."""
        import numpy as np

        return language.perplexity(kept, np.asarray(ready.with_format(None)["first"]))

    def answering(self, **settings: Any) -> Task:
        """`predict` fills the gaps of each text."""
        return Filling(top_k=self.top_k).answering(**settings)

    def samples(self) -> list[dict[str, Any]]:
        """Texts of several kinds."""
        return [{"text": text} for text in language.SAMPLES]

    @property
    def gives(self) -> str:
        """Words for gaps."""
        return "words for the gaps in a text"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it fills with."""
        return ("It fills a gap with tokens of its vocabulary: a word of several tokens needs as many gaps.",)

    def usage(self, max_length: int) -> Usage:
        """The fill-mask pipeline; its text holds the tokenizer's own mask."""
        return Usage(
            reads=f"a column `text`, with {MARK} where a word is wanted",
            example=f'["The harbour was {MARK} in the morning."]',
            answer="Each answer has the likeliest tokens for the gap, with their probabilities.",
            imports=("pipeline",),
            lines=(
                f'fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k={self.top_k})',
                "",
                'print(fill(f"The harbour was {tokenizer.mask_token} in the morning."))',
            ),
        )
