"""What a newcomer tried and met: each mistake gets its sentence, each promise of README holds."""

import importlib.util
import json
from pathlib import Path

import pytest
from conftest import command

from hf_tuner import finetune, flags, predict
from hf_tuner.errors import EnvironmentFault, UsageError
from hf_tuner.evaluation.intervals import scores_with_intervals
from hf_tuner.processes import run_processes
from hf_tuner.training.plan import plan


def parse(*words: str) -> None:
    flags.parse(["--method", "lora", "--model", "m", "--dataset", "d", *words], {})


@pytest.mark.parametrize("word, meant", [("--lr", "--learning-rate"), ("--epochs", "--num-train-epochs"),
                                         ("--batch-size", "--per-device-train-batch-size")])  # fmt: skip
def test_what_other_tools_call_a_flag_is_understood(word: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        parse(word, "1")


def test_a_text_alone_is_not_a_list_of_characters(run: Path) -> None:
    with pytest.raises(UsageError, match=r"predict\(run, \[text\]\)"):
        predict(run, "rain")


def test_predictions_do_not_overwrite_their_input(run: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text\nrain\n")
    same = command("predict", run, "--input", texts, "--output", texts)
    assert same.returncode == 2 and "is the input" in same.stderr and texts.read_text() == "text\nrain\n"
    other = command("predict", run, "--input", texts, "--output", tmp_path / "x.parquet")
    assert other.returncode == 2 and "written as CSV" in other.stderr


def test_a_missing_run_is_wrong_usage() -> None:
    done = command("evaluate", "./nothing")
    assert done.returncode == 2 and "no such run folder" in done.stderr
    done = command("evaluate", "runs/nothing")
    assert done.returncode == 3 and "no folder runs/nothing here" in done.stderr


@pytest.mark.parametrize("settings, kind, said", [
    ({"num_train_epochs": 0}, UsageError, "nothing would be trained"),
    ({"fp16": True}, UsageError, "--fp16 needs an accelerator"),
    ({"report_to": "clearml"}, EnvironmentFault, "pip install clearml"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(
    settings: dict, kind: type, said: str, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        finetune(model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), **settings)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
@pytest.mark.fault(63)
def test_a_missing_launcher_is_named(tmp_path: Path) -> None:
    from hf_tuner.config import Run

    with pytest.raises(EnvironmentFault, match=r"zero3.yaml needs DeepSpeed: pip install"):
        run_processes(Run(accelerate_config="zero3", output_dir=str(tmp_path)), Path("recipe.py"), [])


def test_all_right_of_few_rows_is_not_certain() -> None:
    import numpy as np

    score = scores_with_intervals("single", np.eye(3)[[0, 1, 2] * 16] * 9, np.array([0, 1, 2] * 16))["accuracy"]
    assert score["value"] == 1.0 and score["low"] == pytest.approx(0.926, abs=0.002) and score["high"] == 1.0


def test_warnings_about_the_data_reach_those_who_read_later(tiny_model: Path, tmp_path: Path) -> None:
    from conftest import write_rows

    rows = write_rows(tmp_path / "train.csv", 48, seed=1).read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join(rows[:25]) + "\n")
    finetune(model=str(tiny_model), dataset=str(tmp_path), output_dir=str(tmp_path / "run"), max_steps=2, verify=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert any("stand in train too" in w for w in manifest["data"]["warnings"])
    assert not any(rows[1].split(",")[0] in w for w in manifest["data"]["warnings"])
    for name in ("README.md", "report.html"):
        assert "stand in train too" in (tmp_path / "run" / name).read_text(), name


def test_overwriting_a_run_takes_its_merged_model_along(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    from hf_tuner import merge

    settings = {
        "model": str(tiny_model),
        "dataset": str(tiny_data),
        "output_dir": str(tmp_path / "run"),
        "max_steps": 2,
    }
    finetune(**settings, verify=False)
    merge(tmp_path / "run")
    finetune(**settings, verify=False, overwrite=True)
    assert not (tmp_path / "run" / "merged").exists()


def test_plan_counts_what_the_run_trains(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = ["--method", "lora", "--model", str(tiny_model), "--dataset", str(tiny_data), "--pooling", "mean"]
    planned = plan(flags.parse([*words, "--output-dir", str(tmp_path / "plan")], {}))
    report = finetune(model=str(tiny_model), dataset=str(tiny_data), pooling="mean", output_dir=str(tmp_path / "run"),
                      max_steps=2, verify=False)  # fmt: skip
    trainable = report.parameters["trainable"]
    assert f"{trainable:,}" in planned.split("all ")[1].splitlines()[0]


def test_the_demo_answers_help() -> None:
    done = command("demo", "--help")
    assert done.returncode == 0 and "hf-tuner demo" in done.stdout
