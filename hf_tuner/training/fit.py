"""`fit`: encode, prove, train, evaluate, save, prove again. The whole of a run, in the order it happens."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import count, say, say_marked
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.loop import Kept, finite, keep_outputs, keep_told
from hf_tuner.evaluation.predict import encoded
from hf_tuner.evaluation.reference import with_start
from hf_tuner.evaluation.verify import held_rows, same_predictions
from hf_tuner.hub.manifest import FILE
from hf_tuner.models.load import bare_model
from hf_tuner.models.processors import max_length, share_padding
from hf_tuner.models.save import save_model, write_files
from hf_tuner.report.report import Report
from hf_tuner.training.arguments import effective, settle_rate, training_arguments
from hf_tuner.training.callbacks import LogFile, Progress
from hf_tuner.training.checkpoints import Store, barrier
from hf_tuner.training.examine import examine
from hf_tuner.training.proofs import Movement, Proof, before_training, require, saved_bytes, trainable_table
from hf_tuner.training.pushing import Pushing
from hf_tuner.training.results import Measured, write_manifest, write_report
from hf_tuner.training.resume import checkpoint_to_resume, identity
from hf_tuner.training.signals import clean_stop
from hf_tuner.training.streaming import StreamedRows
from hf_tuner.training.trainer import TunerTrainer
from hf_tuner.training.way_in import WayIn, trained_by_probe, way_in


@dataclass
class Clock:
    """Seconds by phase."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.add(phase, time.monotonic() - start)

    def add(self, phase: str, seconds: float) -> None:
        """Count seconds to a phase."""
        self.phases[phase] = round(self.phases.get(phase, 0.0) + seconds, 2)


def fit(run: Run, task: Any, model: Any, processor: Any, data: Any) -> Report:
    """Train `model` on `data["train"]`, measure it on the other splits, save it, and prove what was saved.

    Raises ProofError when something would not train or save, DivergedError at the first number that is not finite,
    UsageError for settings that cannot work together.
    """
    clock, method = Clock(), catalog.load("methods", run.method)
    examine(run, task, processor, data)  # does nothing when the recipe has asked before the weights were read
    share_padding(model, processor)
    longest = max_length(run, processor, bare_model(model).config) - _reserved(run, method)
    task = task.suit(model, longest)
    with clock("encode"):
        rows = _encoded(task, processor, data, longest)
    ready = rows.ready
    masks = require(Proof(*found) for found in task.masks(ready["train"]))
    if shown := task.example(processor, ready["train"]):
        say_marked(f"  example   {shown}")
    arguments = training_arguments(run, model.tuner_notes["parameters"], len(ready["train"]), "validation" in ready)
    pushing = Pushing.of(run, processor, _finish(run, task, model, longest))
    proofs = require([*before_training(model, method.SAVES), *masks])
    _tell_parts(model)
    if not getattr(bare_model(model), "is_quantized", False) and not (arguments.deepspeed or arguments.fsdp):
        model.to(arguments.device)
    with clock("probe"):
        start, free, rows = _untrained(run, task, model, rows, arguments)
    ready = rows.ready
    settle_rate(run, arguments, start.explained)
    _announce(model, arguments, "a stream" if run.streaming else f"{count(len(ready['train']))} rows", method.SAVES)
    with clock("train"):
        if trained_by_probe(method, task):
            trained = _fitted(model, start)
        else:
            this = identity(run, task, model, data["train"], effective(arguments))
            trainer = _trainer(run, task, model, arguments, rows)
            store = Store(run.folder, this, arguments.save_total_limit)
            trained = _train(trainer, store, pushing.callbacks)
    clock.add("train", trained.earlier)
    with clock("evaluate"):
        task, kept = _settled(task, trained.model, rows, arguments)
    proofs = require([*proofs, *trained.proofs, _complete(kept, ready)])
    if arguments.should_save:
        with clock("save"):
            files = save_model(trained.model, processor, run.folder, _finish(run, task, trained.model, longest))
            ran = effective(arguments) | ({"changed": trained.changed} if trained.changed else {})
            results = Measured(task, processor, data, ready, _readable(task, kept, processor), free, start.note,
                               longest, trained.history, files, ran)  # fmt: skip
            write_manifest(run, model, results)
        with clock("verify"):
            proofs += [_verified(run, task, trained.model, processor, data, longest)] if run.verify else []
        if not all(p.passed for p in proofs):
            (run.folder / FILE).unlink()  # without it no verb takes the folder for a finished run
        require(proofs)
        _show(write_report(run, model, results, proofs, clock.phases), run)
    barrier()
    pushing.finish(run.folder)  # nobody waits for an upload
    return Report.read(run.folder)


@dataclass(frozen=True)
class Encoded:
    """The data's rows, the same encoded, how rows are encoded, and how those become batches."""

    data: Any
    ready: dict[str, Any]
    encode: Callable[[Any], Any]
    collate: Callable
    processor: Any


@dataclass(frozen=True)
class Trained:
    """A model after training, what was proved on the way, and the log."""

    model: Any
    proofs: list[Proof]
    history: list[dict[str, Any]]
    earlier: float = 0.0
    """Seconds of training before the run was last interrupted."""
    changed: list[str] = field(default_factory=list)
    """Settings that --allow-changed let in, and after which step."""


def _encoded(task: Any, processor: Any, data: Any, longest: int) -> Encoded:
    def encode(rows: Any, split: str = "train") -> Any:
        return encoded(task, processor, rows, longest, split)

    ready = {split: encode(rows, split) for split, rows in data.items()}
    return Encoded(data, ready, encode, task.collate(processor), processor)


def _untrained(
    run: Run, task: Any, model: Any, rows: Encoded, arguments: Any
) -> tuple[WayIn, dict[str, dict[str, Kept]], Encoded]:
    """What is known before the first update: the way in, what costs nothing to compare with, rows beside their start."""
    if task.refers and getattr(rows.data, "tuner_stream", None):
        raise UsageError(f"--streaming: this setting of {run.task} sets the model beside its start, which is computed for all "
                         "rows before training; leave --streaming out")  # fmt: skip
    with arguments.main_process_first():
        start = way_in(run, task, model, rows.collate, rows.ready, rows.processor)
    before = _keep(task, model, rows.collate, rows.ready, arguments) if task.before else {}
    before = _readable(task, before, rows.processor)
    ready = with_start(task, model, rows.ready, rows.collate, arguments)
    return start, {"before": before, "probe": start.logits}, replace(rows, ready=ready)


def _fitted(model: Any, start: WayIn) -> Trained:
    """A model whose training was the way in: the head that was fitted on frozen features."""
    return Trained(model, require([Proof("the head is fitted on frozen features", start.set_head, start.note)]), [])


def _trainer(run: Run, task: Any, model: Any, arguments: Any, rows: Encoded) -> TunerTrainer:
    """The Trainer, with the loss of the run; the method may still look at its first batches."""
    method = catalog.load("methods", run.method)
    data, ready = rows.data, rows.ready
    score = (lambda kept: task.quick(kept, ready["validation"], data["validation"])) if "validation" in data else None
    trainer = TunerTrainer(run, task, arguments, model, rows.collate, ready, score)
    if stream := getattr(data, "tuner_stream", None):
        update = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        trainer.train_dataset = StreamedRows(stream, data["train"], rows.encode, update, arguments.seed)
    if hasattr(method, "initialise"):
        method.initialise(model, run.method_config, lambda: trainer.get_train_dataloader())
    return trainer


def _train(trainer: TunerTrainer, store: Store, more: list[Any]) -> Trained:
    """Train with the callbacks of the method, ours, and `more`, from where the run stood."""
    run, arguments = trainer.run, trainer.args
    method = catalog.load("methods", run.method)
    moved = Movement(trainer.model)
    per_update = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    # The method's own come first: gradual freezes before `moved` looks at what trains.
    callbacks = method.callbacks(run.method_config) if hasattr(method, "callbacks") else []
    callbacks += [moved, Progress(per_update), LogFile(run.folder / "log.jsonl"), *more]
    _without_default_printing(trainer)
    for callback in callbacks:
        trainer.add_callback(callback)
    with clean_stop() as stop:
        trainer.complete(store, checkpoint_to_resume(run, store.identity), stop)
        stop.check(trainer.newest(), trainer.state.global_step)
    if trainer.average is not None:
        trainer.average.settle(trainer.state.global_step)
    # Without autocast around its forward: whoever loads the saved model computes in the type of its weights.
    trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    # accelerate takes transformers' own wrappers off with its own (SegFormer then has no hidden states): the class's is right.
    trained.__dict__.pop("forward", None)
    proofs = moved.proofs or [Proof(**p) for p in trainer.ledger.proofs]
    changed = store.identity.get("changed", [])
    return Trained(trained, proofs, trainer.state.log_history, trainer.ledger.seconds, changed)


def _keep(task: Any, model: Any, collate: Callable, ready: Mapping[str, Any], arguments: Any) -> dict[str, Kept]:
    """What the task keeps of every evaluation split."""
    batch, measured = arguments.per_device_eval_batch_size, [split for split in ready if split != "train"]
    return {
        split: keep_told(f"measuring {split}", model, ready[split], collate, task.outputs, batch) for split in measured
    }


def _readable(task: Any, kept: Mapping[str, Kept], processor: Any) -> dict[str, Kept]:
    return {split: task.readable(rows, processor) for split, rows in kept.items()}


def _settled(task: Any, model: Any, rows: Encoded, arguments: Any) -> tuple[Any, dict[str, Kept]]:
    """The task with what it decides after training, and what it keeps of every evaluation split."""
    kept = _keep(task, model, rows.collate, rows.ready, arguments)
    return task.settled(kept, rows.ready, rows.data), kept


def _complete(kept: Mapping[str, Kept], ready: Mapping[str, Any]) -> Proof:
    good = {split: int(finite(rows).sum()) for split, rows in kept.items()}
    told = ", ".join(f"{split} {good[split]:,} of {len(ready[split]):,}" for split in kept)
    return Proof("every row was evaluated", all(good[split] == len(ready[split]) for split in kept), told)


def _verified(run: Run, task: Any, model: Any, processor: Any, data: Any, longest: int) -> Proof:
    split = next(s for s in ("test", "validation", "train") if s in data)
    rows = held_rows(data[split], task.targets)
    say(f"  verify    reloading {run.folder} in a fresh process")
    here = encoded(task, processor, rows, longest)
    measured = keep_outputs(model, here, task.collate(processor), task.outputs, task.at_once, alone=True)
    converted = getattr(model, "tuner_start", None) is not None  # saved as an adapter of twice the rank
    exact = bare_model(model).device.type == "cpu" and not converted
    return same_predictions(measured, run.folder, rows, 0.0 if exact else 1e-3, roughly=task.roughly)


def _reserved(run: Run, method: Any) -> int:
    """Positions that the method itself takes: virtual tokens of prompt methods."""
    return method.reserved_tokens(run.method_config) if hasattr(method, "reserved_tokens") else 0


def _finish(run: Run, task: Any, model: Any, longest: int) -> Callable[[Path], None] | None:
    """What completes saved weights in a folder: the method's part, and files for the task's own library; None: nothing."""
    method, files = catalog.load("methods", run.method), task.files(longest)

    def finish(folder: Path) -> None:
        if hasattr(method, "finish"):
            method.finish(model, run.method_config, folder)
        write_files(folder, files)

    return finish if files or hasattr(method, "finish") else None


def _tell_parts(model: Any) -> None:
    notes = model.tuner_notes
    new = ", ".join(notes["new_head"]) or ("none; the checkpoint brings its own" if notes["head"] else "none")
    say(f"  new head  {new}\n\n{trainable_table(model)}\n")


def _announce(model: Any, arguments: Any, rows: str, saves: str) -> None:
    ran = effective(arguments)
    length = f"{arguments.max_steps} updates" if arguments.max_steps > 0 else f"{arguments.num_train_epochs:g} epochs"
    say(
        f"  training  {length} of {rows}, batch "
        f"{arguments.train_batch_size} × {arguments.gradient_accumulation_steps} × {arguments.world_size}, "
        f"learning rate {arguments.learning_rate:g}, {ran['precision']}; will save {saved_bytes(model, saves) / 1e6:.1f} MB"
    )


def _show(report: Report, run: Run) -> None:
    say("\n" + report.table(whole=not sys.stdout.isatty()))  # a file or a pipe has room for whole lines
    say(
        f"\n  saved and verified: {run.folder}"
        if run.verify
        else f"\n  saved, NOT verified (--no-verify): {run.folder}"
    )


def _without_default_printing(trainer: TunerTrainer) -> None:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
