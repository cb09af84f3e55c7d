"""Parsing for verbs that work on a saved run."""

import argparse
from collections.abc import Sequence
from typing import Any

from hf_tuner import catalog
from hf_tuner.errors import UsageError


class Words(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError with the nearest flag instead of printing a usage block."""

    def __init__(self, verb: str, text: str) -> None:
        super().__init__(prog=f"hf-tuner {verb}", description=text, allow_abbrev=False)
        self.problems: list[str] = []

    def error(self, message: str) -> None:  # type: ignore[override]  # parsing goes on: all that is wrong is told together
        """Note what is wrong, for `read` to raise it with the rest."""
        self.problems.append(message.removeprefix("argument "))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)  # type: ignore[misc]
        except argparse.ArgumentError:
            wanted = "a whole number" if action.type is int else "a number"
            self.problems.append(f"{'/'.join(action.option_strings)} {arg_string!r}: expected {wanted}")
            return None

    def read(self, words: Sequence[str]) -> Any:
        """Parse. Raises one UsageError with everything that is wrong; unknown flags with the nearest ones."""
        self.problems = []
        seen, rest = self.parse_known_args(list(words))
        flags = [w for a in self._actions for w in a.option_strings]
        unread = bool(self.problems) and rest == list(words)  # what stopped the reading left every word over
        for word in (w for w in self._strange(rest, flags) if w.startswith("-") or not unread):
            close = catalog.nearest(word, flags)
            self.problems.append(f"unknown {word}" + (f"; did you mean {close}?" if close else ""))
        if self.problems:
            *first, last = [f"{self.prog}: {problem}" for problem in self.problems]
            raise UsageError("\n".join([*first, f"{last}; see {self.prog} --help"]))
        if getattr(seen, "trust_remote_code", False):
            from hf_tuner.models.trust import allow

            allow()
        return seen

    @staticmethod
    def _strange(rest: Sequence[str], flags: Sequence[str]) -> list[str]:
        """Words that are no flag of the verb; a value after an unknown flag is that flag's."""
        strange: list[str] = []
        for number, word in enumerate(rest):
            name = word.partition("=")[0]
            if word.startswith("-"):
                strange += [name] if name not in flags else []
            elif number == 0 or not rest[number - 1].startswith("-") or "=" in rest[number - 1]:
                strange.append(word)
        return strange

    def code(self) -> "Words":
        """Add the flag without which the code of a run's base is never run, whatever the run says of itself."""
        self.add_argument(
            "--trust-remote-code",
            action="store_true",
            help="run the code that the base brings, at the commit of the run",
        )
        return self

    def run_folder(self) -> "Words":
        """Add the RUN word that most verbs take."""
        self.add_argument(
            "run", metavar="RUN", help="folder of a finished run, or user/name[@revision][/subfolder] on the Hub"
        )
        return self
