"""Cases in processes of their own that need not import everything again: a fork of this one."""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a fork ended: its exit code (negative: a signal) and what it printed."""

    code: int
    text: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line printed."""
        return self.text.strip().splitlines()[-1]


def forked(work: Callable[[], object], limit: float = 60, **environment: str) -> Ended:
    """Run `work` in a fork, its output in a file; killed after `limit` seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        pid = os.fork()
        if pid == 0:
            _in_child(work, out, environment)
        status = _wait(pid, start + limit)
        return Ended(os.waitstatus_to_exitcode(status), out.read_text(errors="replace"), time.monotonic() - start)


def _in_child(work: Callable[[], object], out: Path, environment: dict[str, str]) -> None:
    code = 0
    handle = os.open(out, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:  # torch's handler of SIGCHLD may raise anywhere; a child must never go on as pytest
        os._exit(code)


def _wait(pid: int, until: float) -> int:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """True when a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def until(found: Callable[[], object], limit: float = 60) -> object:
    """Wait until `found` returns something true, and return it."""
    end = time.monotonic() + limit
    while not (value := found()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return value
