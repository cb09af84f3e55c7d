"""What tasks share whose model gives logits for classes that have names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from hf_tuner.tasks._fields import restored
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Named(Task):
    """A task with named classes, which stand in the model's configuration and in the manifest."""

    labels: Labels

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> Self:
        """The task of a saved run, from its manifest."""
        return cls(**{**restored(cls, saved), "labels": Labels(**restored(Labels, saved["labels"]))})

    def manifest(self) -> dict[str, Any]:
        """What `restore` needs, as plain data."""
        return super().manifest() | {"labels": {**asdict(self.labels), "names": list(self.labels.names)}}

    @property
    def note(self) -> str:
        """What the classes are, and why."""
        return self.labels.note

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.labels.names

    def config_options(self) -> dict[str, Any]:
        """Keyword arguments of the model's configuration: number and names of the classes."""
        names = dict(enumerate(self.label_names))
        return {"num_labels": len(names), "id2label": names, "label2id": {name: index for index, name in names.items()}}
