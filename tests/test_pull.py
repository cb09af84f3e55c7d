"""Fetching a run from the Hub: damage on the way, names that are wrong, addresses."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hub_here import REPO, WEIGHTS, share
from hub_server import Hub
from peft import PeftConfig

from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.hub import pins, pull
from hf_tuner.hub.address import Address, parse_address
from hf_tuner.hub.faults import explain
from hf_tuner.hub.manifest import FILE, sha256
from hf_tuner.hub.publish import without_paths


@pytest.mark.parametrize("given, left", [
    ("/home/me/data/train.csv", "train.csv"), ("hf-tuner lora --dataset /a/b/c.csv --r 8", "hf-tuner lora --dataset c.csv --r 8"),
    ("~/models/bert", "bert"), ("stanfordnlp/imdb", "stanfordnlp/imdb"), ("https://hub.example/a/b", "https://hub.example/a/b"),
    ("yes/no", "yes/no"), ("a / b", "a / b"),
])  # fmt: skip
def test_of_a_local_path_only_its_last_part_is_published(given: str, left: str) -> None:
    assert without_paths({"x": [given]}) == {"x": [left]}


@pytest.mark.fault(60)
def test_a_pull_cut_in_the_middle_leaves_nothing_and_goes_on(there: Hub, run: Path, tmp_path: Path) -> None:
    share(run)
    there.fail(path="/_cdn/", cut_response_at=1000)
    with pytest.raises(EnvironmentFault):
        pull.pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    assert (pull.pull(REPO, tmp_path / "pulled") / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()


@pytest.mark.fault(25, "S15")
def test_what_was_pulled_follows_the_umask(there: Hub, run: Path, tmp_path: Path) -> None:
    share(run)
    before = os.umask(0o027)
    try:
        folder = pull.pull(REPO, tmp_path / "pulled")
    finally:
        os.umask(before)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (folder, *folder.rglob("*"))}
    assert len(modes) > 6 and set(modes.values()) == {"0o750", "0o640"}


@pytest.mark.fault(67)
def test_a_run_that_does_more_than_load_is_not_pulled(there: Hub, run: Path, tmp_path: Path) -> None:
    share(run)
    config = json.loads((run / "adapter_config.json").read_text()) | {"megatron_core": "evil.core"}
    changed = json.dumps(config).encode()
    store = there.repo("model", REPO)
    manifest = json.loads((pull.fetch(Address(REPO, None, "")) / FILE).read_text())
    manifest["files"]["adapter_config.json"] = {"size": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
    there.put(store, {"adapter_config.json": changed, FILE: json.dumps(manifest).encode()})
    pins._asked.cache_clear()
    with pytest.raises(ArtifactError, match="megatron_core names a module"):
        pull.pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_flipped_byte_is_found_and_fetched_again(
    there: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    share(run)
    there.fail(path=f"/_cdn/{sha256(run / WEIGHTS)}", method="GET", flip_byte=3000)
    assert (pull.pull(REPO, tmp_path / "pulled") / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
    assert "damaged" in capsys.readouterr().err


def test_bytes_that_stay_flipped_are_refused(there: Hub, run: Path, tmp_path: Path) -> None:
    share(run)
    there.fail(path="/_cdn/", flip_byte=3000, times=9)
    with pytest.raises(ArtifactError, match="damaged"):
        pull.pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_missing_run_names_the_nearest(there: Hub, run: Path) -> None:
    share(run)
    with pytest.raises(EnvironmentFault, match='did you mean "alice/run"'):
        pull.local_run("alice/rum")


def test_a_missing_revision_names_those_there_are(there: Hub, run: Path) -> None:
    share(run)
    with pytest.raises(EnvironmentFault, match="there are: main"):
        pull.local_run(f"{REPO}@v9")


def test_a_gated_run_says_so(there: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share(run)
    there.repo("model", REPO).gated = "manual"
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    with pytest.raises(EnvironmentFault, match="it is gated: ask for access"):
        pull.local_run(REPO)


def test_what_is_no_run_is_said(there: Hub) -> None:
    there.create("model", REPO, files={"config.json": b"{}"})
    with pytest.raises(ArtifactError, match="is not a finished run of hf-tuner"):
        pull.local_run(REPO)


@pytest.mark.parametrize("text, expected", [
    ("alice/run", Address("alice/run")), ("alice/run@v1", Address("alice/run", "v1")),
    ("alice/run@refs/pr/3", Address("alice/run", "refs/pr/3")), ("hf://alice/run/de", Address("alice/run", None, "de")),
    ("alice/run@dev/a/b", Address("alice/run", "dev", "a/b")), ("./alice/run", None), ("/alice/run", None), ("run", None),
])  # fmt: skip
def test_addresses(text: str, expected: Address | None) -> None:
    assert parse_address(text) == expected
    assert expected is None or parse_address(str(expected)) == expected


def test_a_name_below_a_folder_of_runs_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / FILE).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert parse_address("runs/two") is None


def test_peft_and_transformers_do_not_hide_the_cause(there: Hub) -> None:
    with pytest.raises(ValueError, match="adapter_config") as hidden:
        PeftConfig.from_pretrained("alice/nothing")
    assert "no such repository" in str(explain(hidden.value, "the adapter", "alice/nothing"))
