"""Tokens per second of instruction tuning, hf-tuner beside trl's SFTTrainer, side by side in one go.

    python benchmarks/sft_speed.py --model FOLDER --data FOLDER_WITH_train.jsonl --rows 256 --rounds 2

Sides, all full fine-tuning in float32 for one pass over the same conversations (`messages`), the same batch size, the
same AdamW and the same loss (on the assistant's turns, by the chat template that hf-tuner gives the tokenizer):
  trl                 SFTTrainer as its command line configures it (padding, gradient checkpointing)
  trl, no checkpoints the same without gradient checkpointing
  trl, packed         the same with packing=True (without flash attention its texts see their neighbours, as it warns)
  hf-tuner, one a row --packing off
  hf-tuner            what `hf-tuner full --task sft` runs
Counted are the conversations' own tokens, padding is not. Preparing data is not timed. The sides take turns for
`--rounds` rounds; the fastest time of each counts.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, load_dataset

from hf_tuner.config import Run
from hf_tuner.console import table
from hf_tuner.data.load import load_data
from hf_tuner.evaluation.predict import encoded
from hf_tuner.launching import quiet
from hf_tuner.methods.full import Config as Full
from hf_tuner.models.load import load_model
from hf_tuner.models.processors import load_processor
from hf_tuner.tasks._templates import training_template
from hf_tuner.tasks.sft import SFT, Config
from hf_tuner.training.arguments import effective, training_arguments
from hf_tuner.training.checkpoints import Store
from hf_tuner.training.resume import identity
from hf_tuner.training.signals import CleanStop
from hf_tuner.training.trainer import TunerTrainer


def main() -> None:
    """Run every side and print seconds, tokens per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="folder with train.jsonl (messages)")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    seen = parser.parse_args()
    quiet()
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    sides: dict[str, Callable[[], tuple[float, int]]] = {
        "trl": partial(theirs, seen, gradient_checkpointing=True),
        "trl, no checkpoints": partial(theirs, seen, gradient_checkpointing=False),
        "trl, packed": partial(theirs, seen, gradient_checkpointing=False, packing=True),
        "hf-tuner, one a row": partial(ours, seen, packing="off"),
        "hf-tuner": partial(ours, seen, packing="auto"),
    }
    best: dict[str, tuple[float, int]] = {}
    for _ in range(seen.rounds):
        for name, side in sides.items():
            seconds, updates = side()
            best[name] = min(best.get(name, (seconds, updates)), (seconds, updates))
            print(f"  {name:<20} {seconds:6.1f} s in {updates} updates", flush=True)
    total = tokens(seen)
    fastest = best["hf-tuner"][0]
    lines = [(n, f"{s:.1f}", u, f"{total / s:,.0f}", f"{s / fastest:.2f}") for n, (s, u) in best.items()]
    print(f"\n{seen.rows} conversations, {total:,} tokens, batch {seen.batch}, {torch.get_num_threads()} threads")
    print(table(("side", "seconds", "updates", "tokens/s", "hf-tuner is … times as fast"), lines))


def prepared(seen: argparse.Namespace, packing: str) -> tuple[Run, Any, Any, Any, Any]:
    """Run, task, tokenizer, model and encoded rows as hf-tuner makes them."""
    config = Config(packing=packing)
    run = Run(task="sft", model=seen.model, dataset=seen.data, method="full", method_config=Full(), task_config=config,
              output_dir=tempfile.mkdtemp(), training={})  # fmt: skip
    rows = load_data(run, SFT)["train"]
    rows = rows.select(range(min(seen.rows, len(rows))))
    task = SFT.from_data({"train": rows}, run)
    tokenizer = load_processor(run, task)
    model = load_model(run, task)
    task = task.suit(model, seen.max_length)
    return run, task, tokenizer, model, encoded(task, tokenizer, rows, seen.max_length, "train")


def ours(seen: argparse.Namespace, packing: str) -> tuple[float, int]:
    """Seconds and updates of a side: hf-tuner's trainer."""
    run, task, tokenizer, model, ready = prepared(seen, packing)
    run = replace(run, training={"num_train_epochs": 1, "save_strategy": "no", "bf16": False,
                                 "per_device_train_batch_size": seen.batch})  # fmt: skip
    arguments = training_arguments(run, model.tuner_notes["parameters"], len(ready), False)
    trainer = TunerTrainer(run, task, arguments, model, task.collate(tokenizer), {"train": ready}, None)
    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
    this = identity(run, task, model, ready, effective(arguments))
    start = time.perf_counter()
    trainer.complete(Store(run.folder, this, 1), None, CleanStop())
    return time.perf_counter() - start, int(trainer.state.global_step)


def theirs(seen: argparse.Namespace, **settings: Any) -> tuple[float, int]:
    """Seconds and updates of a side: trl's trainer with the same tokenizer and template."""
    from trl import SFTConfig, SFTTrainer

    _, _, tokenizer, model, _ = prepared(seen, "off")
    tokenizer.chat_template = training_template(tokenizer.chat_template)
    data = load_dataset("json", data_files=str(Path(seen.data) / "train.jsonl"), split="train").select_columns(
        "messages"
    )
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=seen.batch, num_train_epochs=1, save_strategy="no",
        max_length=seen.max_length, assistant_only_loss=True, report_to="none", disable_tqdm=True, logging_strategy="no",
        bf16=False, use_cpu=not torch.accelerator.is_available(), dataloader_pin_memory=False, **settings)  # fmt: skip
    rows: Dataset = data.select(range(min(seen.rows, len(data))))
    trainer = SFTTrainer(model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(callback)
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start, int(trainer.state.global_step)


def tokens(seen: argparse.Namespace) -> int:
    """Tokens of the conversations."""
    return int(sum(prepared(seen, "off")[-1]["length"][:]))


if __name__ == "__main__":
    main()
