"""Text of unknown origin inside Markdown: names, labels and notes that can neither break a card nor bring markup in."""

import re
from collections.abc import Sequence
from typing import Any

from hf_tuner.report.wording import shorten

MARKUP = re.compile(r"[&<>\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|(?<=\w)@(?=\w)")
"""What CommonMark or GitHub's tables, links and formulas could take for markup inside a line."""
PATH = re.compile(r"(?<![\w.:/>])~?/(?:[^/\s'\"`,;:()\[\]{}|<>]+/)+([^/\s'\"`,;:()\[\]{}|<>]+)/?")
"""A path from the root or home with at least one folder in it; its last part is what may be said."""
JOINERS = "\u200c\u200d"
"""Not printable by themselves, but part of words (Persian, Hindi) and of emoji."""


def line(value: Any, length: int = 80) -> str:
    """One line of at most `length` printable characters, cut with an ellipsis; "(empty)" when nothing is left."""
    start = str(value)[: 20 * length]
    return shorten("".join(c if c.isprintable() or c in JOINERS else " " for c in start), length) or "(empty)"


def code(value: Any, length: int = 80) -> str:
    """A code span, in which nothing is markup; its fence is longer than any run of backticks in it.

    Not for the cells of a table: a pipe ends them even there.
    """
    inside = line(value, length)
    fence = "`" * (max(map(len, re.findall("`+", inside)), default=0) + 1)
    space = " " if inside.startswith("`") or inside.endswith("`") else ""
    return f"{fence}{space}{inside}{space}{fence}"


def text(value: Any, length: int = 300) -> str:
    """Plain text inside a line, with characters that could be markup as entities and local paths by their last part."""
    shown = line(PATH.sub(r"\1", str(value)[: 20 * length]), length)
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", shown)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of GitHub's Markdown. Cells are trusted: make them with `text`."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


def fenced(language: str, lines: list[str]) -> str:
    """A block of code. No line of it may begin with a fence: names stand in it as literals."""
    return "\n".join([f"```{language}", *lines, "```"])
