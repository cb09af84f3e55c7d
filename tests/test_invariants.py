"""What must not depend on how the work is cut: batches, accumulation, processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command, sentence, write_rows
from safetensors.torch import load_file
from torch.utils.data import BatchSampler

from hf_tuner import finetune
from hf_tuner.training.batching import LengthBatches

CUTS = {"8x1": (8, 1), "4x2": (4, 2), "2x4": (2, 4)}
SGD = ("--optim", "sgd", "--learning-rate", "0.1", "--warmup-steps", "0", "--max-grad-norm", "0", "--weight-decay", "0",
       "--num-train-epochs", "1", "--way-in", "random", "--probe-rows", "0", "--no-verify", "--logging-steps", "1",
       "--lr-scheduler-type", "constant", "--save-strategy", "no", "--bf16", "false")  # fmt: skip


def train(
    method: str, model: Path, data: Path, folder: Path, batch: int, accumulate: int, *extra: str
) -> dict[str, torch.Tensor]:
    """Weights that a run of a method saves."""
    words = ["--model", model, "--dataset", data, "--output-dir", folder, "--per-device-train-batch-size", batch,
             "--gradient-accumulation-steps", accumulate, *SGD, *extra]  # fmt: skip
    done = command(method, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    return load_file(folder / name)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and len(one) > 0
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-5, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.fault(29)
def test_update_does_not_depend_on_how_a_batch_is_cut(method: str, tiny_model: Path, tmp_path: Path) -> None:
    # 20 rows: the last update is ragged (4 of 8), which is where a mean of means goes wrong.
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.csv", 20)
    write_rows(data / "test.csv", 6, seed=5)
    extra = ["--lora-dropout", "0"] if method == "lora" else []
    whole = train(method, tiny_model, data, tmp_path / "a", 8, 1, *extra)
    cut = train(method, tiny_model, data, tmp_path / "b", 2, 4, *extra)
    two = train(method, tiny_model, data, tmp_path / "c", 4, 1, "--num-processes", "2", *extra)
    assert_same(whole, cut)
    assert_same(whole, two)


@pytest.mark.parametrize("problem", ["multi", "regression"])
@pytest.mark.fault(29)
def test_neither_do_update_and_loss_of_other_heads(problem: str, tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    random = np.random.default_rng(0)
    rows = [
        {"text": sentence(random, "food"), "label": ["a", "bc"[i % 2]] if problem == "multi" else i / 7}
        for i in range(20)
    ]
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    weights, logs = [], []
    for batch, accumulate in CUTS.values():
        folder = tmp_path / f"{batch}x{accumulate}"
        finetune(model=str(tiny_model), dataset=str(data), method="full", output_dir=str(folder), optim="sgd", learning_rate=0.1,
                 max_grad_norm=0, weight_decay=0, warmup_steps=0, lr_scheduler_type="constant", num_train_epochs=1, way_in="random",
                 probe_rows=0, verify=False, bf16=False, logging_steps=1, save_strategy="no",
                 per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate)  # fmt: skip
        weights.append(load_file(folder / "model.safetensors"))
        entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        logs.append([entry["loss"] for entry in entries if "loss" in entry])
    assert len(logs[0]) == 3
    for other, log in zip(weights[1:], logs[1:], strict=True):
        assert_same(weights[0], other)
        assert log == pytest.approx(logs[0], rel=1e-5)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.fault(29)
def test_every_cut_deals_the_same_rows_to_the_same_update(cut: str) -> None:
    batch, accumulate = CUTS[cut]
    lengths = np.random.default_rng(0).integers(3, 40, 100)
    order = LengthBatches(lengths, update=8, seed=3)
    updates = [sorted(b) for b in BatchSampler(order, 8, drop_last=False)]
    micro = list(BatchSampler(LengthBatches(lengths, update=batch * accumulate, seed=3), batch, drop_last=False))
    joined = [sorted(np.concatenate(micro[i : i + accumulate]).tolist()) for i in range(0, len(micro), accumulate)]
    assert joined == updates
    assert sorted(np.concatenate(updates).tolist()) == list(range(100))


def test_order_changes_with_the_epoch_and_repeats_with_the_seed() -> None:
    order = LengthBatches(np.arange(64), update=8, seed=1)
    first = order.order()
    order.set_epoch(1)
    second = order.order()
    order.set_epoch(0)
    assert first != second and order.order() == first == list(order)


def test_batches_hold_texts_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 3200)
    batches = list(BatchSampler(LengthBatches(lengths, update=32, seed=0), 32, drop_last=False))
    padded = sum(32 * lengths[b].max() for b in batches)
    assert padded < 1.05 * lengths.sum()


@pytest.mark.fault(29)
def test_filler_rows_of_several_processes_are_masked() -> None:
    from datasets import Dataset

    from hf_tuner.training.batching import Rows

    rows = Rows(Dataset.from_dict({"input_ids": [[1], [2], [3]], "labels": [0, 1, 2]}))
    dealt = list(LengthBatches(np.array([1, 1, 1]), update=4, multiple=4, seed=0))
    assert sorted(dealt) == [0, 1, 2, 3]
    assert [r["labels"] for r in rows.__getitems__([2, 3])] == [2, -100]
