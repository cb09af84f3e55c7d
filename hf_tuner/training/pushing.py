"""Pushing while training: each checkpoint under its own name, in the background, never in the way of the run.

The Trainer's own pushing uploads whatever lies in the output folder at the moment (so a commit called "step 4" can hold
step 6), says nothing when a push fails, and waits for ever for a Hub that hangs. Here a checkpoint's files are set aside
the moment it is saved; one thread sends them, newest first; a failure is said at once and tried again with the next save.
"""

import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from transformers import TrainerCallback

from hf_tuner.config import Run
from hf_tuner.console import is_main, say, warn
from hf_tuner.errors import EnvironmentFault, TunerError
from hf_tuner.hub.card import in_progress
from hf_tuner.hub.files import PROCESSOR, WEIGHTS, public_files
from hf_tuner.hub.preflight import IN_PROGRESS, Destination, destination_of, preflight
from hf_tuner.hub.publish import clean_texts, refuse_secrets
from hf_tuner.hub.push import push, send

PATIENCE = 120.0
"""Seconds that the end of training waits for checkpoints that are under way."""
ASIDE = ".pushing-"
"""Folders in the run's own that hold what is to be sent."""


class Pushing:
    """What a run does with the Hub: nothing, or push its checkpoints while it trains and itself when it is finished."""

    def __init__(self, to: Destination | None, checkpoints: "PushCheckpoints | None") -> None:
        self.to, self.checkpoints = to, checkpoints

    @classmethod
    def of(cls, run: Run, processor: Any, finish: Callable[[Path], None] | None) -> "Pushing":
        """From the run's settings; `finish` completes a saved adapter in a folder (see `save_model`)."""
        to = destination_of(run) if is_main() else None
        if to is None:
            return cls(None, None)
        to = to if "/" in to.repo else preflight(to)  # `launch` has given it its full name already
        return cls(to, None if to.strategy == "end" else PushCheckpoints(run, to, processor, finish))

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """Callbacks for the Trainer."""
        return [self.checkpoints] if self.checkpoints else []

    def finish(self, folder: Path) -> None:
        """Push the finished run. Raises EnvironmentFault that says how to try again; the run itself is safe."""
        if self.to is None:
            return
        with _safe(folder, self.to):
            if self.checkpoints is not None:
                self.checkpoints.finish()
            push(folder, self.to)


def push_finished(run: Run) -> None:
    """Push a run that was finished earlier, if it is not on the Hub yet. Raises as `Pushing.finish`."""
    to = destination_of(run)
    if to is not None:
        with _safe(run.folder, to):
            push(run.folder, to)


@contextmanager
def _safe(folder: Path, to: Destination) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever it is, hours of training are not lost to it
        raise EnvironmentFault(
            f"{error if isinstance(error, TunerError) else f'{type(error).__name__}: {error}'}\n"
            f"The run is finished and safe in {folder}; it was not pushed. Try again:\n  {push_command(folder, to)}"
        ) from error


def push_command(folder: Path, to: Destination) -> str:
    """The command that pushes a finished run."""
    words = ["hf-tuner", "push", str(folder), "--hub-model-id", to.repo]
    words += ["--hub-private-repo"] if to.private else []
    words += ["--hub-revision", to.revision] if to.revision else []
    words += ["--create-pr"] if to.create_pr else []
    return shlex.join(words)


class PushCheckpoints(TrainerCallback):
    """Sends weights and processor of every checkpoint to the Hub, as `--hub-strategy` asks.

    every_save: at the root of the repository, the newest only; checkpoint: also in last-checkpoint/; all_checkpoints:
    each, also in its checkpoint-N/. Optimiser states are pickles and stay here: a run goes on where it was started.
    """

    def __init__(self, run: Run, to: Destination, processor: Any, finish: Callable[[Path], None] | None) -> None:
        self.run, self.to, self.processor, self.complete = run, to, processor, finish
        self.every = to.strategy == "all_checkpoints"
        self.waiting: list[tuple[int, Path]] = []
        self.failed: list[tuple[int, Path]] = []
        self.lock = threading.Lock()
        self.worker: threading.Thread | None = None
        self.steps = 0

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the checkpoint's files aside and see that somebody sends them. Never raises."""
        if not state.is_world_process_zero:
            return
        self.steps = state.max_steps
        try:
            aside = self._set_aside(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        except Exception as error:  # a full disk must not end the training
            warn(f"step {state.global_step} is not pushed ({type(error).__name__}: {error}); training goes on")
            return
        with self.lock:
            self.waiting.append((state.global_step, aside))
            self._work()

    def finish(self) -> None:
        """Wait, not for ever, for what is under way; with all_checkpoints also try again what failed."""
        with self.lock:
            if self.every:
                self.waiting, self.failed = [*self.failed, *self.waiting], []
                self._work()
            else:
                self._drop(self.waiting)
            worker = self.worker
        if worker is not None:
            worker.join(PATIENCE)
        with self.lock:
            left = [*self.failed, *self.waiting]
            if left and self.every:
                warn(
                    f"not on the Hub: checkpoints {', '.join(str(step) for step, _ in left)}; they are in {self.run.folder}"
                )
            self._drop(self.waiting)
            self._drop(self.failed)

    def _set_aside(self, source: Path) -> Path:
        """A folder with the checkpoint's weights and the processor; links cost no disk and outlive the checkpoint."""
        aside = Path(mkdtemp(prefix=ASIDE, dir=self.run.folder))
        try:
            for name in public_files(source, WEIGHTS):
                if name.suffix == ".safetensors" and self.complete is None:
                    os.link(source / name, aside / name)
                else:
                    shutil.copyfile(source / name, aside / name)
            if self.complete is not None:
                self.complete(aside)
            self.processor.save_pretrained(aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return aside

    def _work(self) -> None:
        """Start the thread that sends, when there is something to send. Call it with the lock held."""
        if self.waiting and (self.worker is None or not self.worker.is_alive()):
            self.worker = threading.Thread(target=self._send_all, daemon=True, name="push")
            self.worker.start()

    def _send_all(self) -> None:
        while True:
            with self.lock:
                if not self.waiting:
                    self.worker = None
                    return
                if not self.every:
                    self._drop(self.waiting[:-1])
                step, aside = self.waiting.pop(0)
            keep = False
            try:
                self._send(step, aside)
                say(f"  hub       step {step} is on the Hub")
            except Exception as error:
                warn(f"step {step} was not pushed ({error}); training goes on, {self._again()}")
                keep = self.every
            if keep:
                with self.lock:
                    self.failed.append((step, aside))
            else:
                shutil.rmtree(aside, ignore_errors=True)

    def _again(self) -> str:
        return (
            "it is tried again at the end"
            if self.every
            else "the next save, or the finished run, is pushed in its place"
        )

    def _send(self, step: int, aside: Path) -> None:
        clean_texts(aside)
        (aside / "README.md").write_text(in_progress(self.run.resolved(), step, self.steps), encoding="utf-8")
        refuse_secrets(aside, self.run.folder)
        files = {p.as_posix(): aside / p for p in public_files(aside, (*WEIGHTS, *PROCESSOR, "README.md"))}
        title = f"{IN_PROGRESS}, step {step}"
        send(files, self.to, title)  # an older run's manifest goes: it does not speak of these weights
        place = {"checkpoint": "last-checkpoint", "all_checkpoints": f"checkpoint-{step}"}.get(self.to.strategy)
        if place:
            below = "/".join(p for p in (self.to.subfolder, place) if p)
            send(files, replace(self.to, subfolder=below), title)

    def _drop(self, entries: list[tuple[int, Path]]) -> None:
        for entry in list(entries):
            for queue in (self.waiting, self.failed):
                if entry in queue:
                    queue.remove(entry)
            shutil.rmtree(entry[1], ignore_errors=True)
