"""What plan and init say is what the run does: what trains, what is saved, and at what rate."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import command
from hub_server import Hub
from tiny_tasks import Tiny
from transformers import BertConfig, BertForMaskedLM, ViTForImageClassification

from hf_tuner import finetune, flags
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.tasks.image_classification import ImageClassification
from hf_tuner.training.footprint import Footprint, counted, footprint
from hf_tuner.training.plan import on_meta, plan


def told(text: str) -> tuple[int, float]:
    """Trainable parameters and learning rate of a plan."""
    trains = text.split("\nall ")[1].split("\n")[0].split()[1]
    rate = re.search(r"learning rate +(\S+)", text)
    assert rate
    return int(trains.replace(",", "")), float(rate[1])


def rate_of(folder: Path) -> float:
    return float(json.loads((folder / "manifest.json").read_text())["training"]["learning_rate"])


@pytest.mark.parametrize("task", ["masked-lm", "token-classification", "causal-lm"])
def test_plan_says_what_the_run_does(task: str, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """masked-lm on an encoder without a layer for words, a new head that no probe knows, and a model that lacks nothing."""
    made = tiny(task)
    settings: dict[str, Any] = {**made.settings, "model": str(made.model), "dataset": str(made.data), "max_steps": 1}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    planned = plan(flags.parse(["--task", task, "--method", "lora", "--output-dir", "x", *words], {}))
    report = finetune(task, **settings, output_dir=str(tmp_path / "run"), verify=False)
    assert told(planned) == (report.parameters["trainable"], rate_of(tmp_path / "run"))
    saved = re.search(r"will be saved +(\S+) MB", planned)
    assert saved and abs(float(saved[1]) - report.parameters["saved_bytes"] / 1e6) < 0.1


def test_plan_names_both_ends_where_the_probe_decides(tiny_model: Path, tiny_data: Path) -> None:
    words = ["--method", "full", "--model", str(tiny_model), "--dataset", str(tiny_data), "--output-dir", "x"]
    assert "0.0006 for full at" in plan(flags.parse(words, {}))
    assert "down to 0.0002 where frozen features know the task" in plan(flags.parse(words, {}))
    assert "0.01 as given" in plan(flags.parse([*words, "--learning-rate", "0.01"], {}))


def test_init_writes_the_rate_of_the_plan(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    made = tiny("masked-lm")
    words = ["--task", "masked-lm", "--model", made.model]
    done = command("init", made.data, *words, "--output", tmp_path / "run.yaml")
    assert done.returncode == 0, done.stderr
    planned = command("plan", "lora", *words, "--dataset", made.data, "--block-size", "32").stdout
    assert f"# learning_rate: {told(planned)[1]:g} " in (tmp_path / "run.yaml").read_text()


def test_init_gives_no_rate_of_a_model_it_cannot_read(tiny_data: Path, tmp_path: Path) -> None:
    done = command("init", tiny_data, "--model", "nobody/nothing", "--output", tmp_path / "run.yaml")
    assert done.returncode == 0 and "# learning_rate: null" in (tmp_path / "run.yaml").read_text()


def test_plan_reads_the_heads_of_weights_on_the_hub(there: Hub, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """Of the weights of a model that is not here only the first bytes are fetched."""
    made = tiny("masked-lm")
    for name, folder in {"bare": made.model, "whole": _with_words(made.model, tmp_path / "whole")}.items():
        there.create("model", f"alice/{name}", files={p.name: p.read_bytes() for p in folder.iterdir()})
    found = {}
    for name in ("bare", "whole"):
        words = ["--task", "masked-lm", "--model", f"alice/{name}", "--dataset", str(made.data), "--block-size", "32"]
        found[name] = told(plan(flags.parse([*words, "--method", "lora", "--output-dir", "x"], {})))
    local = ["--task", "masked-lm", "--model", str(made.model), "--dataset", str(made.data), "--block-size", "32"]
    assert found["bare"] == told(plan(flags.parse([*local, "--method", "lora", "--output-dir", "x"], {})))
    assert found["whole"][0] < found["bare"][0] and found["whole"][1] < found["bare"][1]
    weights = [r for r in there.journal if r["path"].endswith("model.safetensors") and r["method"] == "GET"]
    assert weights and all(r["range"] for r in weights)


def _with_words(model: Path, folder: Path) -> Path:
    """The same encoder with its layer for words."""
    import shutil

    shutil.copytree(model, folder)
    BertForMaskedLM(BertConfig.from_pretrained(model)).save_pretrained(folder)
    return folder


def of_pictures(tiny: Any, method: str, folder: Path) -> Run:
    """A run on the tiny pictures, of three passes."""
    made = tiny("image-classification")
    return flags.parse(["--task", "image-classification", "--model", str(made.model), "--dataset", str(made.data),
                        "--method", method, "--num-train-epochs", "3", "--output-dir", str(folder)], {})  # fmt: skip


def test_plan_counts_what_a_picture_costs(tiny: Any, tmp_path: Path) -> None:
    """Operations and memory of the laid out model are those of the real one."""
    run = of_pictures(tiny, "full", tmp_path)
    data = load_data(run, ImageClassification)
    task = ImageClassification.from_data(data, run)
    found = footprint(run, task, data["train"], on_meta(run, task))
    model = ViTForImageClassification.from_pretrained(run.model, num_labels=3).train()
    flops, kept = counted(model, {"pixel_values": torch.rand(2, 3, 32, 32)})
    assert isinstance(found, Footprint) and (found.shape, found.flops) == ("32 × 32", flops / 2)
    assert found.kept == pytest.approx(kept / 2, rel=0.1)  # attention is another kernel there
    planned = plan(run)
    assert f"32 × 32 pixels, {flops / 2:.1e} floating-point" in planned and "tokens per row" not in planned


def test_what_is_frozen_costs_a_forward_pass_and_a_probe_one_of_them(tiny: Any, tmp_path: Path) -> None:
    """Full: forward and twice that back, three times 24 rows; the probe: forward, 24 rows, and next to nothing back."""
    done = {}
    for method in ("full", "head-only"):
        text = plan(of_pictures(tiny, method, tmp_path))
        forward, whole = (float(re.search(rf"{words}", text)[1]) for words in (r"pixels, (\S+) ", r"compute +(\S+)"))  # type: ignore[index]
        done[method] = whole / forward
    assert done["full"] == pytest.approx(3 * 24 * 3, rel=0.05)
    assert done["head-only"] == pytest.approx(24, rel=0.05)


def test_a_linear_layer_keeps_its_inputs_and_multiplies_and_adds() -> None:
    layer = torch.nn.Linear(8, 4, device="meta")
    assert counted(layer, {"input": torch.empty(3, 8, device="meta")}) == (2 * 3 * 8 * 4, 4 * 3 * 8)


def test_what_a_model_that_looks_at_numbers_costs_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, tiny: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(ViTForImageClassification, "forward", lambda self, pixel_values: pixel_values.sum().item())
    said = plan(of_pictures(tiny, "full", tmp_path))
    assert "not estimated: its forward pass cannot be laid out without numbers (Tensor.item()" in said
