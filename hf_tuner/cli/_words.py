"""Parsing for verbs that work on a saved run."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from hf_tuner import catalog
from hf_tuner.errors import UsageError


class Words(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError with the nearest flag instead of printing a usage block."""

    def __init__(self, verb: str, text: str) -> None:
        super().__init__(prog=f"hf-tuner {verb}", description=text, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")

    def read(self, words: Sequence[str]) -> Any:
        """Parse; unknown flags are named together with the nearest ones."""
        seen, rest = self.parse_known_args(list(words))
        if rest:
            flags = [w for a in self._actions for w in a.option_strings]
            told = []
            for word in rest:
                close = catalog.nearest(word, flags)
                told.append(f"{self.prog}: unknown {word}" + (f"; did you mean {close}?" if close else ""))
            raise UsageError("\n".join(told))
        if getattr(seen, "trust_remote_code", False):
            from hf_tuner.models.trust import allow

            allow()
        return seen

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
