"""Rows and tokens per second of any task, beside the plain Trainer on the same rows, in one go.

    python benchmarks/tasks.py lora --task token-classification --model demo --dataset FOLDER --rows 1024 --rounds 2

    python benchmarks/tasks.py lora --task causal-lm --model FOLDER --dataset lm_text:wikitext2 --train-split validation

Any flag of a run may follow. All sides train the same model with the same method, loss, rows and batch size for one pass:
  max-length   the plain Trainer, every row padded to the length it is cut at, as the example scripts of question
               answering and language models do by default; float32, the Trainer's default
  dynamic      the plain Trainer with random batches padded to their longest row; float32
  dynamic bf16 the same in the precision that hf-tuner chose, where that is bf16
  hf-tuner     what `hf-tuner` runs, with short texts side by side where it packs them
The sides take turns for `--rounds` rounds; the fastest time of each counts. Ratios are what is reported.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from hf_tuner import catalog, flags
from hf_tuner.config import Run
from hf_tuner.console import table
from hf_tuner.data.load import load_data
from hf_tuner.evaluation.predict import encoded
from hf_tuner.evaluation.reference import with_start
from hf_tuner.launching import quiet, read_recipe
from hf_tuner.models.load import bare_model, load_model
from hf_tuner.models.processors import load_processor, load_task, max_length, share_padding
from hf_tuner.training.arguments import bf16_is_native, effective, training_arguments
from hf_tuner.training.batching import Rows
from hf_tuner.training.checkpoints import Store
from hf_tuner.training.objective import objective
from hf_tuner.training.resume import identity
from hf_tuner.training.signals import CleanStop
from hf_tuner.training.trainer import TunerTrainer


@dataclass(frozen=True)
class Made:
    """What both kinds of sides train on: the same rows, which hf-tuner may lay side by side."""

    task: Any
    processor: Any
    ready: Any
    """Encoded training rows, one text each."""
    width: int
    """The length that rows are cut at."""
    suited: Any
    """The task as it is once it has looked at the model."""
    packed: Any
    """Encoded training rows of `suited`."""


class Plain(transformers.Trainer):
    """The Trainer as it is, with the task's loss and its own batches."""

    def __init__(self, loss: Callable, **options: Any) -> None:
        super().__init__(**options)
        self.loss = loss

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Mean over the micro-batch's items."""
        inputs.pop("row", None)
        return self.loss(model, inputs)


def main() -> None:
    """Run every side and print seconds, rows and tokens per second, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--task", required=True)
    seen, words = parser.parse_known_args()
    quiet()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    _, defaults = read_recipe(catalog.path("recipes", seen.task))
    run = flags.parse(
        ["--task", seen.task, "--method", seen.method, "--output-dir", tempfile.mkdtemp(), *words], defaults
    )
    made = prepared(run, seen.rows)
    rows, lengths = len(made.ready), made.ready.with_format("numpy")["length"][:]
    print(
        f"\n{seen.task}, {seen.method}: {rows} encoded rows, {int(lengths.sum()):,} tokens, {torch.get_num_threads()} threads"
    )
    best: dict[str, float] = {}
    for _ in range(seen.rounds):
        for name, side in sides().items():
            seconds = side(run, made)
            best[name] = min(best.get(name, seconds), seconds)
            print(f"  {name:<12} {seconds:6.1f} s", flush=True)
    ours = best["hf-tuner"]
    lines = [(n, f"{s:.1f}", f"{rows / s:.0f}", f"{lengths.sum() / s:.0f}", f"{s / ours:.2f}") for n, s in best.items()]
    print(table(("side", "seconds", "rows/s", "tokens/s", "hf-tuner is … times as fast"), lines))


def sides() -> dict[str, Callable[[Run, Made], float]]:
    """The sides by name; bf16 only where hf-tuner would use it."""
    half = {"dynamic bf16": lambda run, made: plain(run, made, 0, True)} if bf16_is_native() else {}
    return {
        "max-length": lambda run, made: plain(run, made, made.width, False),
        "dynamic": lambda run, made: plain(run, made, 0, False),
        **half,
        "hf-tuner": ours,
    }


def prepared(run: Run, rows: int) -> Made:
    """The task as the run's model does it, and its encoded rows, set beside the model's start where the loss wants that."""
    kind = catalog.task_class(run.task)
    data = load_data(run, kind)
    data["train"] = data["train"].select(range(min(rows, len(data["train"]))))
    processor = load_processor(run, kind.from_data(data, run))
    task = load_task(run, kind, data, processor)
    model = load_model(run, task)
    share_padding(model, processor)
    longest = max_length(run, processor, bare_model(model).config)
    arguments = training_arguments(run, model.tuner_notes["parameters"], rows, False)

    def ready(one: Any) -> Any:
        made = {"train": encoded(one, processor, data["train"], longest, "train")}
        return with_start(one, model, made, one.collate(processor), arguments)["train"]

    suited = task.suit(model, longest)
    alone = ready(task)
    return Made(task, processor, alone, longest, suited, alone if suited == task else ready(suited))


def plain(run: Run, made: Made, width: int, bf16: bool) -> float:
    """Seconds of the Trainer alone; `width` pads every row to that many tokens."""
    task, processor, ready = made.task, made.processor, made.ready
    collate = task.collate(processor)
    given = run.training
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, save_strategy="no", report_to="none", disable_tqdm=True, bf16=bf16,
        per_device_train_batch_size=int(given.get("per_device_train_batch_size") or 32), logging_strategy="no",
        dataloader_pin_memory=False, use_cpu=not torch.accelerator.is_available(), remove_unused_columns=False)  # fmt: skip
    trainer = Plain(objective(run, task, None), model=load_model(run, task), args=arguments, train_dataset=Rows(ready),
                    data_collator=lambda rows: widened(collate(rows), width, processor))  # fmt: skip
    return timed(trainer.train)


def widened(batch: dict[str, Any], width: int, processor: Any) -> dict[str, Any]:
    """A batch whose token dimension is at least `width`, filled as the collator fills."""
    tokens = batch["input_ids"].shape[-1]
    fill = {"input_ids": processor.pad_token_id or 0, "labels": -100, "learnt": -100}
    if width <= tokens:
        return batch
    return {
        name: torch.nn.functional.pad(value, (0, width - tokens), value=fill.get(name, 0))
        if torch.is_tensor(value) and value.ndim > 1 and value.shape[-1] == tokens
        else value
        for name, value in batch.items()
    }


def ours(run: Run, made: Made) -> float:
    """Seconds of hf-tuner's trainer."""
    task, processor, ready = made.suited, made.processor, made.packed
    run = replace(run, training={**run.training, "num_train_epochs": 1, "save_strategy": "no"})
    model = load_model(run, task)
    arguments = training_arguments(run, model.tuner_notes["parameters"], len(ready), False)
    trainer = TunerTrainer(run, task, arguments, model, task.collate(processor), {"train": ready})
    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
    store = Store(run.folder, identity(run, task, model, ready, effective(arguments)), 1)
    return timed(lambda: trainer.complete(store, None, CleanStop()))


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
