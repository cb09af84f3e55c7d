"""Where a test kills a run: patches for the fork server, each applied in the child alone."""

import os
import signal
from pathlib import Path
from typing import Any


def kill_at_step(step: str) -> None:
    """SIGKILL in the middle of an update, after its gradients are there."""
    _at_step(int(step), lambda: os.kill(os.getpid(), signal.SIGKILL))


def term_at_step(step: str) -> None:
    """SIGTERM in the middle of an update."""
    _at_step(int(step), lambda: os.kill(os.getpid(), signal.SIGTERM))


def kill_in_save(place: str) -> None:
    """SIGKILL in the save of step 20: "before", or after one of its parts, or "rename", or "rotate"."""
    import transformers

    from hf_tuner.training import checkpoints

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    parts = {
        "model": (transformers.Trainer, "save_model"),
        "optimizer": (transformers.Trainer, "_save_optimizer_and_scheduler"),
        "rng": (transformers.Trainer, "_save_rng_state"),
        "state": (transformers.trainer_callback.TrainerState, "save_to_json"),
        "commit": (checkpoints.Store, "_commit"),
        "list": (checkpoints, "_flush"),
        "rotate": (checkpoints.shutil, "rmtree"),
    }
    holder, name = parts[place]
    original = getattr(holder, name)
    seen = {"saves": 0}

    def patched(*args: Any, **kwargs: Any) -> Any:
        if place == "rotate":  # the first checkpoint that goes has lost its name, and is still there
            gone = Path(str(args[0]))
            if gone.name.startswith(".dropping") and gone.exists():
                die()
            return original(*args, **kwargs)
        seen["saves"] += 1
        result = original(*args, **kwargs)
        if seen["saves"] >= {"list": 12}.get(place, 2):
            die()
        return result

    setattr(holder, name, patched)


def close_the_screen() -> None:
    """Standard output becomes a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def signal_in_evaluation(number: str) -> None:
    """A signal in the first evaluation while training."""
    from hf_tuner.training.trainer import TunerTrainer

    original = TunerTrainer._evaluating
    seen = {"calls": 0}

    def patched(*args: Any, **kwargs: Any) -> Any:
        seen["calls"] += 1
        if seen["calls"] == 1:
            os.kill(os.getpid(), int(number))
        return original(*args, **kwargs)

    TunerTrainer._evaluating = patched


def _at_step(step: int, act: Any) -> None:
    from hf_tuner.training.trainer import TunerTrainer

    original = TunerTrainer._get_grad_norm

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == step:
            act()
        return original(self, *args, **kwargs)

    TunerTrainer._get_grad_norm = patched


def kill_before_writing(name: str) -> None:
    """SIGKILL just before a small file of the results gets its name."""
    original = os.replace

    def patched(source: Any, target: Any, **kwargs: Any) -> None:
        if Path(str(target)).name == name and not Path(str(target)).parent.name.startswith("."):
            os.kill(os.getpid(), signal.SIGKILL)
        original(source, target, **kwargs)

    os.replace = patched


def kill_when_said(word: str) -> None:
    """SIGKILL right after a line that begins with a word was printed."""
    import builtins

    printed = builtins.print

    def patched(*args: Any, **kwargs: Any) -> None:
        printed(*args, **kwargs)
        if args and str(args[0]).strip().startswith(word):
            os.kill(os.getpid(), signal.SIGKILL)

    builtins.print = patched
