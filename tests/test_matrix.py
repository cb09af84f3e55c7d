"""Every method, optimiser and loss: trains two steps, saves, reloads to the same bits, predicts by name."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from hf_tuner import catalog, finetune
from hf_tuner.evaluation.predict import kept_of, predict
from hf_tuner.models.restore import restore

SETTINGS = {"max_steps": 2, "per_device_train_batch_size": 8, "save_strategy": "no", "verify": False, "warmup_steps": 0}
EXTRA = {
    "peft": {"peft_type": "HRA"},
    "vera": {"r": 8},
    "oft": {"oft_block_size": 8},
    "adalora": {"max_steps": 12},
    "shira": {"r": 2},
    "miss": {"r": 8},
}
METHODS = catalog.names("methods")


def run(method: str, model: Path, data: Path, folder: Path, **more: object):
    settings = {**SETTINGS, **EXTRA.get(method, {}), **more}
    return finetune(model=str(model), dataset=str(data), method=method, output_dir=str(folder), **settings)


def test_the_folder_is_not_empty() -> None:
    assert len(METHODS) >= 22


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.fault(31)
def test_method_trains_saves_and_reloads_to_the_same_bits(
    method: str, tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # features are read by this method, not found in a cache
    report = run(method, tiny_model, tiny_data, tmp_path / "run")
    assert all(p["passed"] for p in report.proofs) and len(report.proofs) >= 5
    assert report.rows == {"train": 48, "test": 24}
    assert report.parameters["trainable"] > 0
    first, again = restore(tmp_path / "run"), restore(tmp_path / "run")
    rows = Dataset.from_dict({"text": ["rain and snow today", "the team with a ball", "warm soup"]})
    np.testing.assert_array_equal(kept_of(first, rows)[0], kept_of(again, rows)[0])
    assert predict(tmp_path / "run", ["cold rain"])[0]["prediction"] in ("food", "sport", "weather")


@pytest.mark.parametrize("optimizer", catalog.names("optimizers"))
def test_optimizer(optimizer: str, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    report = run("lora", tiny_model, tiny_data, tmp_path / "run", optimizer=optimizer)
    assert next(p for p in report.proofs if p["name"] == "trainable weights moved")["passed"]


@pytest.mark.parametrize("loss", catalog.names("losses"))
def test_loss(loss: str, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    report = run("full", tiny_model, tiny_data, tmp_path / "run", loss=loss, class_weights="auto")
    assert next(p for p in report.proofs if p["name"] == "trainable weights moved")["passed"]


@pytest.mark.parametrize("start", ["gaussian", "orthogonal", "pissa", "olora", "eva"])
def test_lora_starts(start: str, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    # The reload proof itself is asked for: pissa and olora change the base and must be converted on saving.
    report = run("lora", tiny_model, tiny_data, tmp_path / "run", init_lora_weights=start, r=4, verify=True)
    assert next(p for p in report.proofs if p["name"] == "saved = measured")["passed"]
