"""Pushing while training: every checkpoint under its own name, failures said and mended."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_here import REPO, WEIGHTS, files_of, share
from hub_server import Hub
from transformers import AutoTokenizer

from hf_tuner.config import Run
from hf_tuner.errors import EnvironmentFault
from hf_tuner.hub.preflight import Destination
from hf_tuner.training import pushing
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
        settle(sender)
    assert "step 1 was not pushed" in capsys.readouterr().err
    assert there.content("model", REPO, WEIGHTS) == b"2"


def test_the_end_of_training_waits_neither_for_ever_nor_drops_in_silence(
    there: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "PATIENCE", 0.3)
    there.create("model", REPO)
    there.fail(path="/commit/", delay=1.0, times=2)
    sender = sending(run, tmp_path, "all_checkpoints", steps=(1, 2, 3))
    sender.finish()
    assert "not on the Hub: checkpoints" in capsys.readouterr().err
    share(run)  # while the last one may still be under way
    assert "manifest.json" in files_of(there)


def test_what_failed_is_tried_again_at_the_end(there: Hub, run: Path, tmp_path: Path) -> None:
    there.create("model", REPO)
    there.fail(path="/commit/", status=403)
    sender = sending(run, tmp_path, "all_checkpoints", steps=(1,))
    settle(sender)
    assert len(sender.failed) == 1
    sender.finish()
    assert there.content("model", REPO, f"checkpoint-1/{WEIGHTS}") == b"1"


def test_a_full_disk_at_a_save_does_not_end_the_training(
    there: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pushing.os, "link", full)
    sending(run, tmp_path, "every_save", steps=(1,))
    assert "step 1 is not pushed (OSError" in capsys.readouterr().err
    assert not list(tmp_path.glob(f"{pushing.ASIDE}*"))


def test_whatever_ends_the_last_push_the_message_holds_the_next_command(
    there: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pushing, "push", full)
    with pytest.raises(
        EnvironmentFault, match=r"(?s)No space left.*finished and safe.*hf-tuner push .* --hub-model-id alice/run"
    ):
        pushing.Pushing(Destination(repo=REPO), None).finish(run)


def sending(run: Path, folder: Path, strategy: str, steps: tuple[int, ...]) -> PushCheckpoints:
    """A sender to which some checkpoints were saved."""
    to = Destination(repo=REPO, strategy=strategy)
    sender = PushCheckpoints(Run(output_dir=str(folder)), to, AutoTokenizer.from_pretrained(run), None)
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / WEIGHTS).write_bytes(b"%d" % step)
        state = SimpleNamespace(global_step=step, max_steps=9, is_world_process_zero=True)
        sender.on_save(SimpleNamespace(output_dir=str(folder)), state, None)
    return sender


def settle(sender: PushCheckpoints) -> None:
    """Wait until nothing is under way, not for ever."""
    end = time.monotonic() + 20
    while sender.worker is not None:
        assert time.monotonic() < end
        time.sleep(0.02)
