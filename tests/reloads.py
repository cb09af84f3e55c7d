"""Saved models reloaded by a fork of a process that knows nothing but its imports, seconds sooner than by a new one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fork_server import ForkServer

from hf_tuner.evaluation import verify

ANEW = verify.apart
READ_ONCE = ("HF_", "TRANSFORMERS_", "PYTHON", "LD_")
"""Variables of the environment that libraries read while they are imported."""


@dataclass(frozen=True)
class Reloads:
    """Stands in for `hf_tuner.evaluation.verify.apart`."""

    forks: ForkServer

    def apart(self, words: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
        """As `verify.apart`; by that itself where the environment is another than the server's."""
        if read_once(environment) != read_once(self.forks.environment):
            return ANEW(words, environment)
        paths = [str(Path(word).absolute()) if Path(word).exists() else word for word in words]
        child = self.forks.start(paths, entry=verify.__name__, **environment)
        return child.wait(verify.SECONDS), child.err.read_text()


def read_once(environment: Mapping[str, str]) -> dict[str, str]:
    """What imports read of an environment."""
    passing = ("TRANSFORMERS_VERBOSITY", "PYTEST_CURRENT_TEST")
    return {k: v for k, v in environment.items() if k.startswith(READ_ONCE) and k not in passing}
