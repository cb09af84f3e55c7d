"""Where adapters go in models that see and chat, in every architecture of the auto class; which processors chat."""

from functools import cache
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tiny_architectures import on_meta
from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from hf_tuner.models.load import whole_head
from hf_tuner.models.targets import find_targets, is_within, parts
from hf_tuner.tasks.image_text_to_text import ImageTextToText

UNREACHABLE = (
    "chameleon", "cohere_compass", "deepseek_ocr2", "diffusion_gemma", "emu3", "evolla", "fast_vlm", "gemma3n",
    "granite4_vision", "hunyuan_vl", "molmo2", "muse_spark", "nemotron_h_omni", "perception_lm", "qwen4_exp",
)  # fmt: skip
"""Their default configurations build no model of two layers."""
BROKEN = (AttributeError, KeyError, StrictDataclassClassValidationError, TypeError, ValueError)
NO_CHAT = {
    "blip": "writes a caption", "blip-2": "writes a caption", "florence2": "an encoder and a decoder", "git": "writes a caption",
    "idefics": "pictures by cross-attention in a list of its own", "instructblip": "writes a caption",
    "instructblipvideo": "writes a caption", "kosmos-2": "writes a caption with places", "kosmos-2.5": "reads pages",
    "pi0": "moves a robot", "pix2struct": "an encoder and a decoder", "pp_formulanet": "reads formulas",
    "t5gemma2": "an encoder and a decoder", "udop": "an encoder and a decoder",
    "vision-encoder-decoder": "an encoder and a decoder",
    "mistral4": "its language model alone is mapped", "fuyu": "no part of its own that sees",
    "gemma4": "its default configuration has no part that sees", "gemma4_unified": "no part of its own that sees",
}  # fmt: skip
"""Mapped, but no model that chats with a part that sees."""
EVERY = sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
CHATS = [name for name in EVERY if name not in UNREACHABLE and name not in NO_CHAT]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@cache
def model_of(name: str) -> Any:
    """A model of two layers on the meta device."""
    return on_meta(name, auto=AutoModelForImageTextToText)


def selected(name: str, wanted: str) -> set[str]:
    """What adapters wrap."""
    model = model_of(name)
    return set(find_targets(model, whole_head(model, ImageTextToText()), wanted).selected)


def test_most_of_the_auto_class_chats() -> None:
    assert set(UNREACHABLE) | set(NO_CHAT) < set(EVERY) and len(CHATS) > 55
    assert {
        "idefics3",
        "smolvlm",
        "llava",
        "llava_next",
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3_vl",
        "gemma3",
        "internvl",
    } < set(CHATS)


@pytest.mark.parametrize("name", UNREACHABLE)
def test_exceptions_are_still_needed(name: str) -> None:
    with pytest.raises(BROKEN):
        model_of(name)


@pytest.mark.parametrize("name", CHATS)
def test_adapters_go_to_the_language_model_unless_told_otherwise(name: str) -> None:
    model = model_of(name)
    language, vision, usual = (selected(name, wanted) for wanted in ("language", "vision", "all-linear"))
    assert language and vision and not language & vision
    assert usual == language, "by default the part that sees stays as it is"
    assert selected(name, "both") == language | vision
    eyes = model.get_encoder(modality="image")
    inside = {n for n, module in model.named_modules() if any(module is part for part in eyes.modules())}
    assert vision & inside and not language & inside
    assert not [n for n in language | vision if "audio" in n and name != "dots3_note"], "what hears stays as it is"
    output = model.get_output_embeddings()
    assert not [n for n in language | vision if model.get_submodule(n) is output]
    adapted = [block for block in parts(model)["language"] if any(is_within(n, [block]) for n in language)]
    assert len(adapted) >= 2


@pytest.mark.parametrize("name", ["idefics3", "llava", "qwen2_5_vl", "gemma3"])
@pytest.mark.parametrize("wanted", ["language", "vision", "both"])
def test_lora_adapts_the_part_alone(name: str, wanted: str) -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    chosen = selected(name, wanted)
    with torch.device("meta"):
        model = on_meta(name, auto=AutoModelForImageTextToText)
        bare = get_peft_model(
            model, LoraConfig(r=4, target_modules=sorted(chosen)), low_cpu_mem_usage=True
        ).get_base_model()
    assert {n for n, m in bare.named_modules() if isinstance(m, LoraLayer)} == chosen
    assert all("lora_" in n for n, p in bare.named_parameters() if p.requires_grad)
