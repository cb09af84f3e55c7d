"""Runs of strangers: adapters that would import, fetch or copy, manifests and settings that reach out of their folder."""

import json
import time
from pathlib import Path
from typing import Any

import hostile
import pytest

from hf_tuner.cli.main import main
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.hub.manifest import file_digests, read_manifest
from hf_tuner.models.restore import restore
from hf_tuner.models.safety import check_adapter


def forged(run: Path, folder: Path, base: dict[str, Any] | None = None, top: dict[str, Any] | None = None,
           **files: dict[str, Any]) -> Path:  # fmt: skip
    """A copy of a run with changed files and a manifest that fits them: a stranger computes digests as well as we do."""
    hostile.copied(run, folder, **files)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = file_digests(folder, manifest["files"])
    manifest["base"] |= base or {}
    (folder / "manifest.json").write_text(json.dumps(manifest | (top or {})))
    return folder


GADGETS: dict[str, tuple[dict[str, Any], str]] = {
    "module to import": (
        {"auto_mapping": {"parent_library": "evil", "base_model_class": "X"}},
        "auto_mapping names the module",
    ),
    "megatron module": ({"megatron_core": "evil.core"}, "megatron_core names a module"),
    "megatron settings": ({"megatron_config": {"a": 1}, "megatron_core": "megatron.core"}, "would import a module"),
    "adapters of others": ({"peft_type": "XLORA", "adapters": {"0": "evil/adapter"}}, "not a kind of adapter"),
    "no kind": ({"peft_type": "../LORA"}, "not a kind of adapter"),
    "tokenizer of another": ({"tokenizer_kwargs": {"trust_remote_code": True}}, "would load another tokenizer"),
    "pickle to read": ({"prompt_tuning_init_state_dict_path": "/tmp/evil.pt"}, "would read another file"),
    "layers copied": ({"layer_replication": [[0, 1000000]]}, "would copy the base's layers"),
    "rank without end": ({"r": 10**9}, "is believed: refused"),
    "tokens without end": ({"num_virtual_tokens": 10**9}, "is believed: refused"),
    "rank of a pattern": ({"rank_pattern": {"query": 10**7}}, "is believed: refused"),
    "expression as target": ({"target_modules": "(a+)+$"}, "only plain module names"),
    "expression in a list": ({"target_modules": ["(([a-z.])+.)+[A-Z]([a-z])+$"]}, "only plain module names"),
    "expression as key": ({"rank_pattern": {"(a|a)*b": 4}}, "only plain module names"),
    "expression for layers": ({"layers_pattern": ["(x+x+)+y"]}, "only plain module names"),
    "expression for heads": ({"modules_to_save": ["(.*)*z"]}, "only plain module names"),
    "expression to leave out": ({"exclude_modules": "(.*)*z"}, "only plain module names"),
}


@pytest.mark.fault(67)
@pytest.mark.parametrize("name", GADGETS)
def test_an_adapter_that_does_more_than_adapt_is_refused(name: str, run: Path, tmp_path: Path) -> None:
    """Exit 4 before peft reads it, in less than the time of a search without end."""
    changes, said = GADGETS[name]
    folder = forged(run, tmp_path / "run", adapter_config=changes)
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=said) as error:
        restore(folder)
    assert error.value.exit_code == 4 and time.monotonic() - start < 20


@pytest.mark.fault(67)
@pytest.mark.parametrize("kind", ["lora", "ia3", "loha", "vera", "prompt"])
def test_what_training_saves_is_no_gadget(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """The check lets through what peft itself writes for our methods."""
    from hf_tuner import catalog
    from hf_tuner.config import Run
    from hf_tuner.models.load import load_model
    from hf_tuner.tasks._labels import Labels
    from hf_tuner.tasks.text_classification import TextClassification

    method = catalog.load("methods", kind)
    task = TextClassification(labels=Labels(problem="single", names=("a", "b"), note="a test"))
    model = load_model(Run(model=str(tiny_model), output_dir="x", method=kind, method_config=method.Config()), task)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    check_adapter(json.loads((tmp_path / "adapter_config.json").read_text()), kind)


@pytest.mark.fault(67)
def test_the_base_that_an_adapter_names_is_not_looked_for(run: Path, tmp_path: Path) -> None:
    """The manifest names the base, and its fingerprint is compared."""
    folder = forged(run, tmp_path / "run", adapter_config={"base_model_name_or_path": "evil/base", "revision": "main"})
    assert restore(folder).model is not None
    folder = forged(run, tmp_path / "other", base={"fingerprint": "0" * 16})
    with pytest.raises(ArtifactError, match="is not the base this adapter was trained on"):
        restore(folder)


@pytest.mark.fault(65, "S2")
@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_pickled_adapter_is_refused_by_name(
    form: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through `predict`: exit 4, nothing ran."""
    folder, marker = hostile.copied(run, tmp_path / "run"), tmp_path / "marker"
    (folder / "adapter_model.safetensors").unlink()
    hostile.write_payload(folder / "adapter_model.bin", marker, form)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["adapter_model.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "in.csv").write_text("text\nhello\n")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(folder), "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")])
    assert end.value.code == 4
    assert "adapter_model.bin" in capsys.readouterr().err
    assert not marker.exists() and not (tmp_path / "out.csv").exists()


MANIFESTS: dict[str, dict[str, Any]] = {
    "file above": {"files": {"../../etc/passwd": {"size": 1, "sha256": "0"}}},
    "absolute file": {"files": {"/etc/passwd": {"size": 1, "sha256": "0"}}},
    "NUL": {"files": {"a\0b": {"size": 1, "sha256": "0"}}},
    "no size": {"files": {"a": 1}},
    "list of files": {"files": ["a"]},
    "base is text": {"base": "evil/base"},
    "no dtype": {"base": {"id": "x", "dtype": "__import__"}},
    "saves code": {"saves": "pickle"},
    "unknown key": {"on_load": "os.system"},
    "length": {"max_length": 10**12},
    "settings": {"settings": []},
}


@pytest.mark.fault(69, "S13")
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_data_of_its_own_folder(name: str, run: Path, tmp_path: Path) -> None:
    """Names stay inside, kinds are what they must be; a fault is one sentence with exit 4."""
    folder = forged(run, tmp_path / "run", top=MANIFESTS[name])
    with pytest.raises(ArtifactError, match=r"manifest.json is damaged"):
        read_manifest(folder)


@pytest.mark.fault(69)
@pytest.mark.parametrize("top", [{"task": "../../evil"}, {"task": "os"}, {"method": "../evil"}, {"method": "_peft"}])
def test_names_of_tasks_and_methods_are_no_modules(top: dict[str, str], run: Path, tmp_path: Path) -> None:
    """Only members of the package's own folders are imported."""
    with pytest.raises((UsageError, ArtifactError), match=r"no (task|method) named"):
        restore(forged(run, tmp_path / "run", top=top))


@pytest.mark.fault(70)
def test_a_manifest_has_a_size(run: Path, tmp_path: Path) -> None:
    folder = forged(run, tmp_path / "run", top={"lineage": ["x" * 9_000_000]})
    with pytest.raises(ArtifactError, match="at most 8,000,000"):
        read_manifest(folder)


@pytest.mark.fault(66)
def test_code_is_not_run_because_a_run_says_so(run: Path, tmp_path: Path) -> None:
    """A run that was trained with code of its base asks for consent, whatever its settings hold."""
    folder = forged(run, tmp_path / "run", base={"code": True, "id": "stranger/model", "revision": "0" * 40})
    with pytest.raises(ArtifactError, match=r"which is not run unasked; read it there, then add --trust-remote-code"):
        restore(folder)
