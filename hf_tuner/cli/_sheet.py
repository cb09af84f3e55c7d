"""check's page of labelled samples: whether there is one, where it goes, and what is said of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_tuner import catalog
from hf_tuner.cli._words import Words
from hf_tuner.console import count, say
from hf_tuner.errors import UsageError
from hf_tuner.launching import plain_name

MOST = 36
"""Pictures on a page."""
SUFFIXES = (".html", ".htm")
FLAGS = {
    "sheet": "For tasks with pictures: the page of labelled samples (default: check-DATASET.html beside the run's folder).",
    "no-sheet": "Write no page of samples.",
}


def asked(words: Sequence[str]) -> tuple[str | bool | None, list[str]]:
    """What --sheet names, False for --no-sheet, None for neither; and the other words.

    Raises UsageError for a page without a name.
    """
    parser = Words("check", "")
    parser.add_argument("--sheet")
    parser.add_argument("--no-sheet", "--no_sheet", action="store_true")
    seen, rest = parser.parse_known_args(list(words))
    named = "" if seen.sheet is None else f" {seen.sheet}"
    if parser.problems or (named and Path(seen.sheet).suffix.lower() not in SUFFIXES):
        raise UsageError(f"--sheet{named}: expected the name of a page to write, such as samples.html")
    if seen.sheet and seen.no_sheet:
        raise UsageError("--sheet and --no-sheet: a page is written, or none; give one of them")
    return (False if seen.no_sheet else seen.sheet), rest


def page_of(run: Any, given: str | bool | None) -> Path | None:
    """The file of the page; None for none. Raises UsageError when one is named for a task without pictures."""
    if given is False:
        return None
    if not catalog.task_class(run.task).pictures:
        if given:
            raise UsageError(
                f"--sheet {given}: {run.task} reads no pictures; --task says another, such as image-classification"
            )
        return None
    if given:
        return Path(str(given)).expanduser()
    beside: Path = run.folder.parent
    return beside / f"check-{plain_name(run.dataset) or 'data'}.html"


def write(run: Any, task: Any, rows: Any, path: Path) -> None:
    """Draw samples of the rows for training, write them and say where.

    Raises EnvironmentFault when the page cannot be written.
    """
    samples = task.pictured(rows, MOST, run.seed)
    if not samples:
        say(f"{'sheet':<9} none: no training row has a picture")
        return
    from hf_tuner.report.sheet import write_sheet

    write_sheet(path, samples, task=run.task, dataset=run.dataset, rows=len(rows), seed=run.seed)
    say(f"{'sheet':<9} {path}: {count(len(samples))} of {count(len(rows))} training rows with their labels, to look at")
