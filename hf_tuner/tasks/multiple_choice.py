"""multiple-choice: which of several endings or answers fits a prompt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.console import count
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _choices
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Findings, Layout, Measures, Task, Usage

if TYPE_CHECKING:
    import numpy as np
    import torch

WORST = 20
"""Answers listed on the page."""
KEPT = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """The prompt is read with each choice; the model gives each pair a number, and the largest is chosen."""

    name: ClassVar[str] = "multiple-choice"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("question", "choices"),
        ("question", "choices", "answer"),
        ("question", "options"),
        ("ctx", "endings"),
        ("ending0", "ending1"),
    )
    auto_model: ClassVar[str] = "AutoModelForMultipleChoice"
    pipeline: ClassVar[str] = "multiple-choice"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = _choices.COLUMNS
    texts: ClassVar[tuple[str, ...]] = ("text", "choices")
    measured: ClassVar[tuple[str, ...]] = ("label",)
    pools: ClassVar[bool] = True

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """SWAG (a column for each ending), CommonsenseQA (choices with keys), lists of choices."""
        return _choices.layout_of(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """How many choices there are, where the right one stands, rows without an answer, choices that repeat."""
        found = Findings()
        for split, rows in data.items():
            if "label" not in rows.column_names:
                raise UsageError('no column for "label"; say which: --columns label=COLUMN')
            labels, choices = rows["label"][:], rows["choices"][:]
            found.errors += [(split, row, "it does not say which choice is right")
                             for row, label in enumerate(labels) if label == _choices.ANSWER]  # fmt: skip
            found.errors += [(split, row, "one of its choices is empty")
                             for row, texts in enumerate(choices) if not all(texts)]  # fmt: skip
            twice = sum(len(set(texts)) < len(texts) for texts in choices)
            if twice:
                found.warnings.append(f"{split}: {count(twice)} rows have the same choice twice")
            if split == "train":
                sizes = [len(texts) for texts in choices]
                fewest, most = min(sizes), max(sizes)
                places = [labels.count(place) for place in range(most)]
                each = f"{most}" if fewest == most else f"{fewest} to {most}"
                found.lines["choices"] = f"{each} a row; the right one stands at place " + ", ".join(
                    f"{place} in {count(number)}" for place, number in enumerate(places)
                )
                found.facts |= {"choices": most, "places": places}
        return found

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from `text` and `choices` to ids [choices][tokens], `length` and `labels`."""
        limit = max_length * CHARACTERS_PER_TOKEN

        def rows(batch: dict[str, list]) -> dict[str, list]:
            sizes = [len(choices) for choices in batch["choices"]]
            first = [text[:limit] for text, size in zip(batch["text"], sizes, strict=True) for _ in range(size)]
            second = [choice[:limit] for choices in batch["choices"] for choice in choices]
            flat = tokenizer(first, second, truncation="longest_first", max_length=max_length)
            made: dict[str, list] = {name: _grouped(flat[name], sizes) for name in KEPT if name in flat}
            made["length"] = [max(len(one) for one in ids) for ids in made["input_ids"]]
            if "label" in batch:
                if _choices.ANSWER in batch["label"]:
                    raise UsageError("a row does not say which choice is right; scores need one for every row")
                made["labels"] = list(batch["label"])
            return made

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function to one batch: ids and masks [rows, choices, tokens], `choices` [rows], `labels` [rows].

        Where a row has fewer choices than another its first one stands in; `choices` says how many are its own.
        """
        import torch

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            sizes = [len(row["input_ids"]) for row in rows]
            most = max(sizes)
            flat = [{name: row[name][place if place < size else 0] for name in KEPT if name in row}
                    for row, size in zip(rows, sizes, strict=True) for place in range(most)]  # fmt: skip
            padded = tokenizer.pad(flat, return_tensors="pt")
            made = {name: value.view(len(rows), most, -1) for name, value in padded.items()}
            made["choices"] = torch.tensor(sizes)
            if "labels" in rows[0]:
                made["labels"] = torch.tensor([row["labels"] for row in rows])
            return made

        return batch

    def _logits(self, model: Any, batch: dict[str, Any]) -> "torch.Tensor":
        """Logits [rows, choices] in float32; those of choices that only stand in are the smallest number."""
        import torch

        sizes = batch.pop("choices")
        logits = model(**batch)["logits"].float()
        mine = torch.arange(logits.shape[1], device=logits.device) < sizes[:, None]
        return logits.masked_fill(~mine, torch.finfo(torch.float32).min)

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Cross-entropy over the choices, summed over rows whose label is not masked."""
        import torch

        labels = batch.pop("labels")
        return torch.nn.functional.cross_entropy(self._logits(model, batch), labels, reduction="sum", ignore_index=-100)

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Logits [choices] of each row."""
        batch.pop("labels", None)
        sizes = batch["choices"].tolist()
        logits = self._logits(model, batch).cpu().numpy()
        return [row[:size].copy() for row, size in zip(logits, sizes, strict=True)]

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Accuracy and log loss."""
        import numpy as np

        from hf_tuner.metrics._weighted import mean

        labels = ready.with_format(None)["labels"][:]
        right = np.array([row.argmax() == label for row, label in zip(kept, labels, strict=True)], np.float64)
        losses = np.array([-_log_probabilities(row)[label] for row, label in zip(kept, labels, strict=True)])
        return Measures({"accuracy": mean(right), "log_loss": mean(losses)}, len(labels))

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """Always choosing the place that is right most often in the training rows."""
        import numpy as np

        sizes = [len(ids) for ids in ready.with_format(None)["input_ids"][:]]
        counts = np.bincount(train.with_format(None)["labels"][:], minlength=max(sizes)) + 1.0
        return {"majority": [np.log(counts[:size]) for size in sizes]}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": the choice, "score", "index": its place from 0, "scores": of every choice} for each row."""
        import numpy as np

        made = []
        for logits, choices in zip(kept, rows["choices"][:], strict=True):
            scores = np.exp(_log_probabilities(logits))
            best = int(scores.argmax())
            made.append({"prediction": choices[best], "score": float(scores[best]), "index": best,
                         "scores": [float(score) for score in scores]})  # fmt: skip
        return made

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The wrong choices that the model was surest of."""
        answers, labels = self.answers(kept, ready, rows, processor), rows["label"][:]
        wrong = [
            {"text": text, "expected": choices[label], "predicted": answer["prediction"], "score": answer["score"]}
            for text, choices, label, answer in zip(rows["text"][:], rows["choices"][:], labels, answers, strict=True)
            if answer["index"] != label
        ]
        return sorted(wrong, key=lambda one: -one["score"])[:WORST]

    def samples(self) -> list[dict[str, Any]]:
        """Prompts with two to four choices."""
        return [
            {
                "text": "The woman opened her umbrella because",
                "choices": ["it rained.", "it was Tuesday.", "she sang."],
            },
            {
                "text": "He was hungry. He",
                "choices": ["slept.", "ate a sandwich.", "flew to the moon.", "sold his car."],
            },
            {"text": "A long prompt, to see that what is cut is cut alike. " * 40, "choices": ["Yes.", "No."]},
        ]

    @property
    def gives(self) -> str:
        """The choice that fits best."""
        return "the best of several choices for a prompt"

    @property
    def limits(self) -> tuple[str, ...]:
        """It always chooses."""
        return ("It chooses one of the choices it is given, also when none of them fits.",)

    def usage(self, max_length: int) -> Usage:
        """Plain transformers: there is no pipeline for choices."""
        return Usage(
            reads="a column `text` (or `sent1`, `question` …) and the choices: a list, or columns `ending0`, `ending1` …",
            example='[{"text": "He was hungry. He", "choices": ["slept.", "ate a sandwich."]}]',
            answer="The larger a choice's number, the better it fits; a softmax over them gives probabilities.",
            lines=(
                'text, choices = "He was hungry. He", ["slept.", "ate a sandwich."]',
                f'options = {{"padding": True, "truncation": True, "max_length": {max_length}}}',
                'batch = tokenizer([text] * len(choices), choices, return_tensors="pt", **options)',
                "logits = model.eval()(**{name: values[None] for name, values in batch.items()}).logits[0]",
                "print(choices[int(logits.argmax())], logits.softmax(0).tolist())",
            ),
        )


def _grouped(flat: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    """A flat list cut into pieces of some sizes."""
    made, at = [], 0
    for size in sizes:
        made.append(list(flat[at : at + size]))
        at += size
    return made


def _log_probabilities(logits: "np.ndarray") -> "np.ndarray":
    import numpy as np

    values = np.asarray(logits, np.float64)
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())
