"""Blocks and targets are found in every encoder–decoder architecture that transformers maps, and nothing counts as a head."""

from functools import cache
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny_architectures import NEEDED, _shallow
from transformers import AutoModelForSeq2SeqLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from hf_tuner.config import Targets
from hf_tuner.methods._peft import task_type
from hf_tuner.models.head import new_modules
from hf_tuner.models.load import sketch_head
from hf_tuner.models.targets import find_targets, is_within

ALL = tuple(sorted(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES))
SUPPORTED = ALL
"""No architecture is left out; those that listen have a decoder alone for a text model."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def on_meta(model_type: str) -> Any:
    """A model of two layers a side on the meta device."""
    if model_type == "encoder-decoder":
        from transformers import BertConfig, EncoderDecoderConfig

        side = {"num_hidden_layers": 2}
        config: Any = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**side), BertConfig(**side))
    else:
        config = _shallow(CONFIG_MAPPING[model_type], NEEDED.get(model_type, {}))
    with torch.device("meta"):
        return AutoModelForSeq2SeqLM.from_config(config)


@cache
def found(model_type: str) -> tuple[Any, Targets]:
    model = on_meta(model_type)
    return model, find_targets(model, new_modules(model, []))


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_every_block_has_targets_and_the_output_layer_is_none(model_type: str) -> None:
    model, targets = found(model_type)
    sides = (
        2 if getattr(model.config, "is_encoder_decoder", False) else 1
    )  # speech models: what writes is a decoder alone
    assert len(targets.layers) >= 2 * sides, targets.layers
    for layer in targets.layers:
        assert any(is_within(name, [layer]) for name in targets.selected), f"no target in {layer}"
    output = model.get_output_embeddings()
    assert all(model.get_submodule(name) is not output for name in (*targets.selected, *targets.linears))
    assert targets.head == ()


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_lora_adapts_the_targets_alone(model_type: str) -> None:
    model = on_meta(model_type)
    targets = find_targets(model, ())
    with torch.device("meta"):
        bare = get_peft_model(model, LoraConfig(r=8, target_modules=list(targets.selected)), low_cpu_mem_usage=True)
    inner = bare.get_base_model()
    assert {n for n, m in inner.named_modules() if isinstance(m, LoraLayer)} == set(targets.selected)
    assert all("lora_" in n for n, p in inner.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_the_output_layer_stays_out_of_quantisation(model_type: str) -> None:
    model = found(model_type)[0]
    assert any(model.get_submodule(name) is model.get_output_embeddings() for name in sketch_head(model, False))


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_prompt_methods_know_what_kind_of_model_it_is(model_type: str) -> None:
    model = found(model_type)[0]  # some that hear are mapped here and have no encoder for text
    assert task_type(model) == ("SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM")
