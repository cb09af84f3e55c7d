"""Ctrl-C and SIGTERM outside training: the run ends where it stands, tidily, with one line; training has its own way."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hf_tuner.errors import StoppedBySignal


class _Ending:
    """Turns the first signal into StoppedBySignal, and the second into an end at once."""

    def __init__(self) -> None:
        self.heard = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            os._exit(128 + number)
        self.heard = True
        raise StoppedBySignal(number, f"stopped by {signal.Signals(number).name}; the same command begins again, or goes on "
                              "from the newest checkpoint")  # fmt: skip


@contextmanager
def listening() -> Iterator[None]:
    """Handle SIGINT and SIGTERM until the block ends, as a run does before and after it trains."""
    with handled_by(_Ending()):
        yield


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to a handler until the block ends. Only the main thread can; what is ignored stays so."""
    here = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if here and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
