"""reranking: cross-encoders, which read a query and a document together and say how relevant it is."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _rerank_loss as losses
from hf_tuner.tasks import _rerank_rows as rows_of
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._groups import ABSENT, collate_groups, grouped
from hf_tuner.tasks._sentence_files import cross_encoder
from hf_tuner.tasks._similarity_rows import scale_of
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Findings, Layout, Measures, Task, Usage

if TYPE_CHECKING:
    import numpy as np
    import torch

AT_ONCE = 64
"""Pairs that are scored at once when measuring, however many documents a query has."""
QUERY = "How do I return a parcel?"
DOCUMENTS = ("Parcels can be returned within 30 days at any post office.", "Our shops are open from nine to five.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of reranking."""

    rerank_loss: str = option(
        "auto",
        "Loss: pair by pair (bce, the default), or a query's documents against each other (of sentence-transformers).",
        ("auto", *losses.LOSSES),
    )


@dataclass(frozen=True, kw_only=True)
class Reranking(Task):
    """What a reranker reads, its one output, its loss, and how well documents are ordered."""

    name: ClassVar[str] = "reranking"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("query", "positive", "negative"),
        ("query", "documents"),
        ("query", "passages"),
    )
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline: ClassVar[str] = "text-ranking"
    library: ClassVar[str] = "sentence-transformers"
    columns: ClassVar[dict[str, tuple[str, ...]]] = rows_of.COLUMNS
    optional: ClassVar[tuple[str, ...]] = ("text_pair", "documents", "positive", "negative", "label")
    targets: ClassVar[tuple[str, ...]] = ("label",)
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair", "documents")
    measured: ClassVar[tuple[str, ...]] = ("label",)
    pools: ClassVar[bool] = True

    rerank_loss: str = "bce"
    low: float = 0.0
    high: float = 1.0
    """Labels of what is not relevant at all, and of what is most relevant."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "Reranking":
        """Decide the scale of the labels and the loss from the training rows. Raises UsageError for a loss that does not fit."""
        train = data["train"]
        low, high = scale_of([one for labels in rows_of.labels_of(train) for one in labels])
        loss = losses.chosen(settings_of(cls, run)["rerank_loss"], "documents" in train.column_names)
        return cls(rerank_loss=loss, low=low, high=high)

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Pairs, lists, or positives and negatives. Raises UsageError when there is no query or no document."""
        return rows_of.layout(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Rows that do not say what is relevant, and lists of unequal length."""
        return rows_of.audit(data)

    def prepare(self, rows: Any) -> Any:
        """Other rows to measure: they have labels."""
        if "label" not in rows.column_names:
            raise UsageError("the rows do not say which documents are relevant: a column label is needed to measure")
        return rows

    @property
    def note(self) -> str:
        """The loss, and the scale of the labels."""
        scale = (
            f"; labels from {self.low:g} to {self.high:g} are learned as 0 to 1"
            if (self.low, self.high) != (0.0, 1.0)
            else ""
        )
        how = "the documents of a query against each other" if self.listwise else "pair by pair"
        return f"learned with the loss {self.rerank_loss}, {how}{scale}"

    @property
    def listwise(self) -> bool:
        """Whether the loss compares the documents of a query."""
        return self.rerank_loss in losses.LISTWISE

    def config_options(self) -> dict[str, Any]:
        """One output."""
        return {"num_labels": 1}

    def files(self, max_length: int) -> dict[str, str]:
        """What sentence-transformers reads beside the weights."""
        return cross_encoder(max_length)

    def samples(self) -> list[dict[str, str]]:
        """Rows to compare two models on where the run's own data is not at hand."""
        return [{"text": QUERY, "text_pair": text} for text in (*DOCUMENTS, "¿Dónde está? 42 %", "word " * 90, "no")]

    # --- rows to tensors

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to token ids of query and document, one row a pair, or with a listwise loss a query."""
        limit, low, high, listwise = max_length * CHARACTERS_PER_TOKEN, self.low, self.high, self.listwise

        def rows(batch: dict[str, list]) -> dict[str, list]:
            documents = rows_of.documents_of(batch)
            sizes = [len(texts) for texts in documents]
            queries = [text[:limit] for text, size in zip(batch["text"], sizes, strict=True) for _ in range(size)]
            flat = [text[:limit] for texts in documents for text in texts]
            tokens = tokenizer(queries, flat, truncation=True, max_length=max_length)
            result = grouped(tokens, sizes if listwise else [1] * len(flat))
            if "label" in batch:
                given = [label if isinstance(label, list) else [label] for label in batch["label"]]
                scaled = [[min(1.0, max(0.0, (one - low) / (high - low))) for one in labels] for labels in given]
                result["labels"] = scaled if listwise else [one for labels in scaled for one in labels]
            return result

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """See `collate_groups`; labels [pairs] are 0 … 1."""
        return collate_groups(tokenizer)

    def example(self, tokenizer: Any, ready: Any) -> str:
        """The first pair as it is encoded, and its label."""
        row = ready[0]
        labels = row["labels"] if isinstance(row["labels"], list) else [row["labels"]]
        return f"{tokenizer.decode(row['input_ids'][0])} → {labels[0]:.2f}"

    # --- training

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Pairs, or with a listwise loss queries, that are no filler."""
        labels = batch["labels"]
        return (labels[batch["place"][:, 0]] if self.listwise else labels).ne(-100).sum()

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The loss summed over pairs, or over queries."""
        labels, place = batch.pop("labels"), batch.pop("place")
        batch.pop("same")
        logits = model(**batch)["logits"].float().view(-1)
        real = labels.ne(-100)
        if not self.listwise:
            return losses.pairs(logits[real], labels[real])
        lists = [row[row != ABSENT] for row in place]
        each = [losses.one_list(self.rerank_loss, logits[row], labels[row]) for row in lists if real[row[0]]]
        return sum(each, logits.sum() * 0.0)

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Logits [documents] of each encoded row."""
        import torch

        place = batch.pop("place").cpu().numpy()
        for name in ("labels", "same"):
            batch.pop(name, None)
        count = len(batch["input_ids"])
        parts = [
            {name: value[start : start + AT_ONCE] for name, value in batch.items()}
            for start in range(0, count, AT_ONCE)
        ]
        logits = torch.cat([model(**part)["logits"].float().view(-1) for part in parts]).cpu().numpy()
        return [logits[row[row != ABSENT]] for row in place]

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """MAP, MRR@10 and nDCG@10 where queries have several documents, else what single pairs allow."""
        import numpy as np

        from hf_tuner.metrics._reranking import by_pair, by_query

        scores = self._scores(kept)
        relevance = np.concatenate([np.asarray(labels, np.float64) for labels in rows_of.labels_of(rows)])
        relevance = np.maximum(relevance - max(0.0, self.low), 0.0)  # the lowest grade is not relevant at all
        if "documents" in rows.column_names:
            sizes = [len(texts) for texts in rows["documents"][:]]
            return Measures(*by_query(scores, relevance, np.repeat(np.arange(len(rows)), sizes)))
        queries = np.unique(rows["text"][:], return_inverse=True)[1]
        several = len(queries) >= 2 * (queries.max() + 1)
        return Measures(*(by_query(scores, relevance, queries) if several else by_pair(scores, relevance)))

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The score of a pair, 0 to 1; for a list of documents the best one, its score, and all scores in their order."""
        import numpy as np

        scores = self._scores(kept)
        if "documents" not in rows.column_names:
            return [{"prediction": float(score)} for score in scores]
        documents = rows["documents"][:]
        ends = np.cumsum([len(texts) for texts in documents])
        found = []
        for texts, own in zip(documents, np.split(scores, ends[:-1]), strict=True):
            best = int(own.argmax())
            found.append({"prediction": texts[best], "score": float(own[best]), "scores": own.tolist()})
        return found

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """Pairs whose score is furthest from their label."""
        found: list[dict[str, Any]] = []
        scores, start = self._scores(kept), 0
        documents = (
            rows["documents"][:] if "documents" in rows.column_names else [[text] for text in rows["text_pair"][:]]
        )
        for query, texts, labels in zip(rows["text"][:], documents, rows_of.labels_of(rows), strict=True):
            for text, label in zip(texts, labels, strict=True):
                expected, said = (label - self.low) / (self.high - self.low), float(scores[start])
                found.append({"text": f"{query} ‖ {text}", "expected": f"{expected:.2f}", "predicted": f"{said:.2f}",
                              "score": abs(expected - said)})  # fmt: skip
                start += 1
        return sorted(found, key=lambda one: -one["score"])[:20]

    @staticmethod
    def _scores(kept: "list[np.ndarray]") -> "np.ndarray":
        """Scores [pairs] in 0 … 1 of all logits, in the order of the data's documents."""
        import numpy as np

        return 1 / (1 + np.exp(-np.concatenate(kept).astype(np.float64)))

    # --- words for the card

    @property
    def gives(self) -> str:
        """A score."""
        return "how relevant a document is for a query, 0 to 1"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it costs, and what it cannot say."""
        return (
            "It reads every pair anew: let a cheaper search choose some tens of documents, and order those.",
            "Scores order the documents of a query; they are no probabilities, and those of two queries do not compare.",
        )

    def usage(self, max_length: int) -> Usage:
        """Scores of a query's documents, in code without sentence-transformers."""
        texts = ", ".join(json.dumps(text) for text in DOCUMENTS)
        return Usage(
            reads="the columns `text` (the query) and `text_pair`, or `documents` with a list of them",
            example=f'[{{"text": {json.dumps(QUERY)}, "text_pair": {json.dumps(DOCUMENTS[0])}}}]',
            answer="Each document gets a score; the best one stands first. A whole (full or merged) model opens with "
            "`CrossEncoder(folder)` of sentence-transformers too.",
            lines=(
                "import torch",
                "",
                f"query, documents = {json.dumps(QUERY)}, [{texts}]",
                'options = {"padding": True, "truncation": True, "return_tensors": "pt"}',
                f"batch = tokenizer([query] * len(documents), documents, max_length={max_length}, **options)",
                "with torch.inference_mode():",
                "    scores = model(**batch).logits.squeeze(-1).sigmoid().tolist()",
                "for score, document in sorted(zip(scores, documents), reverse=True):",
                '    print(f"{score:.3f} {document}")',
            ),
        )
