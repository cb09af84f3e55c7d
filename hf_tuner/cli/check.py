"""check: the data audit alone, before any model is touched."""

from collections.abc import Sequence

from hf_tuner import catalog, flags
from hf_tuner.cli._words import Words
from hf_tuner.console import say


def main(words: Sequence[str]) -> None:
    """hf-tuner check DATASET [--task text-classification] [any data flag of a run]"""
    parser = Words("check", __doc__)
    parser.add_argument("dataset", help="file, folder or Hub id")
    parser.add_argument("--task", default="text-classification")
    if not words or words[0].startswith("-"):
        seen = parser.read(words)
    else:
        seen, _ = parser.parse_known_args(list(words))
    rest = list(words[1:])
    run = flags.parse(["--dataset", seen.dataset, "--model", "none", "--output-dir", ".", *rest], {})
    from hf_tuner.data.load import load_data

    task = catalog.task_class(run.task)
    data = load_data(run, task)
    task.from_data(data, run)
    say(f"nothing stands in the way of training {run.task}")
