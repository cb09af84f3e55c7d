"""A checkpoint is whole or passed over, and only our own are ever deleted."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer
from test_resume import line

from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.folder import LIST as FILE
from hf_tuner.folder import numbered
from hf_tuner.training import checkpoints
from hf_tuner.training.checkpoints import Store, read_list, verify
from hf_tuner.training.resume import checkpoint_to_resume

IDENTITY = {
    "settings": {"method": "lora", "seed": 1},
    "data": "d",
    "base": "b",
    "labels": {},
    "training": {},
    "rows": 3,
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path, forks: ForkServer) -> Path:
    """A run of the tiny model with checkpoint-10 and checkpoint-20, killed at step 25; copy it before you change it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert forks.run(line("lora", tiny_model, tiny_data, folder), "crash_points:kill_at_step=25")[0] == 137
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Run:
    """A copy of the stopped run."""
    shutil.copytree(stopped, tmp_path / "run")
    return Run(model="m", dataset="d", output_dir=str(tmp_path / "run"))


def write(store: Store, step: int) -> Path:
    """A small checkpoint."""
    with store.writing(step) as aside:
        made = aside / f"checkpoint-{step}"
        (made / "model.safetensors").write_bytes(b"weights" * step)
        (made / "optimizer.pt").write_bytes(b"state" * step)
    return store.folder / f"checkpoint-{step}"


def reseal(path: Path, change: Callable[[dict], None]) -> None:
    """Change a list as somebody would who knows how it is sealed."""
    content = json.loads(path.read_text())
    content.pop("seal")
    change(content)
    path.write_text(json.dumps({**content, "seal": checkpoints._seal(content)}))


def damage(path: Path, how: str) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "bit": content}[how])


@pytest.mark.fault(4)
@pytest.mark.parametrize("how", ["missing", "empty", "half", "bit"])
def test_every_damaged_file_is_found_and_the_older_checkpoint_used(
    how: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(p.name for p in (run.folder / "checkpoint-20").iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", FILE} <= set(names)
    for name in names:
        whole = (run.folder / "checkpoint-20" / name).read_bytes()
        damage(run.folder / "checkpoint-20" / name, how)
        assert checkpoint_to_resume(run) == str(run.folder / "checkpoint-10"), name
        said = capsys.readouterr()
        assert f"passed over: {run.folder / 'checkpoint-20'}" in said.err and name in said.err
        (run.folder / "checkpoint-20" / name).write_bytes(whole)
    assert checkpoint_to_resume(run) == str(run.folder / "checkpoint-20")


@pytest.mark.fault(4)
def test_when_none_is_whole_the_files_are_named(run: Run) -> None:
    damage(run.folder / "checkpoint-20" / "rng_state.pth", "bit")
    damage(run.folder / "checkpoint-10" / "optimizer.pt", "missing")
    with pytest.raises(
        ArtifactError, match=r"(?s)rng_state.pth is damaged.*optimizer.pt is missing.*--resume never"
    ) as told:
        checkpoint_to_resume(run)
    assert told.value.exit_code == 4


@pytest.mark.fault(21)
def test_steps_decide_and_not_times(run: Run) -> None:
    os.utime(run.folder / "checkpoint-10", (2e9, 2e9))
    assert checkpoint_to_resume(run) == str(run.folder / "checkpoint-20")


def test_a_planted_file_is_not_loaded(run: Run) -> None:
    (run.folder / "checkpoint-20" / "pytorch_model.bin").write_bytes(b"payload")
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin was not saved with the checkpoint"):
        verify(run.folder / "checkpoint-20")


def test_a_list_that_points_outside_is_not_followed(run: Run) -> None:
    path = run.folder / "checkpoint-20" / FILE
    reseal(path, lambda content: content["files"].update({"../../secret": {"size": 1, "sha256": "0"}}))
    with pytest.raises(ArtifactError, match="secret is missing"):
        verify(run.folder / "checkpoint-20")


@pytest.mark.fault(65, "S1")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_that_is_well_sealed(zipped: bool, run: Run, tmp_path: Path) -> None:
    path = run.folder / "checkpoint-20" / "optimizer.pt"
    torch.save({"state": Payload(tmp_path / "marker")}, path, _use_new_zipfile_serialization=zipped)
    digest = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    reseal(path.parent / FILE, lambda content: content["files"].update({"optimizer.pt": digest}))
    assert verify(path.parent)["step"] == 20  # its list says that all is well
    with pytest.raises(ArtifactError, match=r"checkpoint-20/optimizer.pt contains code .*refusing to load it"):
        checkpoint_to_resume(replace(run, resume=str(path.parent)))
    assert checkpoint_to_resume(run) == str(run.folder / "checkpoint-10")
    assert not (tmp_path / "marker").exists()
    torch.load(path, weights_only=False)  # what would have happened
    assert (tmp_path / "marker").exists()


@pytest.mark.fault(65)
@pytest.mark.parametrize("listed", [True, False])
def test_a_sharded_state_is_refused(listed: bool, run: Run) -> None:
    """Its .metadata is a pickle, which torch reads without looking: the older checkpoint is used."""
    path = run.folder / "checkpoint-20"
    file = path / "pytorch_model_fsdp_0" / ".metadata"
    file.parent.mkdir()
    file.write_bytes(b"x")
    if listed:
        digest = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
        reseal(path / FILE, lambda content: content["files"].update({"pytorch_model_fsdp_0/.metadata": digest}))
    assert verify(path)["step"] == 20
    with pytest.raises(ArtifactError, match="a sharded state is a pickle; only full states are gone on from"):
        checkpoint_to_resume(replace(run, resume=str(path)))
    assert checkpoint_to_resume(run) == str(run.folder / "checkpoint-10")


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.marker),))


def test_weights_alone_are_not_enough(tmp_path: Path) -> None:
    store = Store(tmp_path, IDENTITY, 2)
    with store.writing(5) as aside:
        (aside / "checkpoint-5" / "model.safetensors").write_bytes(b"w")
    with pytest.raises(ArtifactError, match="weights only"):
        checkpoint_to_resume(Run(model="m", dataset="d", output_dir=str(tmp_path)))


@pytest.mark.fault(17)
def test_formats(tmp_path: Path) -> None:
    path = write(Store(tmp_path, IDENTITY, 2), 5)
    assert read_list(path)["format"] == 1
    reseal(path / FILE, lambda content: content.update(format=99))
    with pytest.raises(ArtifactError, match="format 99, this version reads up to 1: upgrade"):
        read_list(path)


@pytest.mark.fault(23, 73)
def test_rotation_deletes_only_its_own(tmp_path: Path) -> None:
    other = write(Store(tmp_path, {**IDENTITY, "data": "another"}, 2), 1)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoint-3").symlink_to(tmp_path / "elsewhere")
    store = Store(tmp_path, IDENTITY, 2)
    for step in range(10, 3010, 10):
        write(store, step)
        store.rotate(step, keep=20 if step >= 20 else None)
    assert sorted(p.name for p in numbered(tmp_path)) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-20",
        "checkpoint-3000",
    ]
    assert other.is_dir() and (tmp_path / "checkpoint-best").is_dir() and (tmp_path / "checkpoint-3").is_symlink()
    assert (tmp_path / "elsewhere").is_dir() and not list(tmp_path.glob(".*"))


@pytest.mark.fault(3, 4)
def test_what_was_just_saved_is_kept_and_what_was_passed_over_goes(tmp_path: Path) -> None:
    store = Store(tmp_path, IDENTITY, 1)
    write(store, 350)
    damage(write(store, 400) / "optimizer.pt", "bit")  # so the run went on from 350
    write(store, 370)
    store.rotate(370, keep=360)  # the best step was not saved
    assert [p.name for p in numbered(tmp_path)] == ["checkpoint-370"]


def test_somebody_elses_folder_with_the_name_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "notes.txt").write_text("mine")
    write(Store(tmp_path, IDENTITY, 2), 5)
    assert (tmp_path / "checkpoint-5.other-1" / "notes.txt").read_text() == "mine"
    assert "it is now checkpoint-5.other-1" in capsys.readouterr().err
    assert verify(tmp_path / "checkpoint-5")["step"] == 5


@pytest.mark.fault(25)
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_follow_the_umask(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        store = Store(tmp_path, IDENTITY, 2)
        with store.writing(5) as aside:
            (aside / "checkpoint-5" / "model.safetensors").touch(mode=0o600)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "checkpoint-5").iterdir()} == {mode}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.fault(5)
def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    store = Store(small_disk, IDENTITY, 2)
    first = write(store, 5)
    with (
        pytest.raises(
            EnvironmentFault,
            match=r"disk full.*checkpoint-5 is whole, and the same command goes on from it; free some space",
        ),
        store.writing(10) as aside,
    ):
        (aside / "checkpoint-10" / "optimizer.pt").write_bytes(bytes(4_000_000))
    assert verify(first)["step"] == 5 and [p.name for p in small_disk.iterdir()] == ["checkpoint-5"]


@pytest.mark.fault(5)
def test_torch_says_little_about_a_full_disk(small_disk: Path) -> None:
    store = Store(small_disk, IDENTITY, 2)
    with pytest.raises(EnvironmentFault, match="disk full"), store.writing(10) as aside:
        torch.save(torch.zeros(1_000_000), aside / "checkpoint-10" / "optimizer.pt")
    assert not list(small_disk.iterdir())


def test_a_mistake_of_ours_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), Store(tmp_path, IDENTITY, 2).writing(5):
        raise RuntimeError("shapes do not fit")
    assert not list(tmp_path.iterdir())
