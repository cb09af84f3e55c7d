"""Which checkpoint a run goes on from."""

from pathlib import Path

from hf_tuner.config import Run
from hf_tuner.console import say
from hf_tuner.errors import UsageError


def checkpoint_to_resume(run: Run) -> str | None:
    """The checkpoint folder that `--resume` asks for, or None to start from the beginning.

    auto takes the newest complete checkpoint in the run's folder. Raises UsageError for a path that holds none.
    """
    if run.resume == "never":
        return None
    if run.resume != "auto":
        if not (Path(run.resume) / "trainer_state.json").is_file():
            raise UsageError(
                f"--resume {run.resume}: no checkpoint there (expected trainer_state.json); auto, never or a folder"
            )
        return run.resume
    found = [p for p in run.folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    complete = sorted(
        (p for p in found if (p / "trainer_state.json").is_file()), key=lambda p: int(p.name.split("-")[1])
    )
    if not complete:
        return None
    say(f"  resume    going on from {complete[-1]}")
    return str(complete[-1])
