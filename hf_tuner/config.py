"""`Run`: everything one run needs. Made once by the parser, changed by nobody."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


def option(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with its help text, and the values it allows when they are few."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Where in a model a method may work. All names are full module names inside the bare model."""

    selected: tuple[str, ...]
    """Modules the method adapts (resolved from `target_modules`)."""
    linears: tuple[str, ...]
    """Every linear layer of the backbone; the head is never among them."""
    feedforward: tuple[str, ...]
    """The linear layers that close a feed-forward block (ia3 scales their inputs)."""
    norms: tuple[str, ...]
    """Normalisation layers of the backbone."""
    layers: tuple[str, ...]
    """Transformer blocks, first to last."""
    head: tuple[str, ...]
    """Modules that are new or belong to the head: trained in full and saved."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its model, its data, its method, its plugs and its plain TrainingArguments fields."""

    task: str = option("text-classification", "What the model learns to do.")
    method: str = option("lora", "Which weights move, and how.")

    model: str = option("", 'Hub id or folder of the pretrained model ("demo": the bundled MiniLM).')
    model_revision: str | None = option(None, "Branch, tag or commit of the model on the Hub.")
    trust_remote_code: bool = option(
        False,
        "Run the code that the model's repository brings; only with the commit you have read as --model-revision.",
    )
    dtype: str = option(
        "float32",
        "Weights are held in this type; computation may still use bf16 autocast.",
        ("float32", "bfloat16", "float16"),
    )

    dataset: str = option(
        "", 'Hub id, file or folder ("name:config", "name#500" for a sample of every split, "name@revision"; "demo").'
    )
    dataset_config: str | None = option(None, "Configuration of a Hub dataset.")
    eval_dataset: str | None = option(None, "A file or id that holds the rows to measure on (the test split).")
    train_split: str | None = option(None, 'Split to train on; slices such as "train[:80%]" work.')
    eval_split: str | None = option(None, 'Validation split, or a share of the training rows to hold out ("10%").')
    test_split: str | None = option(None, "Split to report on.")
    columns: str | None = option(None, 'Which column is what: "text=review,label=stars" (text_pair for a second text).')
    problem: str = option(
        "auto", "What a label is: one class, several classes, or a number.", ("auto", "single", "multi", "regression")
    )
    encoding: str | None = option(None, "Encoding of text files, such as latin-1 (default: utf-8).")
    separator: str | None = option(
        None, "Column separator of CSV files (default: sniffed); file: a .txt file is one document."
    )
    drop_empty: bool = option(False, "Leave out rows whose text or label is empty, instead of refusing them.")
    drop_leaked: bool = option(False, "Leave out training rows whose text stands in an evaluation split too.")
    fail_on_leak: bool = option(False, "Refuse data whose evaluation rows stand in train, instead of warning.")
    streaming: bool = option(
        False, "Read training rows when they are needed, for data larger than the disk (needs --max-steps)."
    )
    skip_bad: bool = option(False, "Leave out images that are damaged or too large, instead of refusing them.")
    follow_symlinks: bool = option(False, "Read images through links that leave their folder.")
    max_length: int | None = option(None, "Longest text in tokens (default: what the model can take, at most 512).")

    loss: str = option("cross-entropy", "Loss of the task (classification only; numbers use the squared error).")
    class_weights: str = option("none", 'Weight of each class in the loss: none, auto, or JSON such as {"spam": 5}.')
    optimizer: str = option("adamw", "How weights move; every --optim of TrainingArguments works with adamw.")
    ema: float | None = option(
        None, "Measure and save the moving average of the weights that keeps this share of itself at an update (0.999)."
    )
    way_in: str = option(
        "auto",
        "How a new head starts: probe (fitted on frozen features before anything else moves), random, or what fits (auto).",
        ("auto", "probe", "random"),
    )
    pooling: str = option(
        "auto",
        "What the head reads: the first token, or the mean (auto: as a sentence encoder's own files say).",
        ("auto", "mean", "first"),
    )
    batch_norm: str = option(
        "auto",
        "Batch norms while training: train (statistics follow the batches), eval (they stay), frozen (weights stay too), or "
        "what the task does best with (auto).",
        ("auto", "train", "eval", "frozen"),
    )
    probe_rows: int = option(10_000, "Training rows the frozen probe sees at most (0: no probe).")

    output_dir: str | None = option(None, "The run's folder (default: runs/MODEL-DATASET-METHOD).")
    overwrite: bool = option(False, "Replace a finished run, or one with other settings, in --output-dir.")
    resume: str = option(
        "auto", "auto: go on from the newest checkpoint of the same run; never; or a checkpoint folder."
    )
    allow_changed: str | None = option(
        None, "Settings that may differ from those an unfinished run was started with (learning_rate,max_steps …)."
    )
    seed: int = option(42, "Seed of head, adapter, data order and dropout.")
    verify: bool = option(True, "Reload what was saved in a fresh process and compare its predictions.")
    num_processes: int | None = option(None, "Processes to train with on this machine.")
    create_pr: bool = option(False, "With --push-to-hub: open a pull request instead of committing.")
    stall_timeout: float = option(600.0, "Seconds without progress after which training ends with a reason (0: never).")
    stop_above: float | None = option(
        None, "Stop with exit code 5 when the training loss, averaged over 5 updates, stays above this for 10."
    )
    accelerate_config: str | None = option(None, "Name of a bundled accelerate configuration, or a YAML file.")

    task_config: Any = field(default=None, metadata={"internal": True})
    method_config: Any = field(default=None, metadata={"internal": True})
    plugs: Mapping[str, Any] = field(default_factory=dict, metadata={"internal": True})
    training: Mapping[str, Any] = field(default_factory=dict, metadata={"internal": True})

    @property
    def folder(self) -> Path:
        """The run's folder."""
        if self.output_dir is None:
            raise ValueError("a Run made by hand needs output_dir")
        return Path(self.output_dir)

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain data: what `run.yaml` holds and `--config` reads back."""
        flat = {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("internal")}
        if self.method_config is not None:
            flat[self.method] = asdict(self.method_config)
        if self.task_config is not None and fields(self.task_config):
            flat[self.task] = asdict(self.task_config)
        flat.update({name: asdict(config) for name, config in self.plugs.items()})
        return {**flat, **self.training}
