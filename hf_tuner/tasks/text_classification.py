"""text-classification: one label, several labels or a number for a text or a pair of texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.tasks._labels import Labels, labels_of

CHARACTERS_PER_TOKEN = 20
"""Texts are cut at this many characters per allowed token before tokenising: a 1 MB row must not cost minutes."""
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
class TextClassification:
    """What a text classifier reads, which head it wears, how rows become tensors and logits become answers."""

    name: ClassVar[str] = "text-classification"
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

    labels: Labels
    pair: bool = False

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "TextClassification":
        """Decide what the labels are from the training rows (a note says what was decided and why)."""
        train = data["train"]
        return cls(labels=labels_of(train, run.problem), pair="text_pair" in train.column_names)

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "TextClassification":
        """The task of a saved run, from its manifest."""
        return cls(labels=Labels(**{**saved["labels"], "names": tuple(saved["labels"]["names"])}), pair=saved["pair"])

    def manifest(self) -> dict[str, Any]:
        """What `restore` needs, as plain data."""
        return {"labels": {**asdict(self.labels), "names": list(self.labels.names)}, "pair": self.pair}

    def samples(self) -> list[dict[str, str]]:
        """Rows to compare two models on where the run's own data is not at hand."""
        rows = [{"text": text} for text in SAMPLES]
        pairs = zip(rows, reversed(SAMPLES), strict=True)
        return [{**row, "text_pair": other} for row, other in pairs] if self.pair else rows

    @property
    def problem(self) -> str:
        """single, multi or regression."""
        return self.labels.problem

    def config_options(self) -> dict[str, Any]:
        """Keyword arguments of the model's configuration: number, names and kind of labels."""
        if self.problem == "regression":
            return {"num_labels": 1, "problem_type": "regression"}
        names = dict(enumerate(self.labels.names))
        kind = "multi_label_classification" if self.problem == "multi" else "single_label_classification"
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: index for index, name in names.items()},
            "problem_type": kind,
        }

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

    def probabilities(self, logits: Any) -> Any:
        """Probabilities [rows, classes] from logits [rows, classes]; for numbers, the numbers themselves."""
        import numpy as np

        values = np.asarray(logits, dtype=np.float64)
        if self.problem == "regression":
            return values
        if self.problem == "multi":
            return 1 / (1 + np.exp(-values))
        shifted = np.exp(values - values.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def decode(self, logits: Any) -> list[tuple[Any, float]]:
        """An answer and its score for each row: the class name, the list of class names, or the number."""
        scores = self.probabilities(logits)
        if self.problem == "regression":
            return [(float(row[0]), float(row[0])) for row in scores]
        if self.problem == "multi":
            names = self.labels.names
            chosen = [[names[i] for i in range(len(names)) if row[i] > 0.5] for row in scores]
            return [(picked, float(row.max())) for picked, row in zip(chosen, scores, strict=True)]
        best = scores.argmax(axis=1)
        return [(self.labels.names[i], float(row[i])) for i, row in zip(best, scores, strict=True)]

    def quick_scores(self, logits: Any, references: Any) -> dict[str, float]:
        """Loss and one headline metric for the log while training; the report has all of them, with intervals."""
        import numpy as np

        scores = self.probabilities(logits)
        if self.problem == "regression":
            error = scores[:, 0] - references.reshape(-1)
            return {"loss": float((error**2).mean()), "mae": float(np.abs(error).mean())}
        if self.problem == "multi":
            clipped = np.clip(scores, 1e-7, 1 - 1e-7)
            loss = -(references * np.log(clipped) + (1 - references) * np.log(1 - clipped)).mean()
            said, right = scores > 0.5, references > 0.5
            return {"loss": float(loss), "micro_f1": float(2 * (said & right).sum() / max(1, said.sum() + right.sum()))}
        rows = np.arange(len(references))
        loss = -np.log(np.maximum(scores[rows, references], 1e-12)).mean()
        return {"loss": float(loss), "accuracy": float((scores.argmax(axis=1) == references).mean())}
