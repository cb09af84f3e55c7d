"""token-classification: a tag for each word: names in texts, parts of speech, slots of a request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks._named import Named
from hf_tuner.tasks._tag_audit import require_known, tag_findings
from hf_tuner.tasks._tag_layouts import tag_layout
from hf_tuner.tasks._tags import OUTSIDE, bio, is_marked, marking, ordered, words_of
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Findings, Layout, Measures, Usage
from hf_tuner.tasks._windows import groups, padded, special_ids, windows, word_ids

if TYPE_CHECKING:
    import numpy as np
    import torch

WORST = 20
SAMPLES = (
    "Ann Lee lives in Berlin.",
    "",
    "show me flights from Boston to San Francisco on the 5th of May",
    "On Tuesday Acme Corp. bought Tiny Ltd (London) for $3.5m, said Mr O'Neil.",
    "¿Dónde está la biblioteca? 42 %, 3.14 — ok",
    "A long text, to see that what is read in several windows comes out whole. " * 40,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How texts that are longer than the model reads are cut."""

    stride: int = option(
        64, "Tokens that two windows of a long text share; a word is answered where it has most around it."
    )

    def __post_init__(self) -> None:
        """Raise ValueError for a negative stride."""
        if self.stride < 0:
            raise ValueError(f"stride is {self.stride}; expected 0 or more, such as 64")


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Named):
    """What a tagger reads, how words become tokens and windows, and how tags become spans."""

    name: ClassVar[str] = "token-classification"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("tokens", "tags"),
        ("tokens", "ner_tags"),
        ("tokens", "slot_tags"),
        ("tokens", "pos_tags"),
        ("tokens", "labels"),
        ("words", "tags"),
        ("text", "spans"),
        ("text", "entities"),
    )
    auto_model: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline: ClassVar[str] = "token-classification"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("text", "sentence", "content", "utterance", "document"),
        "tokens": ("tokens", "words", "token", "word_list"),
        "tags": ("tags", "ner_tags", "labels", "ner", "slot_tags", "slots", "bio_tags", "tag", "label", "chunk_tags",
                 "pos_tags", "upos", "pos", "xpos"),
        "spans": ("spans", "entities", "entity_spans", "annotations", "labels", "label"),
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("text", "tokens", "tags", "spans")
    targets: ClassVar[tuple[str, ...]] = ("tags", "spans")
    texts: ClassVar[tuple[str, ...]] = ("text", "tokens")
    measured: ClassVar[tuple[str, ...]] = ("tags",)
    splits: ClassVar[bool] = True

    stride: int = 64

    # --- from data

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "TokenClassification":
        """The tags of the training rows, in BIO where they mark entities."""
        rows = data["train"]["tags"][:]
        seen = {tag for tags in rows for tag in tags}
        marked = is_marked(seen)
        names = ordered({OUTSIDE, *(tag for tags in rows for tag in bio(tags))} if marked else seen, marked)
        note = f"{len(names)} tags, each a class of its own"
        if marked:
            kind, wrong = marking(rows)
            said = "BIO" if kind == "BIO" and not wrong else f"{kind}, read as BIO"
            entities = sorted({name[2:] for name in names} - {""})
            note = f"{said}: {len(entities)} kinds of entities, {len(names)} tags"
        return cls(labels=Labels("single", names, note), stride=getattr(run.task_config, "stride", 64))

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Words and tags, or a text and spans of characters."""
        return tag_layout(features, first, given, cls.columns)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Kinds of entities and how often they come, tags that were repaired, tags that training never sees."""
        return tag_findings(data)

    def prepare(self, rows: Any) -> Any:
        """The same rows; tags that the model does not know are said. Raises UsageError when it knows none of them."""
        if "tags" in rows.column_names:
            require_known(rows["tags"][:], self.label_names, self.marked)
        return rows

    @property
    def marked(self) -> bool:
        """Whether the tags mark entities (B-, I-, O)."""
        return is_marked(self.labels.names)

    def plain(self, tags: Sequence[str]) -> list[str]:
        """The tags of a row in the model's terms."""
        return (bio if self.marked else list)(tags)

    def samples(self) -> list[dict[str, Any]]:
        """Texts to compare two models on where the run's own data is not at hand."""
        return [{"text": text} for text in SAMPLES]

    # --- rows to tensors

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to windows: token ids, `heads` (places of the first tokens of the words that are
        answered here), `window` (its number in the row) and, where there are tags, `labels` (-100 off the heads)."""
        first, last = special_ids(tokenizer)
        words, room = word_ids(tokenizer), max(1, max_length - len(first) - len(last))
        stride, most = min(self.stride, room // 2), room * CHARACTERS_PER_TOKEN
        places, plain = {name: index for index, name in enumerate(self.label_names)}, bio if self.marked else list
        blank = [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id]

        def rows(batch: dict[str, list]) -> dict[str, list]:
            read = [split_words(row) for row in _each(batch)]
            ids = iter(
                words([word[:most] for row, _ in read for word in row], [gap for _, gaps in read for gap in gaps])
            )
            made: dict[str, list] = {"input_ids": [], "length": [], "heads": [], "window": []}
            tags = [plain(row) for row in batch["tags"]] if "tags" in batch else None
            if tags is not None:
                made["labels"] = []
            for number, (row, _) in enumerate(read):
                pieces = [next(ids)[:room] for _ in row]
                for at, window in enumerate(windows(list(map(len, pieces)), room, stride)):
                    inside, starts = list(first), []
                    for index in range(window.begin, window.end):
                        if window.own <= index < window.own_end:
                            starts.append(len(inside))
                        inside += pieces[index]
                    inside = [*inside, *last] or blank
                    made["input_ids"].append(inside)
                    made["length"].append(len(inside))
                    made["heads"].append(starts)
                    made["window"].append(at)
                    if tags is not None:
                        labels = [-100] * len(inside)
                        for place, tag in zip(starts, tags[number][window.own : window.own_end], strict=True):
                            labels[place] = places.get(tag, -100)
                        made["labels"].append(labels)
            return made

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from windows to one batch: ids, masks, labels and heads (0/1), all int64 [windows, tokens]."""
        fill = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "labels": -100, "heads": 0}

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            full = []
            for row in rows:
                heads = [0] * len(row["input_ids"])
                for place in row["heads"]:
                    heads[place] = 1
                full.append({**row, "attention_mask": [1] * len(row["input_ids"]), "heads": heads})
            return padded(full, fill)

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Proof that the loss covers the first token of every word, once, and nothing else."""
        plain = ready.with_format(None)
        covered = total = 0
        right = True
        for heads, labels in zip(plain["heads"][:], plain["labels"][:], strict=True):
            places = [index for index, label in enumerate(labels) if label != -100]
            right &= places == heads
            covered, total = covered + len(places), total + len(labels)
        told = f"{covered:,} words, {covered / max(1, total):.0%} of {total:,} tokens"
        return [("the loss covers the first token of each word", right and 0 < covered < total, told)]

    def example(self, tokenizer: Any, ready: Any) -> str:
        """The shortest of the first rows that has an entity; what the loss covers stands with its tag between ⟦ and ⟧."""
        rows = [row for row in ready.select(range(min(50, len(ready)))) if any(label > 0 for label in row["labels"])]
        row = min(rows, key=lambda one: one["length"]) if rows else ready[0]
        tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
        names = self.label_names
        said = [f"⟦{token} {names[label]}⟧" if label >= 0 else token
                for token, label in zip(tokens, row["labels"], strict=True)]  # fmt: skip
        return " ".join(said)

    # --- training and measuring

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Sum of the plug's loss over the words that are answered in these windows."""
        from torch.nn import functional

        labels, _ = batch.pop("labels"), batch.pop("heads")
        logits = model(**batch)["logits"][:, -labels.shape[1] :].float()  # virtual tokens stand before the text
        covered = labels != -100
        each = plug or (lambda scores, right: functional.cross_entropy(scores, right, reduction="none"))
        return each(logits[covered], labels[covered]).sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Logits [words, tags] of the words that are answered in each window."""
        import numpy as np

        batch.pop("labels", None)
        heads = batch.pop("heads").bool()
        logits = model(**batch)["logits"][:, -heads.shape[1] :].float()
        ends = np.cumsum(heads.sum(dim=1).cpu().numpy())[:-1]
        return np.split(logits[heads].cpu().numpy(), ends)

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """F1, precision and recall over entities; for tags that mark none, the mean F1 over tags; share of right words."""
        from hf_tuner.metrics._entities import scores, tag_scores

        expected, predicted = self._both(kept, ready, rows)
        if not self.marked:
            return Measures(tag_scores(expected, predicted), len(expected))
        none = not any(tag != OUTSIDE for row in expected for tag in row)
        notes = dict.fromkeys(("f1", "precision", "recall"), "there is no entity in these rows") if none else {}
        return Measures(scores(expected, predicted), len(expected), notes)

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """The mean log loss of a word and the scores."""
        import numpy as np

        logits = np.concatenate(kept).astype(np.float64)
        plain = ready.with_format(None)
        right = np.array([labels[place] for heads, labels in zip(plain["heads"][:], plain["labels"][:], strict=True)
                          for place in heads], int)  # fmt: skip
        known = right >= 0
        chosen = np.log(_softmax(logits)[known, right[known]] + 1e-12)
        loss = {"loss": float(-chosen.mean())} if known.any() else {}
        return {**loss, **super().quick(kept, ready, rows)}

    def details(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, Any]:
        """Scores of each kind of entity, or of each tag."""
        from hf_tuner.metrics._entities import per_entity, per_tag

        return {"per_class": (per_entity if self.marked else per_tag)(*self._both(kept, ready, rows))}

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """Always the commonest tag."""
        import numpy as np

        labels = np.concatenate([np.asarray(row, int) for row in train.with_format(None)["labels"][:]])
        shares = np.bincount(labels[labels >= 0], minlength=len(self.label_names)).astype(np.float32)
        return {"majority": [np.tile(shares, (len(heads), 1)) for heads in ready.with_format(None)["heads"][:]]}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": spans} for each row, a span being {"label", "start", "end", "text", "score"}.

        They count characters of a text; of rows of words they count words, and every word's tag comes with them.
        """
        result = []
        for row, logits in zip(_each(rows[:]), self._rows(kept, ready), strict=True):
            tags, sure = self._tags(logits)
            spans = self._spans(row, tags, sure)
            result.append({"prediction": spans} if "text" in row else {"prediction": spans, "tags": tags})
        return result

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """Rows with a wrong tag, by how sure of it the model was."""
        found: list[dict[str, Any]] = []
        for row, logits in zip(_each(rows[:]), self._rows(kept, ready), strict=True):
            tags, sure = self._tags(logits)
            expected = self.plain(row["tags"])
            wrong = [s for s, a, b in zip(sure, expected, tags, strict=True) if a != b]
            if wrong:
                text = row["text"] if "text" in row else " ".join(row["tokens"])
                said = (self._named(row, kind, sure) for kind in (expected, tags))
                found.append(
                    {"text": text, **dict(zip(("expected", "predicted"), said, strict=True)), "score": max(wrong)}
                )
        return sorted(found, key=lambda one: -one["score"])[:WORST]

    # --- words for the card

    @property
    def gives(self) -> str:
        """What it gives for what."""
        if not self.marked:
            return f"one of {len(self.label_names)} tags for each word"
        return f"the places of {len({name[2:] for name in self.label_names} - {''})} kinds of entities in a text"

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return ("It knows its own tags only; entities inside others, or in pieces, cannot be marked.",)

    def usage(self, max_length: int) -> Usage:
        """The transformers pipeline, which joins tokens to words by their first."""
        return Usage(
            reads="a column `text`, or lists of words in `tokens` (JSON Lines)",
            example='["Ann Lee lives in Berlin", "another text"]',
            answer="Each answer is a list of spans with their places. The pipeline cuts texts at what the tokenizer says is the "
            "longest, and splits words by the model's own rules; hf-tuner reads long texts in windows.",
            options=('aggregation_strategy="first"',) if self.marked else (),
            verb="tag",
        )

    # --- helpers

    def _rows(self, kept: "list[np.ndarray]", ready: Any) -> "list[np.ndarray]":
        """Logits [words, tags] of each of the data's rows, from its windows."""
        import numpy as np

        return [np.concatenate([kept[i] for i in places]) for places in groups(ready.with_format(None)["window"][:])]

    def _tags(self, logits: Any) -> tuple[list[str], list[float]]:
        """The most likely tag of each word, in BIO, and its probability."""
        chosen = [self.label_names[i] for i in logits.argmax(axis=1)]
        return self.plain(chosen), _softmax(logits).max(axis=1, initial=0.0).tolist()

    def _both(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> tuple[list[list[str]], list[list[str]]]:
        """Expected and predicted tags of each row."""
        return [self.plain(tags) for tags in rows["tags"][:]], [self._tags(one)[0] for one in self._rows(kept, ready)]

    def _spans(self, row: Mapping[str, Any], tags: Sequence[str], sure: Sequence[float]) -> list[dict[str, Any]]:
        from hf_tuner.metrics._entities import entities

        found = entities(tags) if self.marked else [(tag, at, at + 1) for at, tag in enumerate(tags)]
        places = words_of(row["text"]) if "text" in row else None
        result = []
        for name, first, end in found:
            start, stop = (places[first][0], places[end - 1][1]) if places else (first, end)
            text = row["text"][start:stop] if places else " ".join(row["tokens"][first:end])
            score = sum(sure[first:end]) / (end - first)
            result.append({"label": name, "start": start, "end": stop, "text": text, "score": score})
        return result

    def _named(self, row: Mapping[str, Any], tags: Sequence[str], sure: Sequence[float]) -> str:
        return ", ".join(f"{one['text']} ({one['label']})" for one in self._spans(row, tags, sure)) or "(none)"


def split_words(row: Mapping[str, Any]) -> tuple[list[str], list[bool]]:
    """The words of a row, and whether a space stands before each."""
    if "tokens" in row:
        return list(row["tokens"]), [index > 0 for index in range(len(row["tokens"]))]
    text = row["text"]
    places = words_of(text)
    return [text[a:b] for a, b in places], [a > 0 and text[a - 1].isspace() for a, _ in places]


def _each(batch: Mapping[str, list]) -> list[dict[str, Any]]:
    """The rows of a batch of columns."""
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _softmax(logits: Any) -> Any:
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return shifted / shifted.sum(axis=1, keepdims=True)
