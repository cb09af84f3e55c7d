"""Numbers that are silently wrong elsewhere: they stop the run here, or cannot happen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command, write_rows
from safetensors.torch import load_file

from hf_tuner import finetune
from hf_tuner.config import Run
from hf_tuner.models.restore import restore

QUICK = ("--per-device-train-batch-size", "8", "--save-strategy", "no")


def test_a_diverging_run_stops_with_exit_5_and_names_step_and_rows(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = command("full", "--model", tiny_model, "--dataset", tiny_data, "--output-dir", tmp_path / "run", *QUICK,
                   "--learning-rate", "1e30", "--max-grad-norm", "0", "--warmup-steps", "0")  # fmt: skip
    assert done.returncode == 5, done.stdout + done.stderr
    assert "diverged" in done.stderr and "at step" in done.stderr and "training rows" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("method", ["full", "lora", "head-only"])
@pytest.mark.fault(31)
def test_what_is_saved_is_what_was_measured_in_a_fresh_process(
    method: str, tiny_model: Path, tiny_data: Path, tmp_path: Path, fresh_process: None
) -> None:
    report = finetune(
        model=str(tiny_model), dataset=str(tiny_data), method=method, output_dir=str(tmp_path / "run"), max_steps=2
    )
    proof = next(p for p in report.proofs if p["name"] == "saved = measured")
    assert proof["passed"] and "the same bits" in proof["detail"]


@pytest.mark.fault(31)
def test_a_damaged_save_is_found(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from safetensors.torch import save_file

    from hf_tuner.evaluation.predict import kept_of
    from hf_tuner.evaluation.verify import held_rows, same_predictions

    folder = tmp_path / "run"
    finetune(
        model=str(tiny_model), dataset=str(tiny_data), method="full", output_dir=str(folder), max_steps=2, verify=False
    )
    rows = held_rows(Dataset.from_dict({"text": ["rain and snow", "a goal", "cheese"]}))
    measured, _ = kept_of(restore(folder), rows)
    assert same_predictions(measured, folder, rows, 0.0).passed
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"] + 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert not same_predictions(measured, folder, rows, 0.0).passed


def test_what_is_measured_after_autocast_is_what_a_clean_process_measures(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    report = finetune(model=str(tiny_model), dataset=str(tiny_data), method="full", output_dir=str(tmp_path / "run"),
                      max_steps=4, bf16=True)  # fmt: skip
    proof = next(p for p in report.proofs if p["name"] == "saved = measured")
    assert proof["passed"] and "the same bits" in proof["detail"]


@pytest.mark.fault(33)
def test_a_bf16_checkpoint_is_trained_in_float32(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    half = tmp_path / "half"
    before = AutoModel.from_pretrained(tiny_model).to(torch.bfloat16)
    before.save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(half)
    report = finetune(model=str(half), dataset=str(tiny_data), method="full", output_dir=str(tmp_path / "run"), max_steps=20,
                      learning_rate=2e-5, way_in="random", verify=False)  # fmt: skip
    assert next(p for p in report.proofs if p["name"] == "trainable weights are float32")["passed"]
    after = load_file(tmp_path / "run" / "model.safetensors")
    layers = [(k, v) for k, v in before.float().state_dict().items() if ".layer." in k and k.endswith("weight")]
    changed = torch.cat([(after[f"bert.{k}"] != v).flatten() for k, v in layers]).float().mean()
    assert len(layers) > 10 and changed > 0.95


@pytest.mark.fault(34)
def test_labels_in_another_order_reorder_the_head_of_a_checkpoint(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    finetune(model=str(tiny_model), dataset=str(tiny_data), method="full", output_dir=str(first), num_train_epochs=12,
             learning_rate=3e-3, per_device_train_batch_size=8, verify=False)  # fmt: skip
    config = json.loads((first / "config.json").read_text())
    order = [2, 0, 1]
    names = [config["id2label"][str(i)] for i in order]
    config["id2label"] = {str(i): n for i, n in enumerate(names)}
    config["label2id"] = {n: i for i, n in enumerate(names)}
    weights = load_file(first / "model.safetensors")
    from safetensors.torch import save_file

    for key in ("classifier.weight", "classifier.bias"):
        weights[key] = weights[key][order].contiguous()
    save_file(weights, first / "model.safetensors", metadata={"format": "pt"})
    (first / "config.json").write_text(json.dumps(config))
    report = finetune(model=str(first), dataset=str(tiny_data), method="full", output_dir=str(tmp_path / "second"), max_steps=1,
                      learning_rate=1e-9, warmup_steps=0, verify=False)  # fmt: skip
    trained = json.loads((first / "report.json").read_text())["metrics"]["test"]["accuracy"]["value"]
    assert trained > 0.8
    assert report.metrics["test"]["accuracy"]["value"] == pytest.approx(trained)


@pytest.mark.fault(29, 36)
def test_evaluation_loss_is_the_same_with_two_processes(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, rows in (("train", 24), ("validation", 7), ("test", 5)):
        write_rows(data / f"{split}.csv", rows, seed=len(split))
    losses = []
    for processes, batch in ((1, 8), (2, 4)):
        folder = tmp_path / f"run{processes}"
        done = command("full", "--model", tiny_model, "--dataset", data, "--output-dir", folder, "--num-processes", processes,
                       "--per-device-train-batch-size", batch, "--max-steps", 3, "--no-verify", "--bf16", "false",
                       "--dataloader-drop-last", "true")  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        losses.append(next(entry["eval_loss"] for entry in log if "eval_loss" in entry))
        report = json.loads((folder / "report.json").read_text())
        seen = next(p for p in report["proofs"] if p["name"] == "every row was evaluated")
        assert "validation 7 of 7" in seen["detail"] and "test 5 of 5" in seen["detail"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('bitsandbytes')")
@pytest.mark.fault(32)
def test_merging_qlora_prints_the_drift_and_refuses_past_the_tolerance(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    finetune(
        model=str(tiny_model), dataset=str(tiny_data), method="qlora", output_dir=str(folder), max_steps=4, verify=False
    )
    refused = command("merge", folder, "--output", tmp_path / "merged")
    assert refused.returncode == 4, refused.stdout + refused.stderr
    assert "largest difference" in refused.stdout and "--force" in refused.stderr
    assert not (tmp_path / "merged" / "model.safetensors").exists()
    forced = command("merge", folder, "--output", tmp_path / "merged", "--force")
    assert forced.returncode == 0 and (tmp_path / "merged" / "model.safetensors").exists()


@pytest.mark.fault(31)
def test_merging_lora_gives_the_same_predictions(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finetune(
        model=str(tiny_model), dataset=str(tiny_data), method="lora", output_dir=str(folder), max_steps=4, verify=False
    )
    done = command("merge", folder)
    assert done.returncode == 0, done.stderr
    assert "✓ merged = measured" in done.stdout
    merged = command("evaluate", folder / "merged")
    assert merged.returncode == 0 and "accuracy" in merged.stdout


def losses(folder: Path) -> list[float]:
    """Every loss that a run logged."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.parametrize("task, accelerator, cores, workers", [
    ("image-classification", True, 12, 5), ("object-detection", True, 64, 8), ("image-classification", True, 1, 0),
    ("image-classification", False, 12, 0), ("text-classification", True, 12, 0),
])  # fmt: skip
def test_pictures_are_opened_by_others_where_an_accelerator_trains(
    task: str, accelerator: bool, cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_tuner.training.arguments import decoders

    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert decoders(Run(task=task), accelerator) == workers


@pytest.mark.parametrize("workers, how", [(0, None), (2, "fork")])
def test_data_workers_are_forked_whatever_python_does_by_itself(workers: int, how: str | None, tmp_path: Path) -> None:
    """What makes batches cannot be sent to a process that is started anew, as Python 3.14 would."""
    from hf_tuner.training.arguments import training_arguments

    run = Run(method="full", output_dir=str(tmp_path), training={"dataloader_num_workers": workers})
    assert training_arguments(run, 1_000, 10, False).dataloader_multiprocessing_context == how


@pytest.mark.fault(42)
def test_workers_change_nothing_and_threads_next_to_nothing(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    settings = {"model": str(tiny_model), "dataset": str(tiny_data), "method": "full", "max_steps": 6, "verify": False,
                "per_device_train_batch_size": 8, "logging_steps": 1, "probe_rows": 0, "way_in": "random", "save_strategy": "no",
                "bf16": False}  # fmt: skip
    before = torch.get_num_threads()
    try:
        for name, threads, workers in (("plain", 1, 0), ("one", 1, 1), ("two", 1, 2), ("threads", 2, 0)):
            torch.set_num_threads(threads)
            finetune(output_dir=str(tmp_path / name), dataloader_num_workers=workers, **settings)
    finally:
        torch.set_num_threads(before)
    plain = losses(tmp_path / "plain")
    assert len(plain) == 6 and len(set(plain)) == 6
    assert losses(tmp_path / "one") == losses(tmp_path / "two") == plain
    assert losses(tmp_path / "threads") == pytest.approx(plain, rel=1e-6)


@pytest.mark.fault(38)
def test_added_tokens_and_shared_embeddings_come_back_as_they_were(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer, BartConfig, BartModel

    from hf_tuner.evaluation.predict import kept_of

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["parcel42", "<url>"])
    base = tmp_path / "base"
    tokenizer.save_pretrained(base)
    torch.manual_seed(0)
    eos = tokenizer.sep_token_id  # a BART classifier reads the last one of each text
    config = BartConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
                        pad_token_id=tokenizer.pad_token_id, bos_token_id=2, eos_token_id=eos, decoder_start_token_id=eos,
                        forced_eos_token_id=eos)  # fmt: skip
    BartModel(config).save_pretrained(base)
    rows = Dataset.from_dict({"text": ["rain parcel42 snow", "<url> cheese"]})
    for method in ("full", "lora"):
        folder = tmp_path / method
        report = finetune(model=str(base), dataset=str(tiny_data), method=method, output_dir=str(folder), max_steps=2,
                          way_in="random", probe_rows=0, learning_rate=1e-2, verify=method == "full")  # fmt: skip
        assert method != "full" or next(p for p in report.proofs if p["name"] == "saved = measured")["passed"]
        saved = restore(folder)
        assert saved.processor(rows["text"][:])["input_ids"] == tokenizer(rows["text"][:])["input_ids"]
        assert len(saved.processor) == len(tokenizer)
        model = saved.model.get_base_model() if method == "lora" else saved.model
        assert torch.equal(model.model.shared.weight, model.model.decoder.embed_tokens.weight)
        assert len(model.model.shared.weight) == len(tokenizer)
        assert np.shape(kept_of(saved, rows)[0]) == (2, 3)
