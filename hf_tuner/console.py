"""What the screen shows: plain lines and small aligned tables, from the main process only."""

import os
import re
import sys
import time
from collections.abc import Sequence
from typing import TextIO

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no line on a screen holds; line ends and tabs may stay."""


def is_main() -> bool:
    """True on the process that may print and write (rank 0, or the only one)."""
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str = "") -> None:
    """Print a line on the main process."""
    if is_main():
        show(printable(text), sys.stdout)


def say_marked(text: str) -> None:
    """Print a line in which what stands between ⟦ and ⟧ is green on a terminal and stays in these brackets elsewhere."""
    if is_main():
        plain = printable(text)
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            plain = plain.replace("⟦", "\x1b[32m").replace("⟧", "\x1b[0m")
        show(plain, sys.stdout)


def warn(text: str) -> None:
    """Print a warning on the main process, to standard error."""
    if is_main():
        show(f"warning: {printable(text)}", sys.stderr)


def show(text: str, stream: TextIO) -> None:
    """Print a line. When nobody reads any more (`| head`, a `tee` that ended) the run goes on without a screen."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text: str) -> str:
    """The text as a terminal may have it: control characters, and halves of surrogate pairs, by their codes.

    Texts, labels and names come from files of others; an escape sequence in them must not reach the screen.
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def short(text: str, longest_line: int = 1000, most_lines: int = 40) -> str:
    """The text with the middle of overlong lines, and the rest of overlong lists, left out."""
    lines = [x if len(x) <= longest_line else f"{x[: longest_line - 200]} … {x[-190:]}" for x in text.split("\n")]
    return "\n".join([*lines[:most_lines], "…"] if len(lines) > most_lines else lines)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows under a header. Numbers align right, the rest left."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    numeric = [all(_number(r[i]) for r in cells) and bool(cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, cells)])


def _number(text: str) -> bool:
    return text.strip().lstrip("-+").replace(",", "").replace(".", "").rstrip("%KMGBTs ").isdigit()


class Progress:
    """Says how far a long step is and how long it still takes; silent while the step is short.

    A terminal sees one line that changes, a log a line every `EVERY` seconds.
    """

    AFTER, EVERY = 2.0, 10.0

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, max(1, total)
        self.start = time.monotonic()
        self.said = self.start + self.AFTER - self.EVERY  # the first line comes after AFTER seconds
        self.shown, self.begun = False, 0

    def step(self) -> None:
        """Tell that the next of the total begins."""
        self.at(self.begun)
        self.begun += 1

    def at(self, done: int, detail: str = "") -> None:
        """Tell that `done` of the total is behind us."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if not done or not is_main() or now - self.said < (0.5 if terminal and self.shown else self.EVERY):
            return
        self.said, self.shown = now, True
        share = min(1.0, done / self.total)
        left = (now - self.start) * (1 - share) / max(share, 1e-9)
        line = f"{self.what}: {share:.0%}{f', {detail}' if detail else ''}, about {duration(left)} left"
        print(f"\r{line:<79}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line on a terminal."""
        if self.shown and sys.stderr.isatty():
            print(f"\r{'':<79}\r", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: int) -> str:
    """An integer with thin thousands: 22,713,216."""
    return f"{number:,}"
