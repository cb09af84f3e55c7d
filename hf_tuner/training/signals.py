"""Ctrl-C and SIGTERM while training: a checkpoint at the next step boundary; a second signal ends the run at once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from hf_tuner.console import say
from hf_tuner.errors import StoppedBySignal
from hf_tuner.stopping import handled_by

ECHO = 2.0
"""Seconds in which a launcher may hand the same signal on to a process that already had it from the terminal."""


class EvaluationStopped(Exception):
    """Raised inside an evaluation while training, when a signal ends it."""


class CleanStop(TrainerCallback):
    """Hears signals, and finds with the other processes the step boundary at which all of them stop."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.at = 0.0
        self.stopping = False
        self.asked: tuple[Any, torch.Tensor] | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: remember the first signal, obey the second at once."""
        if self.received is not None:
            if _many() and time.monotonic() - self.at < ECHO:
                return
            os._exit(128 + number)
        self.received, self.at = number, time.monotonic()
        say(f"\n  {signal.Signals(number).name}: saving at the next step; once more ends at once")

    def agreed(self) -> bool:
        """True from the same step boundary on in every process, once any of them heard a signal."""
        if not _many():
            self.stopping = self.received is not None
        elif not self.stopping:
            # The answer to the question of the step before: nobody waits for it.
            before, self.asked = self.asked, self._ask()
            self.stopping = before is not None and _answer(before) > 0
            if self.stopping:
                self.received = self.received or _answer(self.asked)
        return self.stopping

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation while training is not waited for."""
        if self.agreed():
            raise EvaluationStopped

    def check(self, newest: Path | None, step: int) -> None:
        """Raise StoppedBySignal when training ended because of a signal; `newest` is the checkpoint to go on from."""
        if _many():
            self.received = _answer(self._ask()) or self.received
        if self.received is not None:
            after = (
                f"the same command goes on from {newest}" if newest else "no checkpoint was asked for: it begins again"
            )
            raise StoppedBySignal(
                self.received, f"stopped by {signal.Signals(self.received).name} after step {step}; {after}"
            )

    def _ask(self) -> tuple[Any, torch.Tensor]:
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        heard = torch.tensor([self.received or 0], device=device)
        return torch.distributed.all_reduce(heard, torch.distributed.ReduceOp.MAX, async_op=True), heard


@contextmanager
def clean_stop() -> Iterator[CleanStop]:
    """Handle SIGINT and SIGTERM while training; the former handlers come back afterwards."""
    stop = CleanStop()
    with handled_by(stop.note):
        yield stop


def _many() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )


def _answer(question: tuple[Any, torch.Tensor]) -> int:
    work, heard = question
    work.wait()
    return int(heard.item())
