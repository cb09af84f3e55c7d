"""What safety costs: seconds of each checkpoint and each start beside the plain Trainer, as a share of a ten-minute run.

    python benchmarks/safety.py
    python benchmarks/safety.py --data FOLDER_WITH_train.csv --saves 10

Trains MiniLM for a few updates, with LoRA and in full, and saves in turns as transformers does and as hf-tuner does
(written aside, every file hashed and flushed, renamed). A start is what hf-tuner looks at before training: the audit of
the data, the fingerprints, and on resume every byte of the newest checkpoint.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from transformers import Trainer

from hf_tuner import flags
from hf_tuner.console import table
from hf_tuner.data.load import load_data
from hf_tuner.evaluation.predict import encoded
from hf_tuner.launching import quiet
from hf_tuner.models.load import load_model
from hf_tuner.models.processors import load_processor
from hf_tuner.tasks.text_classification import TextClassification
from hf_tuner.training.arguments import effective, training_arguments
from hf_tuner.training.checkpoints import Store
from hf_tuner.training.resume import checkpoint_to_resume, identity
from hf_tuner.training.signals import CleanStop
from hf_tuner.training.trainer import TunerTrainer

RUN = 600.0
"""Seconds of the run that the share is taken of."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo", help="what to train on")
    parser.add_argument("--saves", type=int, default=6, help="checkpoints of each kind; the fastest counts")
    asked = parser.parse_args()
    quiet()
    rows = []
    for method in ("lora", "full"):
        with tempfile.TemporaryDirectory() as place, redirect_stdout(StringIO()):
            seconds = measure(method, asked.data, asked.saves, Path(place))
        more = seconds["ours"] - seconds["plain"]
        share = (5 * more + seconds["audit"] + seconds["verify"]) / RUN
        rows.append((method, *(f"{seconds[k]:.2f} s" for k in ("plain", "ours", "audit", "verify")), f"{share:.1%}"))
    head = ("method", "save: Trainer", "save: hf-tuner", "start: audit", "resume: verify", "of 10 min, 5 saves")
    print(table(head, rows))


def measure(method: str, data: str, saves: int, folder: Path) -> dict[str, float]:
    """Seconds of a save of both kinds, of the audit, and of verifying a checkpoint."""
    run = flags.parse(["--task", "text-classification", "--method", method, "--model", "demo", "--dataset", data,
                       "--output-dir", str(folder), "--max-steps", "2", "--save-strategy", "no"], {})  # fmt: skip
    audit, rows = timed(lambda: load_data(run, TextClassification))
    task = TextClassification.from_data(rows, run)
    processor = load_processor(run)
    model = load_model(run, task)
    ready = {split: encoded(task, processor, part, 128) for split, part in rows.items()}
    arguments = training_arguments(run, model.tuner_notes["parameters"], len(ready["train"]), False)
    trainer = TunerTrainer(run, task, arguments, model, task.collate(processor), ready)
    store = Store(folder, identity(run, task, model, rows["train"], effective(arguments)), 2)
    trainer.complete(store, None, CleanStop())
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for number in range(saves):
        trainer.state.global_step = 100 + number
        trainer.args.save_total_limit = 2
        times["plain"].append(timed(lambda: Trainer._save_checkpoint(trainer, model, None))[0])
        trainer.args.save_total_limit = None
        for left in folder.glob("checkpoint-*"):
            left.rename(folder / f"plain-{left.name}")
        trainer.state.global_step = 500 + number
        times["ours"].append(timed(lambda: trainer._save_checkpoint(model, None))[0])
    verify, _ = timed(lambda: checkpoint_to_resume(run, store.identity))
    return {"plain": min(times["plain"]), "ours": min(times["ours"]), "audit": audit, "verify": verify}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    start = time.monotonic()
    result = work()
    return time.monotonic() - start, result


if __name__ == "__main__":
    main()
