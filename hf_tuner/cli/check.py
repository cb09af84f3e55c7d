"""check: the audit alone, of the data and, with --model, of how model, disk and folders suit it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hf_tuner import catalog, flags
from hf_tuner.cli._words import Words
from hf_tuner.console import duration, say
from hf_tuner.launching import default_folder

NO_MODEL = "none"


def main(words: Sequence[str]) -> None:
    """hf-tuner check DATASET [--model ID_OR_FOLDER] [--method lora] [any flag of a run]"""
    parser = Words("check", str(main.__doc__))
    parser.add_argument("dataset", help="file, folder or Hub id")
    if not words or words[0].startswith("-"):
        seen = parser.read(words)
    else:
        seen, _ = parser.parse_known_args(list(words[:1]))
    rest = list(words[1:])
    run = flags.parse(["--dataset", seen.dataset, "--model", NO_MODEL, *rest], {})
    run = replace(run, output_dir=run.output_dir or default_folder(run))
    start = time.monotonic()
    _examine(run)
    say(f"nothing stands in the way of training {run.task} ({duration(time.monotonic() - start)})")


def _examine(run: Any) -> None:
    from hf_tuner.data.load import load_data
    from hf_tuner.data.places import require_cache, require_output

    kind = catalog.task_class(run.task)
    data = load_data(run, kind)
    task = kind.from_data(data, run)
    if run.model == NO_MODEL:
        require_output(run.folder)
        require_cache()
        return
    from hf_tuner.models.load import load_processor
    from hf_tuner.training.examine import examine

    examine(run, task, load_processor(run), data)
