"""Pushing while training: every checkpoint under its own name, failures said and mended."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_here import REPO, WEIGHTS
from hub_server import Hub
from transformers import AutoTokenizer

from hf_tuner.config import Run
from hf_tuner.hub.preflight import Destination
from hf_tuner.training.pushing import PushCheckpoints


def test_checkpoints_carry_their_own_weights_even_when_the_hub_is_slow(there: Hub, run: Path, tmp_path: Path) -> None:
    """The Trainer's own pushing put step 6 into the commit called step 4 here."""
    there.fail(path="/commit/", delay=0.3, times=99)
    to = Destination(repo=REPO, strategy="all_checkpoints")
    sender = PushCheckpoints(Run(output_dir=str(tmp_path)), to, AutoTokenizer.from_pretrained(run), None)
    for step in (2, 4, 6):
        for name in (f"checkpoint-{step}", "."):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / WEIGHTS).write_bytes(b"weights of step %d" % step)
        state = SimpleNamespace(global_step=step, max_steps=6, is_world_process_zero=True)
        sender.on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
    sender.finish()
    commits = there.repo("model", REPO).commits.values()
    titles = {c.title for c in commits if c.title.startswith("Training in progress")}
    assert titles == {f"Training in progress, step {n}" for n in (2, 4, 6)}
    for commit in commits:
        if commit.title.startswith("Training in progress"):
            step = commit.title.split()[-1]
            assert there.content("model", REPO, WEIGHTS, commit.id) == f"weights of step {step}".encode()


def test_a_failing_checkpoint_push_is_said_and_tried_with_the_next(
    there: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there.create("model", REPO)
    there.fail(path="/commit/", status=403)
    sender = PushCheckpoints(
        Run(output_dir=str(tmp_path)), Destination(repo=REPO), AutoTokenizer.from_pretrained(run), None
    )
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / WEIGHTS).write_bytes(b"%d" % step)
        state = SimpleNamespace(global_step=step, max_steps=2, is_world_process_zero=True)
        sender.on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
        while sender.worker is not None:
            time.sleep(0.02)
    assert "step 1 was not pushed" in capsys.readouterr().err
    assert there.content("model", REPO, WEIGHTS) == b"2"
