"""Head, blocks and targets are found in every architecture, and what is found trains and survives a reload."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from tiny_architectures import SEQUENCE_CLASSIFIERS, TINY, on_meta, tiny_config
from transformers import AutoModel, AutoModelForSequenceClassification, set_seed

from hf_tuner.config import Targets
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.models.head import head_modules, new_modules, pooler_modules
from hf_tuner.models.targets import find_targets, is_within

UNREACHABLE = {
    "ibert": (UsageError, "its linear layers are quantised ones of its own, which peft cannot wrap"),
    "layoutlmv2": (ImportError, "its vision part needs detectron2, which is not on any package index"),
}
SUPPORTED = [name for name in SEQUENCE_CLASSIFIERS if name not in UNREACHABLE]
LABELS = 3

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@cache
def found(model_type: str) -> tuple[Any, Targets]:
    """A model on the meta device and its targets. Tests that change the model build their own."""
    model = on_meta(model_type, LABELS)
    head = (*head_modules(model), *pooler_modules(model))
    return model, find_targets(model, head)


def test_the_list_of_architectures_is_long():
    assert len(SEQUENCE_CLASSIFIERS) > 100
    assert set(UNREACHABLE) < set(SEQUENCE_CLASSIFIERS)


@pytest.mark.parametrize("model_type", UNREACHABLE)
def test_exceptions_are_still_needed(model_type):
    with pytest.raises(UNREACHABLE[model_type][0]):
        found(model_type)


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_head_holds_what_gives_the_classes_and_no_block(model_type):
    model, targets = found(model_type)
    outputs = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features == LABELS]
    assert outputs
    assert all(is_within(name, targets.head) for name in outputs)
    assert not [layer for layer in targets.layers if is_within(layer, targets.head)]
    assert not [name for name in targets.head if is_within(name, targets.layers)]


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_every_block_has_targets_and_the_head_has_none(model_type):
    _, targets = found(model_type)
    assert len(targets.layers) >= (1 if model_type == "albert" else 2)  # ALBERT shares one block
    for layer in targets.layers:
        assert any(is_within(name, [layer]) for name in targets.selected), f"no target in {layer}"
    everything = (*targets.selected, *targets.linears, *targets.feedforward, *targets.norms)
    assert not [name for name in everything if is_within(name, targets.head)]


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_lora_adapts_the_targets_alone_and_trains_the_whole_head(model_type):
    model = on_meta(model_type, LABELS)
    targets = find_targets(model, (*head_modules(model), *pooler_modules(model)))
    config = LoraConfig(r=8, target_modules=list(targets.selected), modules_to_save=list(targets.head))
    with torch.device("meta"):
        bare = get_peft_model(model, config, low_cpu_mem_usage=True).get_base_model()
    assert {n for n, m in bare.named_modules() if isinstance(m, LoraLayer)} == set(targets.selected)
    wrapped = {n: m for n, m in bare.named_modules() if isinstance(m, ModulesToSaveWrapper)}
    assert set(wrapped) == set(targets.head)
    assert all(p.requires_grad for m in wrapped.values() for p in m.modules_to_save.parameters())
    trainable = [n for n, p in bare.named_parameters() if p.requires_grad]
    assert not [n for n in trainable if "lora_" not in n and not is_within(n, targets.head)]


@pytest.fixture(params=sorted(TINY))
def checkpoint(request: Any, tmp_path: Path) -> Path:
    """A saved backbone without a head."""
    set_seed(0)
    AutoModel.from_config(tiny_config(request.param)).save_pretrained(tmp_path / "base")
    return tmp_path


def load(folder: Path, seed: int) -> tuple[Any, set[str]]:
    set_seed(seed)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder / "base", num_labels=LABELS, output_loading_info=True
    )
    return model.eval(), set(info["missing_keys"])


def test_new_weights_are_exactly_the_missing_ones_and_survive_a_reload(checkpoint):
    model, missing = load(checkpoint, seed=1)
    new = new_modules(model, missing)
    assert missing
    assert {n for n, _ in model.named_parameters() if is_within(n, new)} == missing

    targets = find_targets(model, new)
    config = LoraConfig(r=2, target_modules=list(targets.selected), modules_to_save=list(new), init_lora_weights=False)
    adapted = get_peft_model(model, config).eval()
    inputs = torch.randint(3, 99, (2, 12), generator=torch.Generator().manual_seed(3))
    inputs[:, -1] = 2  # the end-of-sequence token, where BART and T5 read the answer
    logits = adapted(input_ids=inputs).logits
    adapted.save_pretrained(checkpoint / "adapter")

    other, _ = load(checkpoint, seed=2)
    assert not torch.equal(other(input_ids=inputs).logits, logits)
    again = PeftModel.from_pretrained(other, str(checkpoint / "adapter")).eval()
    assert torch.equal(again(input_ids=inputs).logits, logits)


@pytest.mark.parametrize(
    ("model_type", "missing", "expected"),
    [
        ("bert", ["classifier.weight", "classifier.bias"], ("classifier",)),
        (
            "bert",
            ["classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"],
            ("bert.pooler", "classifier"),
        ),
        ("roberta", ["classifier.dense.weight", "classifier.dense.bias"], ("classifier.dense",)),
        ("roberta", ["classifier.out_proj.bias"], ("classifier.out_proj",)),
        ("xlnet", ["model.logits_proj.weight", "logits_proj.bias"], ("logits_proj",)),
        ("bert", ["pooler.dense.weight", "pooler.dense.bias"], ("bert.pooler",)),
        ("perceiver", ["perceiver.decoder.decoder.final_layer.weight"], ("perceiver.decoder.decoder.final_layer",)),
        ("bert", [], ()),
    ],
)
def test_new_modules_are_the_highest_that_are_all_new(model_type, missing, expected):
    assert new_modules(found(model_type)[0], missing) == expected


def test_missing_weights_of_a_block_are_refused():
    with pytest.raises(ArtifactError, match=r"bert\.encoder\.layer\.1"):
        new_modules(found("bert")[0], ["classifier.weight", "bert.encoder.layer.1.output.dense.weight"])


def test_names_that_end_like_another_module_are_opened():
    class Toy(torch.nn.Module):
        base_model_prefix = "model"
        config = None

        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.ModuleDict({"attention_head": torch.nn.Linear(4, 4)})
            self.head = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, LABELS))
            self.norm = torch.nn.LayerNorm(4)
            self.top = torch.nn.ModuleDict({"top": torch.nn.Linear(4, 4)})
            self.boxes = torch.nn.ModuleList([torch.nn.Linear(4, 4)])

    # "head" would also match model.attention_head, "top" its own child; a ModuleList cannot be wrapped.
    assert head_modules(Toy()) == ("head.0", "head.1", "top.top", "boxes.0")
