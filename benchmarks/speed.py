"""Rows per second of fine-tuning, side by side in one go.

    python benchmarks/speed.py --data FOLDER_WITH_train.csv --rows 1024 --rounds 2

Sides, all full fine-tuning of MiniLM with the same batch size, the same rows and AdamW:
  max-length   the plain Trainer as the example script run_glue.py configures it: padding to max_length 128
  dynamic      the plain Trainer as the text-classification tutorial configures it: DataCollatorWithPadding
  floor        a bare PyTorch loop over hf-tuner's batches
  hf-tuner     what `hf-tuner full` runs
The sides take turns for `--rounds` rounds; the fastest time of each counts. Ratios are what is reported: seconds
depend on the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import load_dataset

from hf_tuner.config import Run
from hf_tuner.console import table
from hf_tuner.evaluation.predict import encoded
from hf_tuner.launching import quiet
from hf_tuner.methods.full import Config
from hf_tuner.models.load import load_model, resolve_model
from hf_tuner.models.processors import load_processor
from hf_tuner.tasks.text_classification import TextClassification
from hf_tuner.training.arguments import bf16_is_native, training_arguments
from hf_tuner.training.batching import LengthBatches, Rows
from hf_tuner.training.trainer import TunerTrainer

BATCH = 32


def main() -> None:
    """Run every side and print seconds, rows per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.csv (text, label)")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="also with bf16 autocast, even where it is not native")
    seen = parser.parse_args()
    quiet()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    data = load_dataset("csv", data_files=str(Path(seen.data) / "train.csv"), split="train")
    data = data.shuffle(seed=0).select(range(seen.rows))
    for bf16 in [False, True] if seen.bf16 or bf16_is_native() else [False]:
        print(
            f"\n{'bf16 autocast' if bf16 else 'float32'}, {seen.rows} rows, batch {BATCH}, {torch.get_num_threads()} threads"
        )
        show(measure(data, bf16, seen.rounds), seen.rows)


def measure(data: Any, bf16: bool, rounds: int) -> dict[str, float]:
    """Fastest seconds of each side."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, side in SIDES.items():
            seconds = side(data, bf16)
            best[name] = min(best.get(name, seconds), seconds)
            print(f"  {name:<11} {seconds:6.1f} s", flush=True)
    return best


def show(best: dict[str, float], rows: int) -> None:
    """Print the table of ratios."""
    ours = best["hf-tuner"]
    lines = [(n, f"{s:.1f}", f"{rows / s:.0f}", f"{s / ours:.2f}") for n, s in best.items()]
    print(table(("side", "seconds", "rows/s", "hf-tuner is … times as fast"), lines))


def prepared(data: Any) -> tuple[Run, Any, Any, Any, Any]:
    """Run, task, tokenizer, model and encoded rows as hf-tuner makes them."""
    run = Run(model="demo", method="full", method_config=Config(), output_dir=tempfile.mkdtemp(), training={})
    task = TextClassification.from_data({"train": data}, run)
    tokenizer = load_processor(run)
    return run, task, tokenizer, load_model(run, task), encoded(task, tokenizer, data, 128)


def plain_trainer(padding: str) -> Callable[[Any, bool], float]:
    """A side: the Trainer alone, padding to max_length or to the longest row of a batch."""

    def side(data: Any, bf16: bool) -> float:
        run, task, tokenizer, _, _ = prepared(data)
        # As the example loads it: six layers, the first token; hf-tuner's own model has an averaging block more.
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            resolve_model(run.model), **task.config_options())  # fmt: skip
        fill = "max_length" if padding == "max_length" else False
        labelled = data.map(lambda row: {"label": task.labels.encode(row["label"])})
        tokens = labelled.map(
            lambda batch: tokenizer(batch["text"], truncation=True, max_length=128, padding=fill), batched=True
        )
        arguments = transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, num_train_epochs=1, save_strategy="no",
            report_to="none", disable_tqdm=True, logging_strategy="no", bf16=bf16, dataloader_pin_memory=False,
            use_cpu=not torch.accelerator.is_available())  # fmt: skip
        collate = (
            transformers.DataCollatorWithPadding(tokenizer)
            if padding == "dynamic"
            else transformers.default_data_collator
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=tokens, data_collator=collate)
        return timed(trainer.train)

    return side


def floor(data: Any, bf16: bool) -> float:
    """A side: nothing but forward, backward, clip and step over the same batches."""
    run, task, tokenizer, model, ready = prepared(data)
    rows, collate = Rows(ready), task.collate(tokenizer)
    order = list(LengthBatches(ready.with_format("numpy")["length"][:], update=BATCH, seed=run.seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def loop() -> None:
        model.train()
        for start in range(0, len(order), BATCH):
            batch = collate(rows.__getitems__(order[start : start + BATCH]))
            labels = batch.pop("labels")
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = torch.nn.functional.cross_entropy(model(**batch).logits.float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return timed(loop)


def ours(data: Any, bf16: bool) -> float:
    """A side: hf-tuner's trainer."""
    run, task, tokenizer, model, ready = prepared(data)
    given = {"num_train_epochs": 1, "save_strategy": "no", "bf16": bf16, "per_device_train_batch_size": BATCH}
    run = Run(**{**run.__dict__, "training": given})
    arguments = training_arguments(run, model.tuner_notes["parameters"], len(ready), False)
    trainer = TunerTrainer(run, task, arguments, model, task.collate(tokenizer), {"train": ready})
    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
    return timed(trainer.train)


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


SIDES = {
    "max-length": plain_trainer("max_length"),
    "dynamic": plain_trainer("dynamic"),
    "floor": floor,
    "hf-tuner": ours,
}

if __name__ == "__main__":
    main()
