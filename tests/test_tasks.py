"""What holds for every task: methods train and reload, cuts do not matter, doors agree, saved runs answer."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tasks
from conftest import command
from forks import forked
from safetensors.torch import load_file
from support_page import EXTRA, refusal
from tiny_tasks import Tiny

from hf_tuner import catalog, finetune
from hf_tuner.cli.main import main
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.evaluate import data_settings, evaluate
from hf_tuner.evaluation.predict import kept_of, predict
from hf_tuner.evaluation.verify import compare, held_rows
from hf_tuner.models.restore import restore

ROOT = Path(__file__).parent.parent
TASKS = catalog.names("tasks")
METHODS = catalog.names("methods")
QUICK = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "warmup_steps": 0}
SGD = {"optim": "sgd", "learning_rate": 0.05, "warmup_steps": 0, "max_grad_norm": 0, "weight_decay": 0, "num_train_epochs": 1,
       "way_in": "random", "probe_rows": 0, "verify": False, "lr_scheduler_type": "constant", "save_strategy": "no",
       "bf16": False, "logging_steps": 1}  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Task → its tiny set-up, made once."""
    made: dict[str, Tiny] = {}

    def get(task: str) -> Tiny:
        if task not in made:
            made[task] = tiny_tasks.make(task, tmp_path_factory.mktemp("tiny") / task)
        return made[task]

    return get


@pytest.fixture(scope="session")
def finished(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Task and method → the folder of a finished, verified run."""
    made: dict[tuple[str, str], Path] = {}

    def get(task: str, method: str = "lora") -> Path:
        if (task, method) not in made:
            folder = tmp_path_factory.mktemp("runs") / f"{task}-{method}"
            train(task, method, tiny(task), folder, **QUICK)
            made[task, method] = folder
        return made[task, method]

    return get


def train(task: str, method: str, tiny: Tiny, folder: Path, **settings: Any) -> Any:
    known = {**tiny.settings, **EXTRA.get(method, {}), **settings}
    return finetune(task, model=str(tiny.model), dataset=str(tiny.data), method=method, output_dir=str(folder), **known)


def weights(folder: Path) -> dict[str, Any]:
    """Every tensor that a run saved."""
    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def held(folder: Path) -> Any:
    """The run's test rows without their answers."""
    saved = restore(folder)
    return held_rows(load_data(data_settings(folder, saved.task), type(saved.task))["test"], saved.task.targets)


def test_every_task_has_a_tiny_set_up_and_a_recipe() -> None:
    assert tiny_tasks.names() == TASKS == catalog.names("recipes")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_method_trains_and_reloads_to_the_same_bits_or_says_why_not(
    task: str, method: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    why = refusal(task, method)
    if why:
        with pytest.raises(UsageError, match=re.escape(why)):
            train(task, method, tiny(task), tmp_path / "run", **QUICK, verify=False)
        return
    report = train(task, method, tiny(task), tmp_path / "run", **QUICK, verify=False)
    assert all(p["passed"] for p in report.proofs) and report.parameters["trainable"] > 0
    assert report.metrics["test"], "nothing was measured"
    first, again = restore(tmp_path / "run"), restore(tmp_path / "run")
    rows = held(tmp_path / "run")
    assert compare("twice", kept_of(first, rows)[0], kept_of(again, rows)[0], 0.0).passed


@pytest.mark.parametrize("task", TASKS)
def test_saved_run_is_verified_predicts_and_measures_itself_again(task: str, finished: Any) -> None:
    folder = finished(task)
    report = json.loads((folder / "report.json").read_text())
    assert next(p for p in report["proofs"] if p["name"] == "saved = measured")["passed"]
    split, rows, scores = evaluate(folder, split="test")
    assert split == "test" and rows > 0
    for name, score in scores.items():
        assert score["value"] == pytest.approx(report["metrics"]["test"][name]["value"], rel=1e-5), name
    given = held(folder)
    answers = predict(folder, given.to_list())
    assert len(answers) == len(given) and all(answers) and len({tuple(a) for a in answers}) == 1


@pytest.mark.parametrize("task", TASKS)
def test_predict_and_check_from_the_command_line(
    task: str, finished: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given = held(finished(task))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    monkeypatch.chdir(tmp_path)
    main(["predict", str(finished(task)), "--input", "rows.jsonl", "--output", "out.jsonl"])
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(written) == len(given) and set(written[0]) > set(given.column_names)
    main(["check", str(tiny(task).data), "--task", task, *flags(tiny(task).settings)])
    assert "nothing stands in the way" in capsys.readouterr().out


@pytest.mark.parametrize("task", TASKS)
def test_merged_model_answers_like_the_adapter(
    task: str, finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["merge", str(finished(task)), "--output", str(tmp_path / "merged")])
    assert "✓ merged = measured" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("task", TASKS)
def test_code_of_the_card_runs_when_pasted(task: str, method: str, finished: Any, tiny: Any, tmp_path: Path) -> None:
    from hf_tuner.hub.card import read_facts
    from hf_tuner.hub.usage import plain_code

    folder = finished(task, method)
    code = "\n".join(plain_code(read_facts(folder))).replace('"FOLDER"', repr(str(folder)))
    code = code.replace('"BASE"', repr(str(tiny(task).model)))
    (tmp_path / "pasted.py").write_text(code)
    done = forked(lambda: runpy.run_path(str(tmp_path / "pasted.py")))
    assert done.code == 0, f"{code}\n{done.text}"
    assert done.text.strip(), "the code prints no answer"


@pytest.mark.parametrize("task", TASKS)
def test_update_does_not_depend_on_how_a_batch_is_cut(task: str, tiny: Any, tmp_path: Path) -> None:
    setup = tiny(task)
    if not setup.additive:
        pytest.skip("the rows of a micro-batch are each other's negatives: a cut is another loss")
    where = ["--model", setup.model, "--dataset", setup.data, "--output-dir", tmp_path / "two"]
    for name, (batch, accumulate) in {"whole": (8, 1), "cut": (2, 4), "two": (4, 1)}.items():
        settings = {
            **SGD,
            **setup.settings,
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulate,
        }
        if name != "two":
            train(task, "full", setup, tmp_path / name, **settings)
            continue
        done = command("full", "--task", task, *where, *flags(settings), "--num-processes", 2)
        assert done.returncode == 0, done.stderr + done.stdout
    results = [weights(tmp_path / name) for name in ("whole", "cut", "two")]
    for other in results[1:]:
        assert results[0].keys() == other.keys()
        for key, value in results[0].items():
            np.testing.assert_allclose(other[key], value, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("task", TASKS)
def test_every_door_gives_the_same_bytes(task: str, tiny: Any, tmp_path: Path) -> None:
    setup = tiny(task)
    words = [
        "--model",
        str(setup.model),
        "--dataset",
        str(setup.data),
        *flags({**QUICK, **setup.settings, "verify": False}),
    ]
    recipe = ROOT / "recipes" / f"{task.replace('-', '_')}.py"
    main(["lora", "--task", task, *words, "--output-dir", str(tmp_path / "cli")])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", str(recipe)]  # fmt: skip
    done = subprocess.run([*launch, *words, "--output-dir", str(tmp_path / "launched")], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    names = ("cli", "launched")
    assert len({(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in names}) == 1


@pytest.mark.parametrize("task", TASKS)
def test_interrupted_run_goes_on_bit_for_bit(task: str, tiny: Any, tmp_path: Path) -> None:
    settings = {**QUICK, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "verify": False}
    train(task, "lora", tiny(task), tmp_path / "whole", **settings)
    train(task, "lora", tiny(task), tmp_path / "cut", **settings)
    for name in ("manifest.json", "report.json", "README.md", "adapter_model.safetensors"):
        (tmp_path / "cut" / name).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    train(task, "lora", tiny(task), tmp_path / "cut", **settings)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all((whole[key] == cut[key]).all() for key in whole)


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
