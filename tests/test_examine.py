"""What must fit before weights are read: positions, ids, disk, folders; in `check` and first in every run."""

import json
import os
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from checking import Said, check
from conftest import write_rows

from hf_tuner import flags
from hf_tuner.data import places
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.models import load
from hf_tuner.training import examine as examining
from hf_tuner.training.examine import checkpoints


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has caches of its own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def look(tiny_model: Path, data: Path, folder: Path, *words: object) -> Said:
    """`hf-tuner check` with a model."""
    return check(data, "--model", tiny_model, "--output-dir", folder / "run", *words)


def test_one_screen_says_what_fits(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Tokens, ids and disk follow the data; nothing is written into the run's folder."""
    said = look(tiny_model, tiny_data, tmp_path)
    assert said.code == 0
    assert said.lines <= 15
    for words in ("of 64 (all rows); none is cut", "ids for 49 embeddings", "for the result and 3 checkpoints"):
        assert words in said.out
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(51)
def test_long_texts_are_counted_against_the_positions(tiny_model: Path, tmp_path: Path) -> None:
    """600 words before 64 positions: their share is said, with what can be done, and a million of them cost no minute."""
    rows = [
        ("rain " * 600, "a"),
        ("sun " * 600, "b"),
        ("wind " * 1_000_000, "a"),
        *[(f"ball {i}", "ab"[i % 2]) for i in range(20)],
    ]
    path = tmp_path / "long.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    splits = ("--train-split", "train", "--test-split", "train[:5]")
    said = look(tiny_model, path, tmp_path, *splits)
    assert "13.0 % of the rows are cut" in said.out
    assert "13.0 % of the rows have over 64 tokens and are cut; the model takes no more" in said.err
    assert "--max-length 64 keeps more" in look(tiny_model, path, tmp_path, *splits, "--max-length", 16).err
    assert said.seconds < 20


def test_virtual_tokens_that_leave_no_room_for_a_text(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    said = look(tiny_model, tiny_data, tmp_path, "--method", "prompt", "--num-virtual-tokens", 64)
    assert said.code == 2 and "64 virtual tokens leave no room for a text among the 64 tokens" in said.err


def test_a_method_that_looks_at_values_is_not_refused(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """shira chooses weights by their values: shapes alone say nothing about its size."""
    said = look(tiny_model, tiny_data, tmp_path, "--method", "shira", "--r", 4)
    assert said.code == 0
    assert "disk      not known before the weights are read" in said.out


def test_wrong_targets_are_said_before_weights_are_read(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """What the method cannot adapt is found from shapes."""
    said = look(tiny_model, tiny_data, tmp_path, "--target-modules", "quary")
    assert said.code == 2
    assert "quary" in said.err


def test_ids_without_an_embedding_are_found(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A tokenizer that knows more ids than the model embeds crashes at the first batch; here it is exit 4."""
    import transformers

    other = shutil.copytree(tiny_model, tmp_path / "other")
    tokenizer = transformers.AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["brand", "new"])
    tokenizer.save_pretrained(other)
    said = look(other, tiny_data, tmp_path)
    assert said.code == 4
    assert "the tokenizer's largest id is 50, the model embeds 49 ids" in said.err


def full(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Pretend that so many bytes are free."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(examining.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - free, free))


@pytest.mark.fault(6)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_disk_that_is_too_small_is_refused_before_training(
    method: str, tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an adapter only what trains counts; with one checkpoint or none less is needed."""
    full(monkeypatch, 50_000)
    said = look(tiny_model, tiny_data, tmp_path, "--method", method)
    assert said.code == 3
    assert "the disk is too small" in said.err and "--save-total-limit 1, --save-strategy no" in said.err
    assert ("--method lora" in said.err) == (method == "full")
    full(monkeypatch, 5_000_000)
    assert look(tiny_model, tiny_data, tmp_path, "--method", method).code == 0
    full(monkeypatch, 50_000)
    assert look(tiny_model, tiny_data, tmp_path, "--method", "head-only").code == 0


@pytest.mark.fault(6)
def test_a_run_on_a_full_disk_reads_no_weights(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe asks before it loads the model."""
    from hf_tuner.launching import finetune

    full(monkeypatch, 50_000)
    monkeypatch.setattr(load, "read_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(EnvironmentFault, match="the disk is too small"):
        finetune(model=str(tiny_model), dataset=str(tiny_data), method="full", output_dir=str(tmp_path / "run"))


@pytest.mark.fault(6)
@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_real_small_disk(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A file system of 64 kB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False, capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        said = look(tiny_model, tiny_data, disk, "--method", "full")
        assert said.code == 3
        assert f"{disk} has 66 kB free" in said.err
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "words, rows, expected",
    [
        ("", 3_200, 3),
        ("--num-train-epochs 1", 3_200, 1),
        ("--save-strategy no", 3_200, 0),
        ("--save-total-limit 1", 3_200, 2),
        ("--save-total-limit 0 --num-train-epochs 7", 320, 7),
        ("--save-strategy steps --save-steps 10 --save-total-limit 0 --num-train-epochs 1", 3_200, 10),
        ("--save-strategy steps --save-steps 0.25 --save-total-limit 0 --num-train-epochs 1", 3_200, 4),
        ("--max-steps 150 --save-total-limit 0", 3_200, 2),
        ("--method head-only", 3_200, 0),
    ],
)
def test_checkpoints_that_lie_there_together(words: str, rows: int, expected: int) -> None:
    """As the Trainer saves and rotates them, the one being written included."""
    run = flags.parse(["--model", "m", "--dataset", "d", "--output-dir", "o", *words.split()], {})
    assert checkpoints(run, rows) == expected


@pytest.mark.fault(24)
def test_an_output_folder_that_cannot_be(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "file").write_text("")
    said = check(tiny_data, "--model", tiny_model, "--output-dir", tmp_path / "file" / "run")
    assert said.code == 3
    assert f"{tmp_path / 'file'} is a file; name a folder" in said.err


@pytest.mark.fault(24)
def test_a_run_into_a_file_ends_before_any_weight(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run asks for its folder first of all."""
    from hf_tuner.launching import finetune

    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(load, "read_weights", lambda *_: pytest.fail("weights were read"))
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(EnvironmentFault, match="file"):
            finetune(model=str(tiny_model), dataset=str(tiny_data), output_dir=str(place))
    assert (tmp_path / "file").read_text() == "mine"


def as_nobody(words: list[object]) -> int:
    """Exit code of a check in a process without root's rights; its text goes to a file beside."""
    pid = os.fork()
    if pid == 0:
        if os.getuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        said = check(*words)
        os.write(1, said.text.encode())
        os._exit(said.code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    "place, cure", [("out", "name a folder of your own"), ("home", "set HF_HOME to a folder of your own")]
)
def test_a_folder_that_may_not_be_written(
    place: str, cure: str, tiny_model: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Output folder or cache: exit 3 before any weight, the folder and the cure are named."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o755)
        write_rows(base / "train.csv", 24)
        for name in ("out", "home"):
            (base / name).mkdir()
            (base / name).chmod(0o555 if name == place else 0o777)
        monkeypatch.setenv("HF_HOME", str(base / "home"))
        code = as_nobody([base / "train.csv", "--output-dir", base / "out" / "run"])
        shown = capfd.readouterr().out
        assert code == 3, shown
        assert cure in shown and str(base / place) in shown


@pytest.mark.fault(24)
def test_without_a_home_nothing_is_made_in_a_folder_called_tilde(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without HOME and without an entry in the list of users, as in many containers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setattr(places.constants, "HF_HOME", "~/.cache/huggingface")
    monkeypatch.setattr(places.os.path, "expanduser", lambda path: path)
    said = check(tiny_data)
    assert said.code == 3
    assert "HOME is not set" in said.err and "set HF_HOME=FOLDER" in said.err
    assert not (tmp_path / "~").exists()


@pytest.mark.fault(37)
def test_the_audit_is_in_the_report(tiny_model: Path, tmp_path: Path) -> None:
    """Facts in report.json and on the page, warnings among the notes; never a row's text."""
    from hf_tuner.launching import finetune

    write_rows(tmp_path / "train.csv", 24)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text(f"text,label\n{lines[5]}\nnew text,weather\nanother,food\n")
    settings = {"model": str(tiny_model), "dataset": str(tmp_path), "max_steps": 1, "verify": False}
    report = finetune(output_dir=str(tmp_path / "run"), **settings)
    facts = json.loads((tmp_path / "run" / "report.json").read_text())["audit"]
    assert facts == json.loads(json.dumps(report.audit))
    assert facts["leaked"] == {"test": 1} and facts["duplicates"] == 0
    assert facts["classes"] == {"food": 8, "sport": 8, "weather": 8}
    assert facts["tokens"]["limit"] == 64 and facts["tokenizer"] == {"ids": 49, "embeddings": 49}
    assert facts["disk"]["checkpoints"] == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Audit of the data" in page and "stand in train too" in page
    assert lines[5].partition(",")[0] not in json.dumps(facts)
    with pytest.raises(UsageError, match="--drop-leaked leaves them out"):
        finetune(output_dir=str(tmp_path / "two"), fail_on_leak=True, **settings)
