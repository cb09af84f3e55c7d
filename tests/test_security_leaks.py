"""Nothing leaks: no token in any byte that a run leaves, no path out of a name, no file others may read or write."""

import os
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import command, write_rows

from hf_tuner import config, flags
from hf_tuner.cli.main import main
from hf_tuner.errors import UsageError
from hf_tuner.launching import default_folder
from hf_tuner.models.safety import plain_path, refuse_code

CANARY = "hf_CANARYabcdefghijklmnopqrstuvwxyz0123"


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run with checkpoints and a tracker, trained under umask 027 by a user who is logged in by environment."""
    home = tmp_path_factory.mktemp("leaks")
    write_rows(home / "train.csv", 36)
    old = os.umask(0o027)
    try:
        done = command(
            "lora", "--model", tiny_model, "--dataset", home / "train.csv", "--output-dir", home / "run", "--max-steps", "4",
            "--save-strategy", "steps", "--save-steps", "2", "--logging-steps", "1", "--report-to", "tensorboard",
            HF_TOKEN=CANARY, HF_HUB_OFFLINE="1", TENSORBOARD_LOGGING_DIR=str(home / "run" / "tracker"),
        )  # fmt: skip
    finally:
        os.umask(old)
    assert done.returncode == 0, done.stderr
    return home / "run", done


def every_byte(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, and of every member of a zip."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield str(path), path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path}:{name}", archive.read(name)) for name in archive.namelist())


@pytest.mark.fault(71, "S8")
def test_the_token_is_in_no_byte_of_a_run(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Weights, checkpoints with their zip members, settings, card, logs, tracker, and what was printed."""
    folder, done = trained
    seen = dict(every_byte(folder))
    names = {Path(name.split(":")[0]).name for name in seen}
    assert {
        "adapter_model.safetensors",
        "run.yaml",
        "manifest.json",
        "README.md",
        "report.json",
        "optimizer.pt",
    } <= names
    assert any("tfevents" in name for name in names) and any(":" in name for name in seen)
    assert [name for name, content in seen.items() if CANARY.encode() in content] == []
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.fault(71, "S8")
def test_the_search_finds_a_token(tmp_path: Path) -> None:
    """A planted one is found, in a file and in a member of a zip: the test above can fail."""
    (tmp_path / "a").write_text(CANARY)
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", f"x{CANARY}")
    assert [CANARY.encode() in content for _, content in every_byte(tmp_path)] == [True, False, True]


@pytest.mark.fault(71, "S8")
@pytest.mark.parametrize(
    "words", [["--hub-token", CANARY], [f"--hub_token={CANARY}"], ["--hub-token"], ["--token", CANARY]]
)
def test_a_token_on_the_command_line_is_refused_unprinted(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It would stand in `ps` and in the shell's history; the answer does not repeat it."""
    with pytest.raises(SystemExit) as end:
        main(["lora", "--model", "demo", "--dataset", "demo", *words])
    said = capsys.readouterr()
    assert end.value.code == 2 and "token" in said.err and CANARY not in said.out + said.err


@pytest.mark.fault(71, "S8")
@pytest.mark.parametrize("key", ["hub_token", "hub-token", "token", "use_auth_token", "push_to_hub_token"])
def test_a_token_in_a_configuration_is_refused_unprinted(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(f"{key}: {CANARY}\n")
    with pytest.raises(SystemExit) as end:
        main(["lora", "--model", "demo", "--dataset", "demo", "--config", str(tmp_path / "run.yaml")])
    said = capsys.readouterr()
    assert end.value.code == 2 and CANARY not in said.out + said.err


@pytest.mark.fault(71)
def test_no_verb_takes_a_token_as_a_word() -> None:
    """Neither a setting of a run, nor one of a method, nor a flag of another verb."""
    package = Path(config.__file__).parent
    texts = {p.name: p.read_text(encoding="utf-8") for p in (package / "cli").glob("*.py")}
    assert (
        len(texts) > 10
        and [name for name, text in texts.items() if '"--token"' in text or '"--hub-token"' in text] == []
    )
    assert "hub_token" in flags.REFUSED and "token" not in {f.name for f in flags.run_flags()}


@pytest.mark.fault(65)
def test_what_the_trainer_saves_is_no_code(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The files of a true checkpoint pass the look for code; training_args.bin, which holds objects, is never written."""
    files = [p for kind in ("*.pt", "*.pth") for p in trained[0].glob(f"checkpoint-*/{kind}")]
    assert len(files) >= 3 and not list(trained[0].rglob("*.bin"))
    for path in files:
        refuse_code(path)


@pytest.mark.fault(25, "S15")
def test_files_follow_the_umask(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Under umask 027: the group reads, others do not; nothing is more private than that either."""
    folder = trained[0]
    files = [p for p in folder.iterdir() if p.is_file() and p.name != ".lock"]
    assert len(files) > 6
    assert {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in files if stat.S_IMODE(p.stat().st_mode) != 0o640} == {}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


@pytest.mark.fault("S15")
def test_what_lies_aside_while_it_is_written_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary folders are made by tempfile, which gives them to their owner alone."""
    from hf_tuner.models import save

    made = []
    real = tempfile.mkdtemp
    monkeypatch.setattr(save.tempfile, "mkdtemp", lambda **k: made.append(real(**k)) or made[-1])

    class Model:
        def save_pretrained(self, folder: Path) -> None:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            raise OSError("disk full")

    with pytest.raises(Exception, match="disk full"):
        save.save_model(Model(), None, tmp_path / "run")
    assert made and not Path(made[0]).exists()


@pytest.mark.fault(66)
def test_the_folder_one_stands_in_is_not_imported_from(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_process: None
) -> None:
    """A downloaded folder may hold a numpy.py; the fresh process that proves a run does not take it for numpy."""
    from datasets import Dataset

    from hf_tuner.evaluation.verify import reloaded

    for name in ("numpy", "torch", "accuracy"):
        (tmp_path / f"{name}.py").write_text(f"import os\nos.makedirs({str(tmp_path / 'marker')!r}, exist_ok=True)\n")
    monkeypatch.chdir(tmp_path)
    assert len(reloaded(run, Dataset.from_list([{"text": "rain"}]))) == 1
    assert not (tmp_path / "marker").exists()


NAMES = ["../../evil", "/etc/evil", "a/../../evil", "evil\0", "..", "~/evil", "a:b#c@d", "x" * 300]


@pytest.mark.fault(69, "S13")
@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_model_or_data_set_never_leaves_runs(name: str) -> None:
    """The default folder of a run is made of the last parts of names, letters and digits only."""
    folder = Path(default_folder(config.Run(model=name.replace("\0", ""), dataset=name, method="lora")))
    assert folder.parts[0] == "runs" and len(folder.parts) == 2 and plain_path(str(folder))


@pytest.mark.fault(69, "S13")
def test_labels_never_become_paths(tiny_model: Path, tmp_path: Path) -> None:
    """A run on labels that are paths, markup and control characters writes its own folder and nothing else."""
    labels = ["../../evil", "/tmp/evil", "<script>alert(1)</script>"]
    data = tmp_path / "data" / "train.csv"
    data.parent.mkdir()
    rows = [f'"{word} number {i}","{label}"' for i in range(12) for word, label in zip("abc", labels, strict=True)]
    data.write_text("text,label\n" + "\n".join(rows) + "\n")
    before = {p for p in tmp_path.rglob("*") if "run" not in p.parts}
    from hf_tuner.launching import finetune

    finetune(model=str(tiny_model), dataset=str(data), method="lora", output_dir=str(tmp_path / "run"), max_steps=1,
             run_name="../../evil",
             verify=False, probe_rows=0)  # fmt: skip
    after = {p for p in tmp_path.rglob("*") if "run" not in p.relative_to(tmp_path).parts}
    assert after - before <= {tmp_path / "data"} | set(data.parent.iterdir())
    names = [str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*")]
    assert names and not [n for n in names if "evil" in n or "script" in n]
    assert not Path("/tmp/evil").exists() and not (tmp_path.parent / "evil").exists()


@pytest.mark.fault(69, "S13")
def test_a_folder_with_a_nul_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--output-dir .*a NUL character is in it"):
        flags.parse(["--model", "demo", "--dataset", "demo", "--output-dir", f"{tmp_path}/a\0b"], {})


def test_nothing_listens_beyond_this_machine() -> None:
    """No module of the package opens a server; processes of one machine find each other on 127.0.0.1."""
    package = Path(config.__file__).parent
    servers = ("http.server", "socketserver", ".listen(", "create_server", "uvicorn", "gradio", "streamlit", ".bind(")
    lines = [line for p in package.rglob("*.py") for line in p.read_text(encoding="utf-8").splitlines()]
    assert len(lines) > 5000
    assert [line for line in lines for word in servers if word in line and '.bind(("127.0.0.1"' not in line] == []
