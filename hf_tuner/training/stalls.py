"""A run that stands still ends with a name: which process, for how long, in what phase, at which step.

A collective waits for every process, and on gloo for ever. So each process watches itself: the one that hangs says so
after `--stall-timeout` seconds, those that only wait for it a few seconds later.
"""

import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from hf_tuner.errors import EnvironmentFault, LostPeer, TunerError
from hf_tuner.faults import goes_on_from, processes, tell

LOADING = "loading data"
STEP = "a training step"
EVALUATION = "evaluation"
SAVING = "saving a checkpoint"

MARGIN = 5.0
"""Seconds that a waiting process leaves to the hanging one to say so."""
COLLECTIVE = ("torch/distributed/", "torch/nn/parallel/", "torch/autograd/", "accelerate/utils/operations")
"""Where the main thread stands while it waits for other processes; DDP reduces gradients inside autograd."""
READS_DEVICE = ("torch/", "transformers/trainer", "hf_tuner/training/trainer")
"""Where it stands on a GPU, whose collectives run beside it, until a number is needed."""


class Watch:
    """Ends the process when `beat` has not been called for `timeout` seconds (0: never)."""

    def __init__(self, timeout: float, folder: Path, device: str = "cpu") -> None:
        self.timeout, self.folder, self.device = timeout, folder, device
        self.phase, self.step, self.last = LOADING, 0, time.monotonic()
        self._done = threading.Event()
        self._main = threading.get_ident()

    def beat(self, phase: str, step: int) -> None:
        """Something has moved: `phase` begins at `step`."""
        self.phase, self.step, self.last = phase, step, time.monotonic()

    def __enter__(self) -> "Watch":
        self.last = time.monotonic()
        if self.timeout > 0:
            threading.Thread(target=self._look, name="stall watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _look(self) -> None:
        while not self._done.wait(min(1.0, self.timeout / 4)):
            still = time.monotonic() - self.last
            if still > self.timeout + (MARGIN if self._waits() else 0):
                _end(self.fault(still))

    def _waits(self) -> bool:
        """True when this process may be waiting for others rather than hanging itself."""
        frame = sys._current_frames().get(self._main)
        if processes() == 1 or frame is None:
            return False
        file = frame.f_code.co_filename.replace(os.sep, "/")
        on_device = self.device != "cpu" and self.phase == STEP and any(part in file for part in READS_DEVICE)
        return on_device or any(part in file for part in COLLECTIVE)

    def fault(self, seconds: float) -> TunerError:
        """What to say after so many seconds without progress."""
        if self._waits():
            return LostPeer(f"waited {seconds:.0f} s for the other processes in {self.phase} at step {self.step}: "
                            f"one of them hangs, or the network is cut; {goes_on_from(self.folder)}")  # fmt: skip
        rank = f"rank {os.environ.get('RANK', '0')}" if processes() > 1 else "the run"
        advice = ""
        if self.phase == LOADING:
            advice = "\nA data worker or a file system hangs? --dataloader-num-workers 0 shows where."
        return EnvironmentFault(f"{rank} made no progress for {seconds:.0f} s in {self.phase} at step {self.step}"
                                f"{_place(sys._current_frames().get(self._main))}; {goes_on_from(self.folder)} "
                                f"(--stall-timeout {self.timeout:g}){advice}")  # fmt: skip


def _place(frame: FrameType | None) -> str:
    """File, line and function of the innermost frame outside the libraries that only wait, as text."""
    while frame is not None and ("/lib/python" in frame.f_code.co_filename or "<" in frame.f_code.co_filename):
        frame = frame.f_back
    return f" ({Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name})" if frame else ""


def _end(error: TunerError) -> None:
    """End this process from a thread, with its data workers: the main thread may never come back."""
    tell(error)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(error.exit_code)
