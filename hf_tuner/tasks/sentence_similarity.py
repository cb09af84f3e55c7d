"""sentence-similarity: embedding models, which put texts that mean alike close together."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _sentence_files as sentence_files
from hf_tuner.tasks import _similarity_loss as losses
from hf_tuner.tasks import _similarity_rows as rows_of
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._groups import ABSENT, collate_groups, grouped
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Findings, Layout, Measures, Task, Usage

if TYPE_CHECKING:
    import numpy as np
    import torch

EXAMPLES = ("A man is playing a guitar.", "Somebody makes music.", "The stock market fell on Tuesday.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of sentence-similarity."""

    similarity_loss: str = option(
        "auto",
        "Loss of sentence-transformers (auto: what fits the rows: cosent, contrastive or multiple-negatives).",
        ("auto", *losses.LOSSES),
    )
    matryoshka_dims: str = option(
        "", 'Sizes at which the beginning of an embedding has to do as well, such as "384,128,64" (Matryoshka).'
    )


@dataclass(frozen=True, kw_only=True)
class SentenceSimilarity(Task):
    """What an embedding model reads, how it pools, which loss suits the rows, and how well alike texts are found."""

    name: ClassVar[str] = "sentence-similarity"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("anchor", "positive"),
        ("sentence1", "sentence2", "score"),
        ("sentence1", "sentence2", "similarity_score"),
    )
    auto_model: ClassVar[str] = "AutoModel"
    pipeline: ClassVar[str] = "sentence-similarity"
    library: ClassVar[str] = "sentence-transformers"
    columns: ClassVar[dict[str, tuple[str, ...]]] = rows_of.COLUMNS
    optional: ClassVar[tuple[str, ...]] = ("text_pair", "negative", "label")
    targets: ClassVar[tuple[str, ...]] = ("label", "negative")
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    measured: ClassVar[tuple[str, ...]] = ("text_pair",)
    new_head: ClassVar[bool] = False
    leaves_out: ClassVar[tuple[str, ...]] = ("pooler",)
    before: ClassVar[bool] = True

    kind: str
    """scored, labelled, pairs or triplets."""
    low: float = 0.0
    high: float = 1.0
    """Scores at which texts have nothing and everything in common."""
    similarity_loss: str = "cosent"
    matryoshka_dims: tuple[int, ...] = ()
    pooling: str = "auto"
    """How tokens become one embedding, in the words of sentence-transformers; settled by the checkpoint's files."""
    size: int = 0
    """Numbers of an embedding."""
    normalize: bool = False
    """Whether embeddings are scaled to length 1."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "SentenceSimilarity":
        """Decide from the training rows what they are and which loss suits them. Raises UsageError for one that does not."""
        kind, low, high = rows_of.kind_of(data["train"])
        settings = settings_of(cls, run)
        loss = losses.chosen(settings["similarity_loss"], kind)
        dims = losses.dimensions(settings["matryoshka_dims"])
        return cls(kind=kind, low=low, high=high, pooling=run.pooling, similarity_loss=loss, matryoshka_dims=dims)

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Scored pairs, pairs, triplets or single texts. Raises UsageError when no column holds texts."""
        return rows_of.layout(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Single texts, and negatives that are none."""
        return rows_of.audit(data)

    def of_model(self, read: Callable[[str], Any]) -> "SentenceSimilarity":
        """Pooling and scaling as the checkpoint's own files say; the mean where they say nothing."""
        whole = sentence_files.require_usable(read)
        beyond = [size for size in self.matryoshka_dims if size > whole]
        if beyond:
            raise UsageError(f"--matryoshka-dims {beyond[0]}: this model's embeddings have {whole} numbers")
        asked = {"first": "cls", "mean": "mean"}.get(self.pooling)
        pooling = asked or (sentence_files.pooling_of(read) if self.pooling == "auto" else self.pooling)
        # The whole embedding has to do as well as its beginnings.
        dims = tuple(dict.fromkeys((whole, *self.matryoshka_dims))) if self.matryoshka_dims else ()
        normalize = sentence_files.normalizes(read)
        return replace(self, pooling=pooling, size=whole, normalize=normalize, matryoshka_dims=dims)

    def files(self, max_length: int) -> dict[str, str]:
        """What sentence-transformers reads beside the weights."""
        return sentence_files.bi_encoder(self.pooling, self.size, self.normalize, max_length)

    def prepare(self, rows: Any) -> Any:
        """Other rows to measure: pairs at least."""
        if "text_pair" not in rows.column_names:
            raise UsageError(
                "the rows have one text each; to measure, a second column says what they are like (text_pair)"
            )
        return rows

    @property
    def note(self) -> str:
        """What the rows are, on which scale, and which loss learns from them."""
        scale = (
            f"; scores from {self.low:g} to {self.high:g} are learned as 0 to 1"
            if (self.low, self.high) != (0.0, 1.0)
            else ""
        )
        sizes = f", at {', '.join(map(str, self.matryoshka_dims))} numbers" if self.matryoshka_dims else ""
        return f"{losses.WORDS[self.kind]}, learned with the loss {self.similarity_loss}{sizes}{scale}"

    def samples(self) -> list[dict[str, str]]:
        """Rows to compare two models on where the run's own data is not at hand."""
        return [
            {"text": text, "text_pair": other}
            for text in EXAMPLES
            for other in (*EXAMPLES, "¿Dónde está? 42 %", "word " * 90)
        ]

    # --- rows to tensors

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to token ids of each text, `length` and `labels` (1 where rows have no score)."""
        limit, low, high = max_length * CHARACTERS_PER_TOKEN, self.low, self.high

        def rows(batch: dict[str, list]) -> dict[str, list]:
            one = [[text] for text in batch["text"]]
            two = [[text] for text in batch["text_pair"]] if "text_pair" in batch else [[] for _ in one]
            more = batch.get("negative") or [[] for _ in one]
            texts = [a + b + list(c or ()) for a, b, c in zip(one, two, more, strict=True)]
            flat = [text[:limit] for row in texts for text in row]
            result = grouped(tokenizer(flat, truncation=True, max_length=max_length), [len(row) for row in texts])
            result.pop("token_type_ids", None)  # all of the first kind, which is what models take for granted
            scores = batch.get("label") or [high] * len(texts)
            result["labels"] = [min(1.0, max(0.0, (score - low) / (high - low))) for score in scores]
            return result

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """See `collate_groups`; labels [rows] are 0 … 1."""
        return collate_groups(tokenizer)

    def example(self, tokenizer: Any, ready: Any) -> str:
        """The texts of the first row, as they are encoded, and what is learned of them."""
        row = ready[0]
        texts = " ‖ ".join(tokenizer.decode(ids) for ids in row["input_ids"])
        return texts + (f" → {row['labels']:.2f}" if self.kind in ("scored", "labelled") else "")

    # --- training

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Rows that are no filler; for the triplet loss, their triplets."""
        real = batch["labels"].ne(-100)
        return (
            (batch["place"][:, 2:].ne(ABSENT) & real[:, None]).sum()
            if self.similarity_loss == "triplet"
            else real.sum()
        )

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The run's loss of sentence-transformers over the rows that are no filler, times the number of its items."""
        labels, place, same = (batch.pop(name) for name in ("labels", "place", "same"))
        embeddings = self._embed(model, batch)
        real = labels.ne(-100)
        place, labels = place[real], labels[real]
        if not len(labels):
            return embeddings.sum() * 0.0
        if self.similarity_loss == "triplet":
            return self._triplets(embeddings, place, labels)
        never = never_negative(same, place) if place.shape[1] > 1 else None
        columns = [embeddings[place[:, k].clamp(min=0)] for k in range(place.shape[1])]
        return losses.total(self.similarity_loss, columns, labels, never, self.matryoshka_dims)

    def _triplets(self, embeddings: "torch.Tensor", place: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The triplet loss summed over every negative of every row."""
        import torch

        anchors, negatives = torch.nonzero(place[:, 2:].ne(ABSENT), as_tuple=True)
        if not len(anchors):
            return embeddings.sum() * 0.0
        lines = (place[anchors, 0], place[anchors, 1], place[anchors, 2 + negatives])
        return losses.total("triplet", [embeddings[k] for k in lines], labels[anchors], None, self.matryoshka_dims)

    def _embed(self, model: Any, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Embeddings [texts, size] in float32 of a batch of texts."""
        import torch

        mask = batch["attention_mask"]
        states = model(**batch)["last_hidden_state"].float()
        # Virtual tokens of prompt methods stand before the text and are no part of it.
        pooled = sentence_files.pool(states[:, states.shape[1] - mask.shape[1] :], mask, self.pooling)
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalize else pooled

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Embeddings [texts of the row, size] of each row."""
        place = batch.pop("place").cpu().numpy()
        for name in ("labels", "same"):
            batch.pop(name, None)
        embeddings = self._embed(model, batch).cpu().numpy()
        return [embeddings[row[row != ABSENT]] for row in place]

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Correlations of scored pairs; how pairs of 0 and 1 are told apart; how well what belongs together is found.

        The rows decide: a model trained on pairs can be measured on scores. With Matryoshka, the first score also at
        each smaller size.
        """
        from hf_tuner.metrics import _similarity as similarity

        scores, units, notes = similarity.measures(kept, rows)
        headline = next(iter(scores))
        for size in self.matryoshka_dims:
            if size < kept[0].shape[1]:
                cut, _, _ = similarity.measures([row[:, :size] for row in kept], rows)
                scores[f"{headline}_dim{size}"] = cut[headline]
        return Measures(scores, units, notes)

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The embedding of a single text; how alike two texts are, -1 to 1."""
        from hf_tuner.metrics._similarity import cosine

        if "text_pair" not in rows.column_names:
            return [{"prediction": row[0].tolist()} for row in kept]
        return [{"prediction": float(cosine(row[0], row[1]))} for row in kept]

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """Scored pairs whose similarity is furthest from their score."""
        from hf_tuner.metrics._similarity import cosine

        if "label" not in rows.column_names:
            return []
        found = []
        for pair, row in zip(kept, rows, strict=True):
            expected, said = (row["label"] - self.low) / (self.high - self.low), float(cosine(pair[0], pair[1]))
            found.append({"text": f"{row['text']} ‖ {row['text_pair']}", "expected": f"{expected:.2f}", "predicted": f"{said:.2f}",
                          "score": abs(expected - said)})  # fmt: skip
        return sorted(found, key=lambda one: -float(one["score"]))[:20]

    # --- words for the card

    @property
    def gives(self) -> str:
        """An embedding."""
        return "an embedding for a text, and how alike two texts are"

    @property
    def limits(self) -> tuple[str, ...]:
        """What a similarity does not say."""
        return (
            "Every two texts get a similarity; how much is much depends on the model, so compare similarities with each other.",
        )

    def usage(self, max_length: int) -> Usage:
        """Embeddings and their similarities, in code without sentence-transformers."""
        texts = ", ".join(json.dumps(text) for text in EXAMPLES)
        return Usage(
            reads="a column `text`, and a column `text_pair` where two texts are to be compared",
            example='["a text", "another"]',
            answer="Each text becomes one embedding; the cosine of two says how alike they are. A whole (full or merged) model "
            "opens with `SentenceTransformer(folder)` too.",
            lines=(
                "import torch",
                "",
                f"texts = [{texts}]",
                f'batch = tokenizer(texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt")',
                "with torch.inference_mode():",
                '    states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)',
                "states = states[:, -mask.shape[1] :]",
                *sentence_files.pooling_code(self.pooling),
                "embeddings = torch.nn.functional.normalize(embeddings, dim=1)",
                "print(embeddings @ embeddings.T)",
            ),
        )


def never_negative(same: "torch.Tensor", place: "torch.Tensor") -> "torch.Tensor":
    """Which texts of a batch are no negative for a row, [rows, rows of all columns but the first, one after the other].

    Those are the texts that the row's anchor or positive is (`same` [texts] numbers equal ones alike), the positives of
    rows with the same anchor, and what is not there (`place` [rows, columns], see `collate_groups`).
    """
    import torch

    rows = len(place)
    number = torch.where(place == ABSENT, -1, same[place.clamp(min=0)])
    anchors, positives = number[:, 0], number[:, 1]
    others = number[:, 1:].T.reshape(-1)
    never = (others == positives[:, None]) | (others == anchors[:, None]) | (others == -1)
    never[:, :rows] |= anchors[:, None] == anchors
    never[torch.arange(rows), torch.arange(rows)] = False
    return never
