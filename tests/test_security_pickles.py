"""Pickles are never run: a checkpoint file that names code is refused by its name, before anything reads it."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import hostile
import pytest
import torch

from hf_tuner.errors import ArtifactError
from hf_tuner.models.safety import refuse_code

FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt", "pytorch_model.bin")


@pytest.mark.fault(65, "S1")
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", FILES)
def test_code_is_refused_by_name(name: str, form: str, tmp_path: Path) -> None:
    """Exit 4, the file is named, and nothing ran."""
    folder, marker = tmp_path / "checkpoint-2", tmp_path / "marker"
    folder.mkdir()
    hostile.write_payload(folder / name, marker, form)
    with pytest.raises(ArtifactError, match=rf"checkpoint-2/{name} contains code \(\w+\.mkdir\); refusing") as error:
        refuse_code(folder / name)
    assert error.value.exit_code == 4
    assert not marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_the_payload_would_run_when_trusted(form: str, tmp_path: Path) -> None:
    """Read without suspicion the marker appears: the test above can fail."""
    hostile.write_payload(tmp_path / "optimizer.pt", tmp_path / "marker", form)
    torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert (tmp_path / "marker").exists()


def protocol_0(marker: Path) -> bytes:
    """The same payload in opcodes of text, without a protocol."""
    return f"cposix\nmkdir\n(S'{marker}'\ntR.".encode()


def stacked(marker: Path) -> bytes:
    """Protocol 4 names objects by strings on the stack."""
    return pickle.dumps(hostile.Payload(marker), protocol=4)


def disguised(marker: Path) -> bytes:
    """A harmless pair of names on top of the true one, taken away just before it is looked up."""
    return b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x8c\x0bcollections\x8c\x0bOrderedDict00\x93\x8c\x01x\x85R."


def later(marker: Path) -> bytes:
    """The second pickle of an old file, the first being what torch.save writes."""
    plain = io.BytesIO()
    torch.save({}, plain, _use_new_zipfile_serialization=False)
    end = plain.getvalue().index(b".") + 1
    return plain.getvalue()[:end] + protocol_0(marker)


def with_zip_at_its_end(marker: Path) -> bytes:
    """A pickle that ends in a harmless zip: Python's zipfile takes it for one, torch reads the pickle."""
    harmless = io.BytesIO()
    torch.save({}, harmless)
    return pickle.dumps(hostile.Payload(marker), protocol=2) + harmless.getvalue()


def old_archive() -> bytes:
    """A tar as torch saved once, its first member called like a whole old file; torch runs the pickle inside."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in (b"\x80\x02}.\x80\x02}.\x80\x02}.\x80\x02}.\x80\x02}.".decode("latin-1"), "sys_info", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(EVIL)
            archive.addfile(info, io.BytesIO(EVIL))
    return content.getvalue()


def zip_with(names: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these members, doubled ones included."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in names.items():
            archive.writestr(name.rstrip("+"), data)
    return content.getvalue()


EVIL = pickle.dumps(hostile.Payload(Path("marker")), protocol=2)
GOOD = pickle.dumps({}, protocol=2)
TRICKS = {
    "text opcodes": protocol_0(Path("marker")),
    "names on the stack": stacked(Path("marker")),
    "disguised names": disguised(Path("marker")),
    "second pickle of an old file": later(Path("marker")),
    "zip at its end": with_zip_at_its_end(Path("marker")),
    "tar of an old torch": old_archive(),
    "second pickle in a zip": zip_with({"a/data.pkl": GOOD, "a/more.pkl": EVIL}),
    "compressed member": zip_with({"a/data.pkl": EVIL}, zipfile.ZIP_DEFLATED),
    "program": zip_with({"a/data.pkl": GOOD, "a/constants.pkl": GOOD, "a/code/x.py": b""}),
    "no pickle in it": zip_with({"a/version": b"3"}),
    "cut short": zip_with({"a/data.pkl": GOOD})[:40],
    "empty": b"",
    "web page": b"<!DOCTYPE html>",
    "loader of torch itself": b"\x80\x02ctorch\nload\nU\x01xq\x00\x85R.",
    "extension code": b"\x80\x02\x82\x01.",
}


@pytest.mark.fault(65, "S1")
@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_do_not_hide_code(trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is not plainly a file of tensors is refused, with the file's name."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "optimizer.pt"
    path.write_bytes(TRICKS[trick])
    with pytest.raises(
        ArtifactError,
        match=r"/optimizer.pt (contains code|is damaged or not a checkpoint file|is an archive of an old)",
    ):
        refuse_code(path)
    assert not Path("marker").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them is read depends on the reader."""
    path = tmp_path / "optimizer.pt"
    path.write_bytes(zip_with({"a/data.pkl": GOOD, "a/data.pkl+": EVIL}))
    with pytest.raises(ArtifactError, match="two members of one name"):
        refuse_code(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "Adafactor"])
def test_what_training_saves_passes(form: str, optimizer: str, tmp_path: Path) -> None:
    """Optimizers, schedulers and generators as the Trainer saves them are no code."""
    import random

    import numpy as np

    layer = torch.nn.Linear(3, 2)
    kind = getattr(torch.optim, optimizer)(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    kind.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(kind, lambda step: 1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(kind)
    generators = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}
    half = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.nn.Parameter(torch.ones(2)), "step": torch.tensor(3.0)}
    for number, data in enumerate([kind.state_dict(), schedule.state_dict(), plateau.state_dict(), generators, half]):
        path = tmp_path / f"{number}.pt"
        torch.save(data, path, _use_new_zipfile_serialization=form == "zip")
        refuse_code(path)
