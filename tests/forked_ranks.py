"""The processes of a run that is a fork itself, forked as well: a rank starts in a tenth of a second."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

NAME = "rank"
"""What a rank is called in /proc, before its number: its environment there is that of the process that forked first."""


def install() -> None:
    """Let `hf_tuner.processes` of this process fork the ranks it starts; launchers of others stay processes of their own."""
    from hf_tuner import processes

    processes.subprocess = SimpleNamespace(Popen=started, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]


def started(line: Sequence[str], *, env: Mapping[str, str], **options: Any) -> Any:
    """As `subprocess.Popen` for `python SCRIPT WORDS …`."""
    return Rank(line[1:], env) if line[1].endswith(".py") else subprocess.Popen(line, env=env, **options)


class Rank:
    """A fork that runs a script, with what `processes` asks of a Popen."""

    def __init__(self, line: Sequence[str], environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be(line, environment)

    def poll(self) -> int | None:
        """The exit code (negative: a signal), None while it runs."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self) -> int:
        """Wait for its end."""
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode or 0

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _be(line: Sequence[str], environment: Mapping[str, str]) -> None:
    """Be the process that runs the script, and end."""
    import traceback

    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        with open("/proc/self/comm", "w") as name:
            name.write(f"{NAME} {environment['RANK']}")
        sys.argv = list(line)
        runpy.run_path(line[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
