"""text-classification: one label, several labels or a number for a text or a pair of texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.tasks._classifier import Classifier
from hf_tuner.tasks._labels import labels_of
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Usage

SAMPLES = (
    "Yes.",
    "Where is my parcel?",
    "This is the best film I have seen in years, and I do not say that lightly.",
    "The bank charged me twice and nobody answers the phone.",
    "Stocks fell on Tuesday after the central bank raised rates by a quarter of a point.",
    "no idea what this is supposed to do, it broke after two days :(",
    "¿Dónde está la biblioteca? 42 %, 3.14 — ok",
    "A long text, to see that what is cut is cut alike. " * 40,
)
"""Short, long, happy, angry and odd; what they say does not matter."""


@dataclass(frozen=True, kw_only=True)
class TextClassification(Classifier):
    """What a text classifier reads, which head it wears, how rows become tensors and logits become answers."""

    name: ClassVar[str] = "text-classification"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("text", "label"),
        ("text", "labels"),
        ("sentence", "label"),
        ("sentence1", "sentence2", "label"),
        ("premise", "hypothesis", "label"),
    )
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline: ClassVar[str] = "text-classification"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("text", "sentence", "sentence1", "premise", "question", "review", "content", "message", "document",
                 "utterance", "query", "title", "comment", "tweet", "input"),
        "text_pair": ("text_pair", "sentence2", "hypothesis", "answer", "passage", "context", "question2"),
        "label": ("label", "labels", "intent", "category", "class", "target", "sentiment", "stars", "rating", "score",
                  "similarity_score", "topic", "emotion", "coarse_label", "y"),
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("text_pair",)
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    pools: ClassVar[bool] = True

    pair: bool = False

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "TextClassification":
        """Decide what the labels are from the training rows (a note says what was decided and why)."""
        train = data["train"]
        return cls(labels=labels_of(train, run.problem), pair="text_pair" in train.column_names)

    def samples(self) -> list[dict[str, str]]:
        """Rows to compare two models on where the run's own data is not at hand."""
        rows = [{"text": text} for text in SAMPLES]
        pairs = zip(rows, reversed(SAMPLES), strict=True)
        return [{**row, "text_pair": other} for row, other in pairs] if self.pair else rows

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to token ids, `length` and `labels` (when the rows have a label).

        The closure holds plain values only, so that `datasets` can fingerprint it by content.
        """
        limit, labels, pair = max_length * CHARACTERS_PER_TOKEN, self.labels, self.pair

        def rows(batch: dict[str, list]) -> dict[str, list]:
            first = [text[:limit] for text in batch["text"]]
            second = [text[:limit] for text in batch["text_pair"]] if pair else None
            tokens = dict(tokenizer(first, second, truncation=True, max_length=max_length))
            tokens["length"] = [len(ids) for ids in tokens["input_ids"]]
            if "label" in batch:
                tokens["labels"] = [labels.encode(value) for value in batch["label"]]
            return tokens

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from encoded rows to one padded batch: ids and masks [rows, tokens], labels [rows(, classes)]."""
        import torch

        keep = ("input_ids", "attention_mask", "token_type_ids")
        kind = torch.long if self.problem == "single" else torch.float

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            padded = tokenizer.pad([{k: r[k] for k in keep if k in r} for r in rows], return_tensors="pt")
            result = dict(padded)
            if "labels" in rows[0]:
                result["labels"] = torch.tensor([r["labels"] for r in rows], dtype=kind)
            return result

        return batch

    @property
    def gives(self) -> str:
        """One of n classes, any of n labels, or a number."""
        names = f"{len(self.label_names):,}"
        what = {"single": f"one of {names} classes", "multi": f"any of {names} labels", "regression": "a number"}
        return f"{what[self.problem]} for {'a pair of texts' if self.pair else 'a text'}"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it answers where it should not."""
        return ({
            "single": "It answers with one of its classes for every text, also for one that belongs to none of them.",
            "multi": "It knows its own labels only; a text with no label above 0.5 gets none.",
            "regression": "It answers with a number for every text, also where a number makes no sense.",
        }[self.problem],)  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """The transformers pipeline, with what it must be told."""
        answers = {
            "single": "Each answer is the most likely class and its probability; `top_k=None` gives all of them.",
            "multi": "Each answer has every label with its probability; those above 0.5 are what hf-tuner answers with.",
            "regression": "Each answer's `score` is the number.",
        }
        apply = {"multi": ("top_k=None", 'function_to_apply="sigmoid"'), "regression": ('function_to_apply="none"',)}
        return Usage(
            reads="the columns `text` and `text_pair`" if self.pair else "a column `text`",
            example='[{"text": "a text", "text_pair": "its partner"}]' if self.pair else '["a text", "another"]',
            answer=answers[self.problem],
            options=(*apply.get(self.problem, ()), "truncation=True", f"max_length={max_length}"),
        )
