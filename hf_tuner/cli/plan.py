"""plan: what a run would do, before any weights are downloaded: what trains, memory, time."""

from collections.abc import Sequence
from pathlib import Path

from hf_tuner import catalog, flags
from hf_tuner.console import say
from hf_tuner.errors import UsageError
from hf_tuner.launching import read_recipe, task_of


def main(words: Sequence[str]) -> None:
    """hf-tuner plan METHOD [any flag of a run]"""
    words = list(words)
    if not words or words[0] in ("-h", "--help"):
        say("hf-tuner plan METHOD --model ID_OR_FOLDER --dataset ID_OR_FILE [any flag of a run]\n\n" + str(__doc__))
        return
    method = words.pop(0) if not words[0].startswith("-") else "lora"
    if method not in catalog.names("methods"):
        raise UsageError(catalog.unknown("method", method, catalog.names("methods")))
    _, defaults = read_recipe(catalog.path("recipes", task_of(words)))
    run = flags.parse(["--method", method, "--output-dir", str(Path("runs") / "plan"), *words], defaults)
    from hf_tuner.training.plan import plan

    say(plan(run))
