"""text-classification: one label, several labels or a number for a text or a pair of texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.tasks._labels import Labels, by_name, labels_of, majority_logits
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Measures, Task, Usage

if TYPE_CHECKING:
    import numpy as np
    import torch

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
class TextClassification(Task):
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
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    probes: ClassVar[bool] = True
    pools: ClassVar[bool] = True

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

    def prepare(self, rows: Any) -> Any:
        """Class labels by name: another data set may number the same names in another order."""
        return by_name(rows) if "label" in rows.column_names else rows

    @property
    def note(self) -> str:
        """What the labels are, and why."""
        return self.labels.note

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.labels.names

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

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Rows whose label is not masked."""
        labels = batch["labels"]
        return labels.reshape(len(labels), -1).ne(-100).any(dim=1).sum()

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Sum over rows of the plug's loss, for numbers of the squared error; masked rows count for nothing."""
        import torch

        labels = batch.pop("labels")
        logits = model(**batch)["logits"].float()
        if self.problem == "regression" or plug is None:
            labels = labels.view(-1)
            return torch.where(labels == -100, 0.0, (logits.view(-1) - labels).square()).sum()
        return plug(logits, labels).sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Logits [classes] of each row."""
        batch.pop("labels", None)
        return list(model(**batch)["logits"].float().cpu().numpy())

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Accuracy, F1 …, for numbers correlations and errors."""
        import numpy as np

        from hf_tuner.metrics._weighted import scores

        references = np.asarray(ready.with_format(None)["labels"])
        found, notes = scores(self.problem, np.asarray(kept, np.float64), references)
        return Measures(found, len(references), notes)

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """Loss and one headline metric."""
        import numpy as np

        return self._quick(np.asarray(kept, np.float32), np.asarray(ready.with_format(None)["labels"]))

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """Always saying what the training rows say most."""
        labels = train.with_format(None)["labels"][:]
        return {"majority": list(majority_logits(labels, self.problem, max(1, len(self.label_names)), len(ready)))}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction", "score", "probabilities"} for each row."""
        import numpy as np

        logits, names = np.asarray(kept, np.float32), self.label_names or ("value",)
        return [
            {"prediction": answer, "score": score, "probabilities": dict(zip(names, map(float, values), strict=True))}
            for (answer, score), values in zip(self.decode(logits), self.probabilities(logits), strict=True)
        ]

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

    def _quick(self, logits: Any, references: Any) -> dict[str, float]:
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
