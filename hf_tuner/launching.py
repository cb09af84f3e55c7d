"""The one door: parse, take the run's folder, seed, run the recipe, and turn every ending into an exit code."""

import ast
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_tuner import catalog, flags
from hf_tuner.config import Run
from hf_tuner.console import is_main, say
from hf_tuner.errors import StoppedBySignal, TunerError, UsageError
from hf_tuner.faults import FOLDER, die_with_parent, fault_of, in_plain_words, tell
from hf_tuner.folder import claim, holds_finished, is_finished
from hf_tuner.plain_yaml import read_yaml
from hf_tuner.processes import LAUNCHED, run_processes, wants_processes
from hf_tuner.stopping import listening
from hf_tuner.versions import require_versions

Recipe = Callable[[Run], Any]


def launch(recipe: Recipe, argv: Sequence[str] | None = None) -> Any:
    """Run a recipe from command-line words (default: sys.argv) and exit with the right code on an error.

    This is what the last line of every recipe calls.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return launch_file(Path(str(inspect.getsourcefile(recipe))), words, lambda: recipe)


def launch_file(path: Path, words: Sequence[str], load: Callable[[], Recipe]) -> Any:
    """Run the recipe in a file; it is imported by `load` only when the words are right."""
    with exit_codes():
        text, defaults = read_recipe(path)
        if "--help" in words or "-h" in words:
            say(_help(text, words, defaults))
            return None
        run = flags.parse(words, defaults)
        if run.task != defaults.get("task", run.task):
            raise UsageError(
                f"{path.name} is the recipe of {defaults['task']}; for {run.task}: hf-tuner {run.method} --task {run.task}"
            )
        if wants_processes(run):
            run = _preflight(replace(run, output_dir=run.output_dir or default_folder(run)))
            return run_processes(run, path, words)
        if {LAUNCHED, "TORCHELASTIC_RUN_ID"} & set(os.environ):
            die_with_parent()
        quiet()
        return start(load(), run, _stated(run, words))


def read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """Docstring and defaults of a recipe, read without importing it: its DEFAULTS, and the task it is named after."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = path.stem.replace("_", "-")
    defaults: dict[str, Any] = {"task": name} if name in catalog.names("tasks") else {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "DEFAULTS":
            defaults |= ast.literal_eval(node.value)
    return ast.get_docstring(tree) or "", defaults


def task_of(words: Sequence[str]) -> str:
    """The task that command-line words ask for: --task, else that of the --config file, else text classification."""
    asked = _said(words, "task")
    config = _said(words, "config")
    if asked is None and config is not None and Path(config).is_file():
        asked = read_yaml(Path(config), "--config ", words=True).get("task")
    return str(asked or "text-classification").replace("_", "-")


def _said(words: Sequence[str], name: str) -> str | None:
    """The value of --name VALUE or --name=VALUE."""
    for i, word in enumerate(words):
        if word == f"--{name}" and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def finetune(task: str = "text-classification", **settings: Any) -> Any:
    """Fine-tune from Python with the settings the command line has, and return the `Report`.

    >>> finetune(model="demo", dataset="demo", method="lora", r=8, num_train_epochs=1)     # doctest: +SKIP

    Raises TunerError (UsageError, EnvironmentFault, ArtifactError, ProofError, DivergedError).
    """
    _, defaults = read_recipe(catalog.path("recipes", task))
    words = [word for key, value in settings.items() for word in _word(key, value)]
    run = flags.parse(["--task", task, *words], defaults)
    quiet()
    return start(catalog.load("recipes", task).recipe, run, [])


def start(recipe: Recipe, run: Run, stated: Sequence[str]) -> Any:
    """Say what will happen, claim the folder, seed everything, run."""
    require_versions()
    run = replace(run, output_dir=run.output_dir or default_folder(run))
    say(f"hf-tuner: {run.task} · {run.method} · {run.model} · {run.dataset} → {run.output_dir}")
    for line in stated:
        say(f"  default   {line}")
    with listening():
        run = _preflight(run)
        if is_finished(run):
            return _finished(run)
        with claim(run), in_plain_words():
            return recipe(run)


def _finished(run: Run) -> Any:
    """The report of a run that is finished already; what was to be pushed is pushed, if it is not there yet."""
    from hf_tuner.report.report import Report

    say(f"  finished  {run.folder} holds this run, finished: nothing to do (--overwrite trains it anew)")
    if is_main() and run.training.get("push_to_hub"):
        from hf_tuner.training.pushing import push_finished

        push_finished(run)
    return Report.read(run.folder)


def _preflight(run: Run) -> Run:
    """Before anything else: may code be run, and the Hub when the run is to be pushed (many processes look once)."""
    if run.trust_remote_code:
        from hf_tuner.models.trust import accept

        accept(run)
    asked = run.create_pr or run.training.get("push_to_hub") or any(k.startswith("hub_") for k in run.training)
    if not asked or not is_main():
        return run
    from hf_tuner.hub.preflight import ready_to_push

    return ready_to_push(run)


def default_folder(run: Run) -> str:
    """runs/MODEL-DATASET-METHOD, with a number behind it when that one holds a finished run."""
    parts = (_plain(Path(run.model).name), plain_name(run.dataset), _plain(run.method))
    base = Path("runs") / "-".join(p for p in parts if p)
    folder, number = base, 2
    while holds_finished(folder) and not run.overwrite:
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return str(folder)


def plain_name(dataset: str) -> str:
    """What a data set is called in names of files: without its folder, ending, configuration and commit."""
    return _plain(Path(re.split("[:#@]", dataset)[0]).stem)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


class exit_codes:
    """Ends the process with the code of a TunerError, its message on standard error and no traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(0)
        ours = isinstance(error, TunerError | StoppedBySignal | KeyboardInterrupt)
        # A bug keeps its traceback; with a supervising parent the cause shows it, and the others' noise is left out.
        if error is not None and (ours or (FOLDER in os.environ and isinstance(error, Exception))):
            tell(error)
            sys.exit(fault_of(error).code)


def _help(text: str, words: Sequence[str], defaults: Mapping[str, Any]) -> str:
    chosen = {f.name: f.default for f in flags.run_flags()} | dict(defaults)
    for key in ("method", *flags.PLUG_FIELDS):
        if f"--{key}" in words[:-1]:
            chosen[key] = words[list(words).index(f"--{key}") + 1]
    return flags.help_text(Path(sys.argv[0]).name, text, chosen)


def _stated(run: Run, words: Sequence[str]) -> list[str]:
    """Defaults that decide what happens and that nobody typed."""
    given = {w.partition("=")[0].lstrip("-").replace("-", "_") for w in words}
    if "config" in given:
        return []
    return [f"--{key} {getattr(run, key)}" for key in ("task", "method", "model", "dataset") if key not in given]


def _word(key: str, value: Any) -> list[str]:
    import json

    flag = f"--{key.replace('_', '-')}"
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag, str(value).lower()]
    if isinstance(value, dict):
        return [flag, json.dumps(value)]
    if isinstance(value, list | tuple):
        return (
            [flag, *map(str, value)]
            if key in ("report_to", "include_for_metrics", "debug")
            else [flag, ",".join(map(str, value))]
        )
    return [flag, str(value)]


def quiet() -> None:
    """Before anything heavy is imported: no bars that flash by, no notes about what the proofs check anyway."""
    import logging
    import warnings

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it, and it misses an optional package

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|torch")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
