"""`hf-tuner`: a method name starts a run, every other verb is a file in this folder. Nothing heavy is imported here."""

import sys
from collections.abc import Sequence

from hf_tuner import __version__, catalog
from hf_tuner.console import say
from hf_tuner.errors import UsageError
from hf_tuner.launching import exit_codes, launch_file, quiet, task_of


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script. Exits with the codes of docs/reference.md."""
    words = list(sys.argv[1:] if argv is None else argv)
    with exit_codes():
        if not words or words[0] in ("-h", "--help", "help"):
            say(overview())
            return
        if words[0] in ("-V", "--version", "version"):
            say(f"hf-tuner {__version__}")
            return
        verb, rest = words[0].replace("_", "-"), words[1:]
        if verb in catalog.names("methods"):
            train(verb, rest)
        elif verb in verbs():
            quiet()
            catalog.load("cli", verb).main(rest)
        else:
            known = [*catalog.names("methods"), *verbs()]
            raise UsageError(catalog.unknown("command", words[0], known))


def train(method: str, words: Sequence[str]) -> None:
    """Start a run with a method: the same run as the task's recipe started as a script."""
    task = task_of(words)
    path = catalog.path("recipes", task)
    launch_file(path, ["--method", method, *words], lambda: catalog.load("recipes", task).recipe)


def verbs() -> list[str]:
    """Everything that is not training."""
    return [name for name in catalog.names("cli") if name != "main"]


def overview() -> str:
    """What `hf-tuner --help` prints."""
    lines = [
        "hf-tuner: fine-tune Hugging Face models; what trains is proved, what is saved is what was measured.",
        "",
        "  hf-tuner METHOD --model ID_OR_FOLDER --dataset ID_OR_FILE [--flag value …]",
        "  hf-tuner lora --model demo --dataset demo            the embedded example, no Hub needed",
        "  hf-tuner METHOD --help                               every setting of a method",
        "",
        "methods:",
        *_listing("methods", catalog.names("methods")),
        "",
        "after, before and around a run:",
        *_listing("cli", verbs()),
        "",
        "tasks: " + ", ".join(catalog.names("recipes")),
    ]
    return "\n".join(lines)


def _listing(kind: str, names: Sequence[str]) -> list[str]:
    width = max(map(len, names), default=0)
    return [f"  {name:<{width}}  {catalog.summary(kind, name).partition(': ')[2]}" for name in names]


if __name__ == "__main__":
    main()
