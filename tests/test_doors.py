"""One run, whichever door it comes through: the adapters are the same bytes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "recipes" / "text_classification.py"
SETTINGS = ("--num-train-epochs", "1", "--per-device-train-batch-size", "8", "--no-verify")


def words(model: Path, data: Path, folder: Path) -> list[str]:
    return ["--model", str(model), "--dataset", str(data), "--output-dir", str(folder), *SETTINGS]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def by_cli(tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("doors") / "cli"
    run("-m", "hf_tuner.cli.main", "lora", *words(tiny_model, tiny_data, folder))
    return folder, digest(folder)


def run(*line: object) -> None:
    done = subprocess.run([sys.executable, *map(str, line)], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr


def test_script(by_cli: tuple[Path, str], tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    run(RECIPE, *words(tiny_model, tiny_data, tmp_path / "run"))
    assert digest(tmp_path / "run") == by_cli[1]


def test_accelerate_launch(by_cli: tuple[Path, str], tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    config = Path(__file__).parents[1] / "accelerate_configs" / "cpu.yaml"
    run(
        "-m",
        "accelerate.commands.launch",
        f"--config_file={config}",
        RECIPE,
        *words(tiny_model, tiny_data, tmp_path / "run"),
    )
    assert digest(tmp_path / "run") == by_cli[1]


def test_config_file(by_cli: tuple[Path, str], tmp_path: Path) -> None:
    run(RECIPE, "--config", by_cli[0] / "run.yaml", "--output-dir", tmp_path / "run")
    assert digest(tmp_path / "run") == by_cli[1]


def test_python(by_cli: tuple[Path, str], tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    code = (f"from hf_tuner import finetune; finetune(model={str(tiny_model)!r}, dataset={str(tiny_data)!r}, method='lora', "
            f"output_dir={str(tmp_path / 'run')!r}, num_train_epochs=1, per_device_train_batch_size=8, verify=False)")  # fmt: skip
    run("-c", code)
    assert digest(tmp_path / "run") == by_cli[1]


def test_another_seed_is_another_adapter(
    by_cli: tuple[Path, str], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run("-m", "hf_tuner.cli.main", "lora", *words(tiny_model, tiny_data, tmp_path / "run"), "--seed", "7")
    assert digest(tmp_path / "run") != by_cli[1]
