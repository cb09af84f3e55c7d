"""Targets, heads and prompts for language models and multiple choice, in every architecture the auto classes map."""

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from tiny_architectures import on_meta
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
)

from hf_tuner.errors import UsageError
from hf_tuner.methods._peft import task_type
from hf_tuner.models.load import whole_head
from hf_tuner.models.targets import find_targets, is_within
from hf_tuner.tasks.causal_lm import CausalLM
from hf_tuner.tasks.masked_lm import MaskedLM
from hf_tuner.tasks.multiple_choice import MultipleChoice

TASKS: dict[str, tuple[Any, Any]] = {
    "causal-lm": (CausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "masked-lm": (MaskedLM, MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    "multiple-choice": (MultipleChoice, MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES),
}
NO_DEFAULT = "its default configuration builds no model"
UNREACHABLE: dict[tuple[str, str], tuple[type[BaseException], str]] = {
    ("causal-lm", "dbrx"): (AttributeError, NO_DEFAULT),
    ("causal-lm", "dots1"): (TypeError, NO_DEFAULT),
    ("causal-lm", "gemma3n"): (ValueError, "its layers share caches in an order that two layers do not have"),
    ("causal-lm", "gemma3n_text"): (ValueError, "its layers share caches in an order that two layers do not have"),
    ("causal-lm", "gemma4_assistant"): (StrictDataclassClassValidationError, NO_DEFAULT),
    ("causal-lm", "gemma4_unified_assistant"): (ValueError, "its layers share caches in an order that two do not have"),
    ("causal-lm", "lfm2_moe"): (TypeError, NO_DEFAULT),
    ("causal-lm", "musicgen"): (AttributeError, "it writes sound; its default configuration builds no model"),
    ("causal-lm", "musicgen_melody"): (AttributeError, "it writes sound; its default configuration builds no model"),
    ("causal-lm", "qwen4_exp"): (TypeError, NO_DEFAULT),
    ("causal-lm", "qwen4_exp_text"): (TypeError, NO_DEFAULT),
    ("causal-lm", "reformer"): (AssertionError, "its default configuration is that of an encoder"),
    ("masked-lm", "ibert"): (UsageError, "its linear layers are quantised ones of its own, which peft cannot wrap"),
    ("multiple-choice", "ibert"): (
        UsageError,
        "its linear layers are quantised ones of its own, which peft cannot wrap",
    ),
}
EVERY = [(task, name) for task, (_, names) in TASKS.items() for name in sorted(names)]
SUPPORTED = [pair for pair in EVERY if pair not in UNREACHABLE]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@cache
def found(task: str, model_type: str) -> tuple[Any, Any]:
    """A model on the meta device and its targets."""
    kind = TASKS[task][0]
    model = on_meta(model_type, auto=getattr(transformers, kind.auto_model))
    return model, find_targets(model, whole_head(model, kind()))


def test_the_lists_of_architectures_are_long() -> None:
    sizes = [len(names) for _, names in TASKS.values()]
    assert sizes[0] > 150 and sizes[1] > 40 and sizes[2] > 30
    assert set(UNREACHABLE) < set(EVERY) and len(UNREACHABLE) < 0.06 * len(EVERY)


@pytest.mark.parametrize(("task", "model_type"), UNREACHABLE)
def test_exceptions_are_still_needed(task: str, model_type: str) -> None:
    with pytest.raises(UNREACHABLE[task, model_type][0]):
        found(task, model_type)


@pytest.mark.parametrize(("task", "model_type"), SUPPORTED)
def test_every_block_is_adapted_and_the_output_layer_is_not(task: str, model_type: str) -> None:
    model, targets = found(task, model_type)
    assert len(targets.layers) >= (1 if model_type == "albert" else 2)  # ALBERT shares one block
    for layer in targets.layers:
        assert any(is_within(name, [layer]) for name in targets.selected), f"no target in {layer}"
    output = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if output is not None and module is output]
    assert not [name for name in names if is_within(name, targets.selected) or is_within(name, targets.layers)]
    if task == "multiple-choice":
        ones = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1]
        assert ones and all(is_within(name, targets.head) for name in ones)
        assert not [layer for layer in targets.layers if is_within(layer, targets.head)]
    else:
        assert targets.head == (), "a pretrained output layer is no new head"


@pytest.mark.parametrize(("task", "model_type"), SUPPORTED)
def test_prompt_methods_know_the_model_or_refuse_it(task: str, model_type: str) -> None:
    model, _ = found(task, model_type)
    if task == "multiple-choice":
        with pytest.raises(UsageError, match="prompt methods work on text models with a known head"):
            task_type(model)
    else:
        # BART is an encoder–decoder, XLM and FlauBERT call their output layer that of a language model.
        odd = {
            "bart": "SEQ_2_SEQ_LM",
            "mbart": "SEQ_2_SEQ_LM",
            "mvp": "SEQ_2_SEQ_LM",
            "xlm": "CAUSAL_LM",
            "flaubert": "CAUSAL_LM",
        }
        usual = {"causal-lm": "CAUSAL_LM", "masked-lm": odd.get(model_type, "FEATURE_EXTRACTION")}
        assert task_type(model) == usual[task]


@pytest.mark.parametrize(("task", "model_type"), SUPPORTED)
def test_lora_adapts_the_targets_alone(task: str, model_type: str) -> None:
    kind = TASKS[task][0]
    model = on_meta(model_type, auto=getattr(transformers, kind.auto_model))
    targets = find_targets(model, whole_head(model, kind()))
    config = LoraConfig(r=8, target_modules=list(targets.selected), modules_to_save=list(targets.head) or None)
    with torch.device("meta"):
        bare = get_peft_model(model, config, low_cpu_mem_usage=True).get_base_model()
    assert {n for n, m in bare.named_modules() if isinstance(m, LoraLayer)} == set(targets.selected)
    assert {n for n, m in bare.named_modules() if isinstance(m, ModulesToSaveWrapper)} == set(targets.head)
    trainable = [n for n, p in bare.named_parameters() if p.requires_grad]
    assert trainable and not [n for n in trainable if "lora_" not in n and not is_within(n, targets.head)]
