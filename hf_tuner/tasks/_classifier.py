"""What tasks share that give one class, several classes or a number for each row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.tasks._labels import by_name, majority_logits
from hf_tuner.tasks._named import Named
from hf_tuner.tasks._task import Measures

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, kw_only=True)
class Classifier(Named):
    """A task whose rows have a column `label`, and whose model gives logits [rows, classes] for them."""

    probes: ClassVar[bool] = True

    def prepare(self, rows: Any) -> Any:
        """Class labels by name: another data set may number the same names in another order."""
        return by_name(rows) if "label" in rows.column_names else rows

    @property
    def problem(self) -> str:
        """single, multi or regression."""
        return self.labels.problem

    def config_options(self) -> dict[str, Any]:
        """As of named classes, with the kind of labels."""
        if self.problem == "regression":
            return {"num_labels": 1, "problem_type": "regression"}
        kind = "multi_label_classification" if self.problem == "multi" else "single_label_classification"
        return {**super().config_options(), "problem_type": kind}

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
