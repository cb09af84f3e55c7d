"""The verbs around a run, as a user types them."""

import csv
import json
from pathlib import Path

import pytest
from conftest import command, write_rows

from hf_tuner import finetune


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    finetune(model=str(tiny_model), dataset=str(tiny_data), method="lora", output_dir=str(folder), max_steps=60,
             per_device_train_batch_size=8, learning_rate=3e-3, verify=False)  # fmt: skip
    return folder


def test_a_run_folder_holds_what_the_contract_says(run: Path) -> None:
    names = {"run.yaml", "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "manifest.json",
             "report.json", "report.html", "log.jsonl"}  # fmt: skip
    assert names <= {p.name for p in run.iterdir()}
    assert not list(run.rglob("training_args.bin")) and not (run / ".lock").exists()
    report = json.loads((run / "report.json").read_text())
    keys = {"task", "method", "model", "dataset", "metrics", "baselines", "rows", "proofs", "time", "memory", "parameters",
            "files", "versions", "command"}  # fmt: skip
    assert keys <= set(report)
    assert {"value", "low", "high"} <= set(report["metrics"]["test"]["accuracy"])
    assert {"majority", "probe"} <= set(report["baselines"])


def test_predict_keeps_the_columns_and_names_the_labels(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text("id,text\n1,cold rain and storm\n2,bread and soup\n3,\n")
    done = command("predict", run, "--input", source, "--output", tmp_path / "out.csv", "--probabilities")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "text", "prediction", "score", "food", "sport", "weather"]
    assert [r["id"] for r in rows] == ["1", "2", "3"]
    assert "1 of 3 texts are empty" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr  # no load report, no bars: the manifest is verified instead
    for row in rows:
        scores = {c: float(row[c]) for c in ("food", "sport", "weather")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == max(scores, key=scores.get) and float(row["score"]) == max(scores.values())


def test_evaluate_says_what_training_said(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    expected = json.loads((run / "report.json").read_text())["metrics"]["test"]["accuracy"]
    for words in ([], ["--dataset", tiny_data / "test.csv"]):
        done = command("evaluate", run, *words, "--output", tmp_path / "scores.json")
        assert done.returncode == 0, done.stderr
        (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
        assert scores["accuracy"] == expected


def test_evaluate_refuses_labels_the_model_does_not_know(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nrain,weather\nball,sprot\n")
    done = command("evaluate", run, "--dataset", other)
    assert done.returncode == 2 and 'did you mean "sport"' in done.stderr


def test_evaluate_calls_a_file_by_its_name(run: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "fresh.csv", 12)
    done = command("evaluate", run, "--dataset", rows)
    assert done.returncode == 0 and "12 rows of fresh.csv" in done.stdout
    (tmp_path / "bad.csv").write_text("text,label\nrain,weather\nball,sprot\n")
    assert f"{tmp_path / 'bad.csv'}: " in command("evaluate", run, "--dataset", tmp_path / "bad.csv").stderr


def test_check_names_row_and_cure_and_exits_2(tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    data.write_text("text,label\nrain,a\n,b\nball,b\nsun,a\n")
    done = command("check", data)
    assert done.returncode == 2
    assert "train.csv" in done.stderr and "row 3" in done.stderr and "--drop-empty" in done.stderr
    assert command("check", write_rows(tmp_path / "good.csv", 30)).returncode == 0


def test_plan_needs_no_weights_of_the_model(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    done = command("plan", "lora", "--model", tiny_model, "--dataset", tiny_data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("adapter", "head", "memory: sum", "time here", "will be saved"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_init_writes_a_run_that_parses(tiny_data: Path, tmp_path: Path) -> None:
    from hf_tuner import flags

    done = command("init", tiny_data, "--output", tmp_path / "run.yaml")
    assert done.returncode == 0, done.stderr
    run = flags.parse(["--config", str(tmp_path / "run.yaml")], {})
    assert run.dataset == str(tiny_data) and run.method == "lora"


def test_env_tells_versions_and_features() -> None:
    done = command("env")
    assert done.returncode == 0, done.stderr
    assert "transformers" in done.stdout and "qlora" in done.stdout and "offline" in done.stdout


def test_a_finished_run_is_not_overwritten(run: Path, tiny_model: Path, tiny_data: Path) -> None:
    before = (run / "adapter_model.safetensors").read_bytes()
    done = command("lora", "--model", tiny_model, "--dataset", tiny_data, "--output-dir", run)
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (run / "adapter_model.safetensors").read_bytes() == before


def test_another_base_of_the_same_shape_is_refused(run: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    manifest = json.loads((run / "manifest.json").read_text())
    other = tmp_path / "other"
    model = AutoModel.from_pretrained(manifest["base"]["id"])
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.add_(0.1)
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(manifest["base"]["id"]).save_pretrained(other)
    moved = tmp_path / "run"
    import shutil

    shutil.copytree(run, moved)
    manifest["base"]["id"] = str(other)
    (moved / "manifest.json").write_text(json.dumps(manifest))
    done = command("evaluate", moved)
    assert done.returncode == 4 and "fingerprint" in done.stderr


@pytest.mark.fault(60)
def test_the_hub_out_of_reach_is_named_quickly(tmp_path: Path) -> None:
    done = command(
        "lora", cwd=tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf")
    )
    assert done.returncode == 3
    assert "--model google-bert/bert-base-uncased" in done.stdout and "--dataset stanfordnlp/imdb" in done.stdout
    assert "--model demo --dataset demo" in done.stderr
