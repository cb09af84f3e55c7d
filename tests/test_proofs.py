"""The proofs fail when what they prove is broken."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_tuner import flags
from hf_tuner.errors import ProofError
from hf_tuner.models.load import load_model
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks.text_classification import TextClassification
from hf_tuner.training.proofs import Movement, before_training, require, total_parameters, trainable_table

TASK = TextClassification(labels=Labels("single", ("food", "sport", "weather"), ""))


def model_for(method: str, tiny_model: Path):
    run = flags.parse(["--model", str(tiny_model), "--method", method, "--output-dir", "x"], {})
    return load_model(run, TASK)


def failed(model, saves: str) -> list[str]:
    return [p.name for p in before_training(model, saves) if not p.passed]


@pytest.mark.parametrize(("method", "saves"), [("full", "model"), ("lora", "adapter"), ("bitfit", "adapter")])
def test_a_sound_model_passes(method: str, saves: str, tiny_model: Path) -> None:
    assert failed(model_for(method, tiny_model), saves) == []


def test_a_frozen_head_is_found(tiny_model: Path) -> None:
    model = model_for("lora", tiny_model)
    model.base_model.model.classifier.modules_to_save["default"].requires_grad_(False)
    assert "new weights train" in failed(model, "adapter")


def test_a_head_that_would_not_be_saved_is_found(tiny_model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    bare = model_for("full", tiny_model)
    notes = bare.tuner_notes
    model = get_peft_model(bare, LoraConfig(target_modules=["query"]))
    model.tuner_notes = notes
    assert {"new weights will be saved", "new weights train"} <= set(failed(model, "adapter"))


def test_half_precision_that_trains_is_found(tiny_model: Path) -> None:
    model = model_for("full", tiny_model).to(torch.bfloat16)
    model.tuner_notes = model_for("full", tiny_model).tuner_notes
    assert "trainable weights are float32" in failed(model, "model")


def test_nothing_to_train_is_found(tiny_model: Path) -> None:
    model = model_for("full", tiny_model)
    model.requires_grad_(False)
    with pytest.raises(ProofError, match="something trains"):
        require(before_training(model, "model"))


def steps(model, change) -> Movement:
    """Three pretended updates: gradients everywhere that trains, then `change`."""
    moved = Movement(model)
    state = SimpleNamespace(global_step=0, max_steps=10)
    moved.on_train_begin(None, state, None)
    for _ in range(3):
        for p in model.parameters():
            if p.requires_grad:
                p.grad = torch.ones_like(p)
        moved.on_pre_optimizer_step(None, state, None)
        state.global_step += 1
        with torch.no_grad():
            change(model)
        moved.on_step_end(None, state, None)
    return moved


def all_move(model) -> None:
    for p in model.parameters():
        if p.requires_grad:
            p.add_(1e-3)


def test_moving_weights_pass(tiny_model: Path) -> None:
    assert [p.passed for p in steps(model_for("lora", tiny_model), all_move).proofs] == [True, True]


def test_a_weight_that_stands_still_is_found(tiny_model: Path) -> None:
    def all_but_head(model) -> None:
        for name, p in model.named_parameters():
            if p.requires_grad and "classifier" not in name:
                p.add_(1e-3)

    with pytest.raises(ProofError, match=r"stood still.*classifier"):
        steps(model_for("lora", tiny_model), all_but_head)


def test_a_frozen_weight_that_moves_is_found(tiny_model: Path) -> None:
    def base_too(model) -> None:
        all_move(model)
        model.base_model.model.bert.embeddings.word_embeddings.weight.add_(1e-3)

    with pytest.raises(ProofError, match=r"frozen weights did not move.*word_embeddings"):
        steps(model_for("lora", tiny_model), base_too)


def test_table_names_groups(tiny_model: Path) -> None:
    shown = trainable_table(model_for("lora", tiny_model))
    assert "adapter" in shown and "head" in shown and "frozen" in shown


@pytest.mark.parametrize(("method", "adapters"), [("full", 0), ("ln-tuning", 1), ("lora", 1)])
def test_table_takes_no_layer_for_an_adapter_by_its_name(method: str, adapters: int, tiny_model: Path) -> None:
    model = model_for(method, tiny_model)
    model.add_module("adapter_1", torch.nn.Linear(2, 2))
    groups = [line.split()[0] for line in trainable_table(model).splitlines() if line]
    assert groups.count("adapter") == adapters and "backbone" in groups


def test_the_frozen_copy_of_a_head_is_counted_once(tiny_model: Path) -> None:
    model = model_for("lora", tiny_model)
    copies = sum(p.numel() for name, p in model.named_parameters() if ".original_module." in name)
    every = sum(p.numel() for p in model.parameters())
    assert copies and total_parameters(model) == every - copies
    last = trainable_table(model).splitlines()[-1].split()
    assert last[:2] == ["all", f"{every - copies:,}"] and "not counted" in trainable_table(model)
