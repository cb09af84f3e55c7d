"""`hf-tuner check` inside this process, and a table of what it says to many inputs."""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Said:
    """How one check ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        """All that was printed."""
        return self.out + self.err

    @property
    def lines(self) -> int:
        """Lines the user has to read."""
        return len([line for line in self.text.splitlines() if line.strip()])


def check(*words: object) -> Said:
    """Run `hf-tuner check …`; the words are those of a command line."""
    from hf_tuner.cli.main import main

    out, err, code, start = io.StringIO(), io.StringIO(), 0, time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["check", *map(str, words)])
        except SystemExit as ending:
            code = int(ending.code or 0)
    return Said(code, out.getvalue(), err.getvalue(), time.perf_counter() - start)


def table(cases: Iterable[tuple[str, str, Callable[[Path], Said]]]) -> str:
    """A Markdown table: row of the fault matrix, case, lines printed, exit code, seconds, the line that says it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    lines = [
        "| row | case | lines | exit | seconds | said |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row, what, run in cases:
        with tempfile.TemporaryDirectory() as folder:
            said = run(Path(folder))
            shown = next((s for s in said.err.splitlines() if s.startswith(("error", "warning"))), "")
            shown = shown or next((s for s in said.out.splitlines() if s.startswith("note")), said.out.splitlines()[-1])
            shown = " ".join(shown.replace(f"{folder}/", "").split()).replace("|", "\\|").replace("\x00", "\\0")[:160]
            lines.append(f"| {row} | {what} | {said.lines} | {said.code} | {said.seconds:.2f} | {shown} |")
    return "\n".join(lines)
