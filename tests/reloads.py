"""Saved models reloaded by a fork of a process that knows nothing but its imports, seconds sooner than by a new one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fork_server import ForkServer

from hf_tuner.evaluation import verify

APART = verify.apart
"""What users get: a process that is new altogether."""
READ_ONCE = ("HF_", "TRANSFORMERS_", "PYTHON", "LD_")
"""Variables of the environment that libraries read while they are imported."""


@dataclass
class Reloads:
    """Stands in for `hf_tuner.evaluation.verify.apart`. Close it when done."""

    folder: Path
    started: dict[str, str] = field(default_factory=dict)
    server: ForkServer | None = None

    def apart(self, words: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
        """As `verify.apart`; by that itself where the environment is another than the server's."""
        if self.server is None:
            self.server, self.started = ForkServer(self.folder), _read_once(dict(os.environ))
        if _read_once(environment) != self.started:
            return APART(words, environment)
        paths = [str(Path(word).absolute()) if Path(word).exists() else word for word in words]
        child = self.server.start(paths, entry=verify.__name__, **environment)
        return child.wait(verify.SECONDS), child.err.read_text()

    def close(self) -> None:
        """End the server, if one was needed."""
        if self.server:
            self.server.close()


def _read_once(environment: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(READ_ONCE)}
