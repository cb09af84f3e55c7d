"""Code of a model's repository: only when asked for, only at one pinned commit, and never because a run says so."""

import json
import sys
from pathlib import Path
from typing import Any

import hostile
import pytest
from hub_server import Hub

from hf_tuner.cli.main import main
from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.launching import finetune
from hf_tuner.models import trust
from hf_tuner.models.load import load_config
from hf_tuner.models.restore import restore

CODE = """
import os
from transformers import BertConfig, BertForSequenceClassification
if not os.path.isdir({marker!r}):
    os.mkdir({marker!r})


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""
MODEL = "alice/own"


@pytest.fixture
def own(there: Hub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A model on the Hub whose architecture is code of its repository: the commit, and the marker it makes."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    monkeypatch.setenv(trust.VARIABLE, "")  # taken back after the test, whatever was allowed in it
    marker = tmp_path / "marker"
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    folder = hostile.copied(tiny_model, tmp_path / "own", config={"auto_map": auto, "model_type": "own"})
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    there.create("model", MODEL, files={p.name: p.read_bytes() for p in folder.iterdir()})
    store = there.repo("model", MODEL)
    commit = str(store.branches["main"])
    later = CODE.format(marker=str(tmp_path / "later"))  # the code that main has by now
    there.put(store, {"own.py": later.encode()})
    assert store.branches["main"] != commit
    return commit, marker


def settings(commit: str | None, **changes: Any) -> Run:
    """A run on that model."""
    return Run(**{"model": MODEL, "model_revision": commit, "output_dir": "unused", **changes})


@pytest.mark.fault(66, "S4")
def test_unasked_the_code_is_not_run(own: tuple[str, Path]) -> None:
    commit, marker = own
    with pytest.raises(ArtifactError, match="needs code from its repository, and that is not run"):
        load_config(settings(commit))
    assert not marker.exists()


@pytest.mark.fault(66)
@pytest.mark.parametrize("revision", [None, "main", "0123abc", "g" * 40, "A" * 40, "0" * 41])
def test_without_a_whole_commit_it_is_refused(revision: str | None, own: tuple[str, Path]) -> None:
    """A branch or tag may name other code tomorrow."""
    with pytest.raises(UsageError, match="name the commit you read with --model-revision"):
        load_config(settings(revision, trust_remote_code=True))
    assert not own[1].exists()


@pytest.mark.fault(66)
def test_the_command_refuses_it_before_the_data_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2; for a folder, whose code nobody can name, as well."""
    for model, said in (
        (MODEL, "40 hexadecimal digits"),
        (str(tmp_path), "a folder has no commit"),
        ("demo", "no commit"),
    ):
        with pytest.raises(SystemExit) as end:
            main(
                ["lora", "--model", model, "--dataset", "no-such.csv", "--trust-remote-code", "--output-dir", "unused"]
            )
        assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.fault(66)
def test_asked_for_at_its_commit_it_runs_and_nothing_else_inherits_that(
    own: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, recorded, and refused to the next who loads the run without asking; no code lies in the run."""
    commit, marker = own
    (tmp_path / "train.csv").write_text("text,label\n" + "rain sun,a\nbread soup,b\n" * 12)
    finetune(model=MODEL, model_revision=commit, trust_remote_code=True, dataset=str(tmp_path / "train.csv"), method="lora",
             output_dir=str(tmp_path / "run"), max_steps=1, verify=False, probe_rows=0)  # fmt: skip
    assert marker.exists() and not (tmp_path / "later").exists()
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["base"]["code"] is True and manifest["base"]["revision"] == commit
    assert "trust_remote_code: true" in (folder / "run.yaml").read_text()
    assert list(folder.rglob("*.py")) == []

    monkeypatch.setenv(trust.VARIABLE, "")  # another process
    with pytest.raises(ArtifactError, match=f"commit {commit}.*which is not run unasked.*--trust-remote-code"):
        restore(folder)
    trust.allow(MODEL, "0" * 40)
    with pytest.raises(ArtifactError, match="is not run unasked"):
        restore(folder)
    trust.allow()
    assert type(restore(folder).model.get_base_model()).__name__ == "OwnModel"


@pytest.mark.fault(66)
def test_code_of_yet_another_repository_is_refused(
    own: tuple[str, Path], there: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    """A pinned commit pins the code of one repository only."""
    auto = {"AutoConfig": "mallory/code--own.OwnConfig"}
    folder = hostile.copied(tiny_model, tmp_path / "else", config={"auto_map": auto, "model_type": "own"})
    there.create("model", "alice/else", files={p.name: p.read_bytes() for p in folder.iterdir()})
    commit = str(there.repo("model", "alice/else").branches["main"])
    with pytest.raises(ArtifactError, match="only code of the pinned repository itself"):
        load_config(settings(commit, model="alice/else", trust_remote_code=True))
    assert not own[1].exists()


@pytest.mark.fault(66)
def test_rerun_does_not_inherit_trust(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that `rerun` starts with hold no trust, nor a place to write logs to."""
    from hf_tuner import launching

    folder = hostile.copied(run, tmp_path / "run")
    with (folder / "run.yaml").open("a") as file:
        file.write("logging_dir: /tmp/elsewhere\n")
    text = (folder / "run.yaml").read_text().replace("trust_remote_code: false", "trust_remote_code: true")
    (folder / "run.yaml").write_text(text)
    assert "trust_remote_code: true" in text
    started = []
    monkeypatch.setattr(launching, "launch_file", lambda path, words, load: started.append(Path(words[1]).read_text()))
    main(["rerun", str(folder)])
    assert "trust_remote_code" not in started[0] and "logging_dir" not in started[0] and "method: lora" in started[0]


@pytest.mark.fault(66)
@pytest.mark.parametrize("verb", ["predict", "evaluate", "merge", "push"])
def test_verbs_that_load_a_run_can_be_asked(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag is theirs, off by default."""
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "--trust-remote-code" in capsys.readouterr().out
