"""check: the audit alone, of the data and, with --model, of how model, disk and folders suit it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_tuner import catalog, flags
from hf_tuner.cli import _sheet
from hf_tuner.cli._words import Words
from hf_tuner.console import duration, say, warn
from hf_tuner.errors import UsageError
from hf_tuner.launching import default_folder

NO_MODEL = "none"
SHOWN = ("model", "method", "output_dir", "columns", "problem", "encoding", "separator", "drop_empty", "drop_leaked",
         "fail_on_leak", "max_length", "eval_dataset", "train_split", "eval_split", "test_split", "skip_bad",
         "follow_symlinks")  # fmt: skip
"""Settings that decide what a check says."""


def main(words: Sequence[str]) -> None:
    """hf-tuner check DATASET [--model ID_OR_FOLDER] [--method lora] [--sheet PAGE.html] [any flag of a run]"""
    if {"-h", "--help"} & set(words):
        say(_help())
        return
    parser = Words("check", str(main.__doc__))
    parser.add_argument("dataset", help="file, folder or Hub id")
    if not words or words[0].startswith("-"):
        seen = parser.read(words)
    else:
        seen, _ = parser.parse_known_args(list(words[:1]))
    given, rest = _sheet.asked(words[1:])
    run = flags.parse(["--dataset", seen.dataset, "--model", NO_MODEL, *rest], {})
    run = replace(run, output_dir=run.output_dir or default_folder(run))
    page, start = _sheet.page_of(run, given), time.monotonic()
    if _is_images(run.dataset) and not catalog.task_class(run.task).pictures:
        _images(run)
        return
    task, rows = _examine(run)
    if page is not None:
        _sheet.write(run, task, rows, page)
    say(f"nothing stands in the way of training {run.task} ({duration(time.monotonic() - start)})")


def _help() -> str:
    known = {flag.name: flag.help for flag in flags.run_flags()}
    lines = [f"  --{name.replace('_', '-'):<16} {known[name]}" for name in SHOWN]
    lines += [f"  --{name:<16} {text}" for name, text in _sheet.FLAGS.items()]
    return "\n".join([str(main.__doc__), "", *lines, "", "and every other flag of a run (hf-tuner lora --help)."])


def _is_images(dataset: str) -> bool:
    from hf_tuner.data.image_folders import is_image_folder

    return is_image_folder(Path(dataset).expanduser())


def _images(run: Any) -> None:
    """The audit of an image folder. Raises UsageError with everything that is wrong with it."""
    from hf_tuner.data.image_folders import audit_images, lines

    folder = Path(run.dataset).expanduser()
    found = audit_images(
        folder, skip_bad=run.skip_bad, follow_symlinks=run.follow_symlinks, fail_on_leak=run.fail_on_leak
    )
    say(f"{'data':<9} {folder}")
    for name, text in lines(found).items():
        say(f"{name:<9} {text}")
    for warning in found.warnings:
        warn(warning)
    if found.errors:
        raise UsageError("\n".join(found.errors))
    say("nothing is wrong with the images; with --task image-classification more is looked at and shown")


def _examine(run: Any) -> tuple[Any, Any]:
    """The task and its rows for training. Raises what stands in the way."""
    from hf_tuner.data.load import load_data
    from hf_tuner.data.places import require_cache, require_output

    kind = catalog.task_class(run.task)
    data = load_data(run, kind)
    if run.model == NO_MODEL:
        task = kind.from_data(data, run)
        require_output(run.folder)
        require_cache()
        return task, data["train"]
    from hf_tuner.models.processors import load_processor, load_task
    from hf_tuner.training.examine import examine

    processor = load_processor(run, kind.from_data(data, run))
    task = load_task(run, kind, data, processor)
    examine(run, task, processor, data)
    return task, data["train"]
