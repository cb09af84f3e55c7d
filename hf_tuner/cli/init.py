"""init: look at a data set and write a commented run.yaml for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_tuner.cli._words import Words
from hf_tuner.console import say
from hf_tuner.errors import UsageError


def main(words: Sequence[str]) -> None:
    """hf-tuner init DATASET [--task …] [--model …] [--method lora] [--output run.yaml]"""
    parser = Words("init", __doc__)
    parser.add_argument("dataset", help="file, folder or Hub id")
    parser.add_argument("--model", default="google-bert/bert-base-uncased")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--task", default="text-classification")
    parser.add_argument("--columns")
    parser.add_argument("--output", default="run.yaml")
    seen = parser.read(words)
    target = Path(seen.output)
    if target.exists():
        raise UsageError(f"--output {target} exists already; choose another name")
    from hf_tuner import catalog, flags
    from hf_tuner.data.load import load_data
    from hf_tuner.models.restore import task_class
    from hf_tuner.models.save import write_text

    catalog.path("methods", seen.method)
    given = [
        "--task",
        seen.task,
        "--dataset",
        seen.dataset,
        "--method",
        seen.method,
        "--model",
        seen.model,
        "--output-dir",
        ".",
    ]
    run = flags.parse([*given, *(["--columns", seen.columns] if seen.columns else [])], {})
    kind = task_class(run.task)
    data = load_data(run, kind)
    write_text(target, commented(run, data, kind.from_data(data, run), _rate(run, kind, data)))
    say(f"wrote {target}\n  run it:  hf-tuner {seen.method} --config {target}")


def _rate(run: Any, kind: Any, data: Any) -> tuple[str, str]:
    """The learning rate and where it comes from, as `plan` tells; a model that is not at hand leaves the number out."""
    from hf_tuner.errors import TunerError
    from hf_tuner.models.processors import load_task
    from hf_tuner.training.plan import learning_rate, on_meta

    try:
        task = load_task(run, kind, data)
        rate, why = learning_rate(run, task, on_meta(run, task))
    except TunerError:
        return "null", "by method and model size, see `hf-tuner plan`"
    return f"{rate:g}", why


def commented(run: Any, data: Any, task: Any, rate: tuple[str, str]) -> str:
    """A run.yaml with what was found in comments, and the settings people change most; `rate` and why it is that."""
    from hf_tuner.flags import own_flags

    rows = ", ".join(f"{split} {len(part):,}" for split, part in data.items())
    lines = [
        f"# {run.task} on {run.dataset}: {rows} rows",
        *([f"# {task.note}"] if task.note else []),
        "",
        f"task: {run.task}",
        f"method: {run.method}",
        f"model: {run.model}            # Hub id or folder",
        f"dataset: {run.dataset}",
        f"columns: {run.columns or 'null'}          # text=…,label=… when the guess above is wrong",
        "seed: 42",
        "",
        "# training (every field of transformers.TrainingArguments works here)",
        f"# num_train_epochs: 3        # default: about 400 updates, 1 to {task.pace[1]} passes",
        f"# per_device_train_batch_size: {task.pace[0]}",
        f"# learning_rate: {rate[0]:<10} # default: {rate[1]}",
        "",
    ]
    chosen = {"task": run.task, "method": run.method, "loss": run.loss, "optimizer": run.optimizer}
    for owner in (run.task, run.method):
        own = [flag for flag in own_flags(chosen) if flag.owner == owner]
        lines += [f"# {owner}:" if own else f"{owner}:" if owner == run.method else ""]
        lines += [f"  # {f.name}: {'null' if f.default is None else f.default}    # {f.help}" for f in own]
        lines += [] if own or owner == run.task else ["  {}"]
    return "\n".join(lines) + "\n"
