"""Ctrl-C and SIGTERM end a run at the next step boundary, after a checkpoint; a second signal ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from hf_tuner.console import say
from hf_tuner.errors import StoppedBySignal


class CleanStop(TrainerCallback):
    """Saves and stops when a signal came in; `check` then raises, so that nothing after training happens."""

    def __init__(self) -> None:
        self.received: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: remember the first signal, obey the second at once."""
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        say(f"\n  {signal.Signals(number).name}: saving at the next step; once more ends at once")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the Trainer to save and stop."""
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
            control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """No evaluation and no second save after a signal."""
        if self.received is not None:
            control.should_evaluate = control.should_save = False

    def check(self, folder: Any, step: int) -> None:
        """Raise StoppedBySignal when training ended because of a signal."""
        if self.received is not None:
            raise StoppedBySignal(self.received, f"stopped by {signal.Signals(self.received).name} after step {step}; "
                                  f"the same command goes on from {folder}/checkpoint-{step}")  # fmt: skip


@contextmanager
def clean_stop() -> Iterator[CleanStop]:
    """Handle SIGINT and SIGTERM while training; the former handlers come back afterwards."""
    stop = CleanStop()
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
