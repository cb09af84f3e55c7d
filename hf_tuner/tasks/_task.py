"""What every task says of itself, with the answers that suit most: the contract that the verbs rely on.

A task is a frozen value of pure functions. What it reads, which auto class it loads, how rows become tensors, what is
kept of a model's outputs, how that is scored, and what becomes an answer for a user. `predict`, `evaluate`, `merge` and
training use the very same functions.

Words used here: *rows* are the data's, with the task's canonical columns; *ready* is what `encode` (and `pack`) made of
them, which may be more or fewer; *kept* is a list with one small array for each row of *ready*.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.tasks._fields import restored, saved_fields, settings_of
from hf_tuner.tasks._settings import setting

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hf_tuner.tasks._drawn import Drawn
    from hf_tuner.tasks._pictured import Sample

Weighted = Callable[[Any], Any]
"""A score as a function of row weights, [samples, rows] → [samples]: how often each row was drawn."""
CHARACTERS_PER_TOKEN = 20
"""Texts are cut at so many characters per allowed token before tokenising: a 1 MB row must not cost minutes."""


class RowError(ValueError):
    """One row cannot be used; the message says why, and whoever reads the rows adds where it stands."""


class EmptyRow(RowError):
    """One row has nothing in it; --drop-empty leaves such rows out."""


class BlankRow(EmptyRow):
    """A row with nothing in it where that is usual, as between paragraphs of raw text: left out without ado."""


@dataclass(frozen=True)
class Layout:
    """How raw rows become rows with the task's canonical columns."""

    name: str
    """What was recognised, for the screen: "chat messages", "SQuAD"."""
    columns: Mapping[str, str]
    """Canonical name → column of the data."""
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    """A raw row as a canonical one. Raises RowError."""
    expand: Callable[[dict[str, Any]], Iterable[dict[str, Any]]] | None = None
    """The raw rows inside one of the data, where it nests several (the questions of an article); None when it is one."""


@dataclass
class Findings:
    """What a task's audit found in canonical rows."""

    errors: list[tuple[str, int, str]] = field(default_factory=list)
    """(split, row counted from 0, what is wrong)."""
    warnings: list[str] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)
    """Shown on the screen: short name → text."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For the report; never a row's text."""


@dataclass(frozen=True)
class Measures:
    """Scores of one split, headline first, each over `rows` units that the bootstrap draws (rows, documents, blocks)."""

    scores: Mapping[str, Weighted]
    rows: int
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """How a stranger uses a saved model: for the card's code, which a test runs."""

    reads: str
    """Columns of a file given to `hf-tuner predict`: "a column `text`"."""
    example: str
    """An argument of `predict`, as Python source: '["a text", "another"]'."""
    answer: str
    """One sentence on what comes back."""
    options: tuple[str, ...] = ()
    """Further arguments of the transformers pipeline, as source; used when `lines` is empty."""
    verb: str = "classify"
    """What the pipeline is called in the code."""
    imports: tuple[str, ...] = ()
    """Names that `lines` need from transformers, beside the auto class and AutoTokenizer."""
    lines: tuple[str, ...] = ()
    """Code that uses `model` and `tokenizer` and prints answers, for tasks without a pipeline."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The parts that most tasks share. A task's file defines one subclass, and a `Config` when it has settings."""

    name: ClassVar[str]
    auto_model: ClassVar[str]
    pipeline: ClassVar[str]
    """The Hub's name of the task: `pipeline_tag` of the card."""
    columns: ClassVar[Mapping[str, tuple[str, ...]]]
    """Canonical column → names it goes by, in order of preference."""
    signs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Names of columns that together tell rows of this task, to name it where another was asked for."""
    optional: ClassVar[tuple[str, ...]] = ()
    targets: ClassVar[tuple[str, ...]] = ("label",)
    """Canonical columns that hold answers: not needed to predict."""
    texts: ClassVar[tuple[str, ...]] = ("text",)
    """Canonical columns by which two rows are called the same (repeats, and rows of test that stand in train)."""
    measured: ClassVar[tuple[str, ...]] = ()
    """Canonical columns without which nothing can be measured."""
    probes: ClassVar[bool] = False
    """Whether a linear model on one frozen state a row makes sense: the probe, head-only in seconds, LP-FT."""
    pools: ClassVar[bool] = False
    """Whether the head reads one state a row, so that --pooling means something."""
    new_head: ClassVar[bool] = True
    """Whether what lies outside the backbone is the task's own head, trained in full; language models have none."""
    processor: ClassVar[str] = "AutoTokenizer"
    """Auto class of what rows are read with: AutoTokenizer, AutoImageProcessor, or AutoProcessor for both."""
    carried: ClassVar[tuple[str, ...]] = ()
    """Canonical columns that reach `collate` as they are, such as {"bytes", "path"}; `convert` and `encode` see none."""
    pictures: ClassVar[tuple[str, ...]] = ()
    """Those of `carried` that hold pictures: each is decoded once before training to see that it is whole."""
    sees: ClassVar[bool] = False
    """Whether `encode` gets the columns of `carried` too: how many tokens a picture is may depend on its size."""
    batch_norm: ClassVar[str] = "eval"
    """What --batch-norm auto is, see `models.convnets`."""
    splits: ClassVar[bool] = False
    """Whether a row that is too long becomes several encoded ones, instead of being cut."""
    leaves_out: ClassVar[tuple[str, ...]] = ()
    """Modules right below the model that the task never calls (a pooler); they are taken out."""
    library: ClassVar[str] = "transformers"
    """The Hub's name of the library that opens a whole saved model."""
    logged: ClassVar[tuple[str, ...]] = ()
    """Scores of `measure` that are shown while training; all where none is named."""
    pace: ClassVar[tuple[int, int]] = (32, 5)
    """Rows of a batch and most passes over the training rows, where neither is given."""
    at_once: ClassVar[int] = 64
    """Rows of a batch that is measured or answered, where none is given."""
    before: ClassVar[bool] = False
    """Whether the model does the task before it is trained: then that is measured too, as a baseline."""

    # --- from data

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "Task":
        """The task for these rows, with the settings of the run."""
        return cls(**settings_of(cls, run))

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "Task":
        """The task of a saved run, from its manifest."""
        return cls(**restored(cls, saved))

    def manifest(self) -> dict[str, Any]:
        """What `restore` needs, as plain data."""
        return saved_fields(self)

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """How the columns of raw rows become canonical ones, from their features and the first rows.

        `given` is what --columns says. Raises UsageError when none fits. Tasks whose columns only need finding have none.
        """
        raise NotImplementedError

    @classmethod
    def asked(cls, settings: Any) -> Mapping[str, str]:
        """What the settings (a Config, or a saved task) say about the data's columns; `layout` gets it with --columns."""
        return {}

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """What is wrong, odd or worth a line in the canonical rows of all splits."""
        return Findings()

    def for_model(self, run: Run, config: Any, processor: Any, data: Mapping[str, Any]) -> "Task":
        """The task as this model does it, known from its configuration and tokenizer before weights are read.

        Raises UsageError for a model that cannot do the task.
        """
        return self

    def require_model(self, config: Any, model: str) -> None:
        """Raise UsageError when a model, by its configuration, cannot do the task; asked before anything else of it is read.

        `model` is what the user calls it.
        """

    def prepare(self, rows: Any) -> Any:
        """Rows of another data set in the terms of this (saved) task, such as class ids by name."""
        return rows

    @property
    def note(self) -> str:
        """What was decided about the data, in one sentence; "" when there was nothing to decide."""
        return ""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs; empty when there are no classes."""
        return ()

    # --- the model

    def of_model(self, read: Callable[[str], Any]) -> "Task":
        """The task with what the checkpoint's own files decide, such as how a sentence encoder pools.

        `read` gives what a JSON file beside the weights holds, None when there is none. Raises UsageError for a model
        that the task cannot use.
        """
        return self

    def files(self, max_length: int) -> dict[str, str]:
        """Name → text of files that make a saved model open in the task's own library; they are saved with the weights."""
        return {}

    def config_options(self) -> dict[str, Any]:
        """Keyword arguments of the model's configuration."""
        return {}

    def dress(self, processor: Any) -> str:
        """Change the processor (in place) into one that this task reads with, such as by a chat template.

        Called where a processor is loaded, for training and with a saved run, whose processor is saved as it is then.
        Returns what was done, for the screen; "" when nothing was.
        """
        return ""

    def suit(self, model: Any, max_length: int) -> "Task":
        """The task once its model is known, with what can only be found by asking the model; the same by default."""
        return self

    # --- rows to tensors

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to token ids and `length`; a closure over plain values (see design: caches)."""
        raise NotImplementedError

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Encoded rows of one split joined or cut further; as they are by default."""
        return ready

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from encoded rows to one padded batch of tensors.

        Rows for training have their number as "row" (-1: filler, which must count for nothing; see `Rows`) and the
        epoch they are dealt in as "epoch".
        """
        raise NotImplementedError

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Proofs (name, passed, detail) that the loss covers what it should in the encoded training rows."""
        return []

    def example(self, processor: Any, ready: Any) -> str:
        """One encoded training row as a person reads it, what the loss covers between ⟦ and ⟧; "" shows nothing."""
        return ""

    # --- training

    @property
    def refers(self) -> bool:
        """Whether the loss sets the model beside its start.

        Then what `outputs` keeps of the model before its first update is put beside all encoded rows, as a column
        "reference"; a saved adapter is measured beside its base in the same way.
        """
        return False

    def items(self, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Over how many items the batch's loss is a sum: labels that are not masked."""
        return batch["labels"].ne(-100).sum()

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The loss summed over the batch's items; `plug` is (logits [items, classes], labels [items]) → losses [items]."""
        raise NotImplementedError

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """What is kept of a batch, one array for each of its rows: logits, spans, embeddings or generated ids."""
        raise NotImplementedError

    def quick_outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """As `outputs`, for evaluations while training; cheaper where answers are expensive."""
        return self.outputs(model, batch)

    def readable(self, kept: "list[np.ndarray]", processor: Any) -> "list[np.ndarray]":
        """What `outputs` kept in the form that `measure`, `baselines` and `worst` use; texts for generated ids."""
        return kept

    def roughly(self, kept: "list[np.ndarray]") -> "list[np.ndarray]":
        """What `outputs` kept in a form in which a rounding changes little."""
        return kept

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Scores of what was kept (made `readable`) against the rows."""
        raise NotImplementedError

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """A few scores for the log while training, from `quick_outputs`; the report has all, with intervals.

        What is undefined on these rows is left out, unless the model itself gave something that is not finite.
        """
        import numpy as np

        found = at_one(self.measure(kept, ready, rows), self.logged)
        broken = any(not np.isfinite(one).all() for one in kept)
        return found if broken else {name: value for name, value in found.items() if np.isfinite(value)}

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """What costs nothing, in the form of `readable`: name → kept. `train` are encoded training rows."""
        return {}

    def settled(
        self, kept: "Mapping[str, list[np.ndarray]]", ready: Mapping[str, Any], data: Mapping[str, Any]
    ) -> "Task":
        """This task with what can only be decided after training, such as a threshold; `kept` by evaluation split.

        Nothing may be decided on the rows of test.
        """
        return self

    def details(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, Any]:
        """What the report's page shows beside the scores: `per_class` and the like, see `report.classification`."""
        return {}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """What `predict` gives for each of the data's rows: a dictionary of plain values, the answer first."""
        raise NotImplementedError

    def answering(self, **settings: Any) -> "Task":
        """The task as `predict` uses it, with settings that are changed there: this one with other values of its fields.

        A task whose users want something else than what is measured (a language model is measured by how likely texts
        are and used to write them) returns another task: its `encode`, `pack`, `collate`, `outputs` and `answers` serve
        `predict`. Raises UsageError for a setting that it does not have, or a value of another kind.
        """
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: setting(name, value, known) for name, value in settings.items()})

    def drawn(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> "list[Drawn]":
        """Pictures for the report's page: worst answers, boxes, overlays."""
        return []

    def pictured(self, rows: Any, most: int, seed: int) -> "list[Sample]":
        """Some of the training rows with what they are labelled with, at most `most`, for the sheet of `check`."""
        return []

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The worst answers, worst first: {"text", "expected", "predicted", "score"} (score: how sure or how bad)."""
        return []

    def samples(self) -> list[dict[str, Any]]:
        """Rows without answers, to compare two models on where the run's own data is not at hand."""
        raise NotImplementedError

    # --- words for the card

    @property
    def gives(self) -> str:
        """What it gives for what: "one of 3 classes for a text"."""
        raise NotImplementedError

    @property
    def limits(self) -> tuple[str, ...]:
        """Sentences on what it cannot do."""
        return ()

    def usage(self, max_length: int) -> Usage:
        """How a stranger uses the model."""
        raise NotImplementedError


def at_one(measures: Measures, names: Sequence[str] = ()) -> dict[str, float]:
    """The scores themselves, all or some of them: every row drawn once."""
    import numpy as np

    once, wanted = np.ones((1, measures.rows)), names or measures.scores
    return {name: float(score(once)[0]) for name, score in measures.scores.items() if name in wanted}
