"""Faults that nobody raised on purpose, in plain words, and how the processes of one run tell each other of them.

A process that a parent supervises (see `processes`) writes its fault into a file instead of the screen: the parent
waits for all, finds the cause and says it once, as the last line.
"""

import ctypes
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hf_tuner.errors import EnvironmentFault, LostPeer, StoppedBySignal, TunerError, UsageError
from hf_tuner.folder import newest_checkpoint

FOLDER = "HF_TUNER_FAULTS"
"""Environment variable with the folder that a supervised process writes its fault into."""
MOMENT = 3.0
"""Seconds that another process of the same launcher waits for the first one to say what both found."""
PR_SET_PDEATHSIG = 1

MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad allocation")
PEERS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "TCPStore",
         "DistNetworkError", "DistStoreError", "Timed out waiting", "wait timeout", "Socket Timeout")  # fmt: skip
LESS_MEMORY = (
    "a smaller --per-device-train-batch-size (with more --gradient-accumulation-steps the update stays the same), "
    "a shorter --max-length, --gradient-checkpointing true, a smaller model, or qlora"
)


@dataclass(frozen=True)
class Fault:
    """How one process of a run ended.

    expected: one of our errors, which says what to do; else a bug, and `trace` shows where. victim: it ended only
    because another process had. killed_by: the signal that ended it, when a launcher saw that.
    """

    rank: int | None
    """None: the launcher itself."""
    code: int
    message: str
    time: float
    expected: bool = True
    victim: bool = False
    trace: str = ""
    killed_by: int = 0


def processes() -> int:
    """Number of processes of this run, as its launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends, so that no rank and no worker is left over."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), number)


def plainly(error: BaseException, where: str = "") -> BaseException:
    """One of our errors for what is known to go wrong (memory, data workers, lost processes); else the error itself."""
    text = str(error)
    first = text.splitlines()[0][:160] if text else type(error).__name__
    if isinstance(error, TunerError):
        # A DataLoader worker sends its traceback along; our sentence is the end of it.
        return type(error)(text.rpartition(f"{type(error).__name__}: ")[2]) if "Original Traceback" in text else error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return EnvironmentFault(
            f"{error.filename or 'a file'} cannot be written{where}: {error.strerror}; free some space"
        )
    if isinstance(error, MemoryError) or any(sign in text for sign in MEMORY):
        return EnvironmentFault(f"out of memory{where} ({first}).\nWhat needs less: {LESS_MEMORY}")
    if text.startswith("DataLoader worker (pid") or (
        isinstance(error, ConnectionError | EOFError) and _from_worker(error)
    ):
        how = text.partition("killed by signal: ")[2].split(".")[0]
        return EnvironmentFault(f"a data worker was killed{f' ({how})' if how else ''}{where}; out of memory? "
                                "Try fewer --dataloader-num-workers (0: none)")  # fmt: skip
    if processes() > 1 and any(sign in f"{type(error).__name__}: {text}" for sign in PEERS):
        return LostPeer(f"another process of this run is gone or cannot be reached{where} ({first})")
    return error


def _from_worker(error: BaseException) -> bool:
    """True when the other end of a broken connection was a data worker."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any("torch/utils/data/" in name or "torch/multiprocessing/" in name for name in frames)


@contextmanager
def in_plain_words(where: Callable[[], str] = str) -> Iterator[None]:
    """Turn what is known to go wrong into our errors; `where` says in what phase."""
    try:
        yield
    except Exception as error:
        plain = plainly(error, where())
        if plain is error:
            raise
        raise plain from error


def fault_of(error: BaseException) -> Fault:
    """The record of an error in this process."""
    rank, now = int(os.environ.get("RANK", "0")), time.time()
    if isinstance(error, KeyboardInterrupt):
        return Fault(rank, 128 + signal.SIGINT, "stopped by Ctrl-C", now)
    if isinstance(error, TunerError | StoppedBySignal):
        return Fault(rank, error.exit_code, str(error), now, victim=isinstance(error, LostPeer))
    shown = "".join(traceback.format_exception(error))
    return Fault(rank, 1, f"{type(error).__name__}: {error}", now, expected=False, trace=shown)


def leave(fault: Fault) -> bool:
    """Leave a fault for the supervising parent; False when that cannot be. Of one process the first fault counts."""
    folder = os.environ.get(FOLDER)
    if not folder or not Path(folder).is_dir():
        return False
    name = Path(folder) / f"{'launcher' if fault.rank is None else fault.rank}.json"
    if not name.exists():
        aside = name.with_suffix(f".{os.getpid()}")
        try:
            aside.write_text(json.dumps(asdict(fault)), encoding="utf-8")
            aside.replace(name)
        except OSError:  # a full disk: then on the screen
            return False
    return True


def left_in(folder: Path) -> list[Fault]:
    """Faults that the processes left, the earliest first."""
    found = [Fault(**json.loads(p.read_text(encoding="utf-8"))) for p in folder.glob("*.json")]
    return sorted(found, key=lambda f: f.time)


def tell(error: BaseException) -> None:
    """Say an error on standard error, once among the processes of a launcher, or leave it for the parent."""
    fault = fault_of(error)
    sys.stdout.flush()
    if leave(fault):
        return
    if processes() == 1:
        asked = isinstance(error, KeyboardInterrupt | StoppedBySignal)  # no error: somebody wanted it
        said = f"\n{fault.message}" if asked else f"error: {fault.message}"
        print(said, file=sys.stderr, flush=True)
        return
    # What is wrong with the command or the data every process finds: the first says it, and ends the others.
    if isinstance(error, UsageError | StoppedBySignal | KeyboardInterrupt) and os.environ.get("LOCAL_RANK") != "0":
        time.sleep(MOMENT)
    print(f"error: rank {fault.rank}: {fault.message}", file=sys.stderr, flush=True)


def cause(faults: list[Fault], killed: dict[int, int], silent: list[int], goes_on: str) -> Fault:
    """What ended a run: one fault out of those left, ranks killed by a signal, and ranks that did not answer."""
    ours = [f for f in faults if f.expected and not f.victim]
    hard = {rank: number for rank, number in killed.items() if number not in (signal.SIGABRT, signal.SIGTERM)}
    now = time.time()
    if ours:
        first = ours[0]
        alike = sum(f.message == first.message for f in ours) > 1
        return first if alike or first.code > 128 else replace(first, message=_by(first.rank, first.message))
    if hard:
        return _killed(hard, goes_on)
    if bugs := [f for f in faults if not f.victim]:
        return replace(bugs[0], message=_by(bugs[0].rank, bugs[0].message))
    if silent:
        waited = next((f"; {_by(f.rank, f.message).partition(': one of them')[0]}" for f in faults), "")
        message = f"rank {silent[0]} made no progress and does not answer{waited}; {goes_on}"
        return Fault(silent[0], EnvironmentFault.exit_code, message, now)
    if killed:
        return _killed(killed, goes_on)
    if faults:
        return replace(faults[0], message=_by(faults[0].rank, faults[0].message))
    return Fault(None, 1, "the processes ended without a word", now)


def goes_on_from(folder: Path | str) -> str:
    """What the user gets when the same command is typed again."""
    checkpoint = newest_checkpoint(folder)
    return f"the same command goes on from {checkpoint}" if checkpoint else "no checkpoint had been written yet"


def _killed(killed: dict[int, int], goes_on: str) -> Fault:
    rank, number = next(iter(killed.items()))
    why = " (out of memory?)" if number == signal.SIGKILL else ""
    message = f"rank {rank} was killed by {signal.Signals(number).name}{why}; {goes_on}"
    return Fault(rank, EnvironmentFault.exit_code, message, time.time())


def _by(rank: int | None, message: str) -> str:
    return message if rank is None or message.startswith(f"rank {rank} ") else f"rank {rank}: {message}"
