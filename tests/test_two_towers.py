"""Models of two towers: both are found, what joins them is the head, and the loss is the model's own."""

from functools import cache
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny_architectures import on_meta
from transformers import AutoConfig, AutoModel, VisionTextDualEncoderConfig, VisionTextDualEncoderModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

from hf_tuner.config import Targets
from hf_tuner.errors import UsageError
from hf_tuner.methods import last_n_layers
from hf_tuner.methods._blocks import stages, towers
from hf_tuner.models.head import attention_modules, projection_modules
from hf_tuner.models.load import sketch_head
from hf_tuner.models.targets import find_targets, is_within
from hf_tuner.tasks._two_towers import embeddings, is_pairwise, logits, require_two_towers
from hf_tuner.tasks.contrastive_image_text import ContrastiveImageText

PROJECTED = ("align", "altclip", "blip", "chinese_clip", "clip", "clipseg", "groupvit", "metaclip_2", "owlv2", "owlvit")
DIRECT = ("siglip", "siglip2", "tipsv2")
"""Their towers end in the common space themselves."""
REFUSED = ("bert", "blip-2", "clap", "flava", "llava", "videoprism", "vit", "xclip")
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99,
        "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0, "project_dim": 24}  # fmt: skip
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
          "patch_size": 8}  # fmt: skip
SMALL = ("altclip", "blip", "chinese_clip", "clip", "clipseg", "metaclip_2", "siglip")
"""Families that are small enough to have real weights."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@cache
def found(model_type: str) -> tuple[Any, Targets]:
    """A model on the meta device and its targets."""
    model = on_meta(model_type, auto=AutoModel)
    return model, find_targets(model, projection_modules(model))


def test_the_list_is_that_of_transformers() -> None:
    assert set(MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES) <= {*PROJECTED, *DIRECT, *REFUSED}


@pytest.mark.parametrize("model_type", [*PROJECTED, *DIRECT])
def test_a_model_of_two_towers_is_taken(model_type: str) -> None:
    require_two_towers(CONFIG_MAPPING[model_type]())


@pytest.mark.parametrize("model_type", REFUSED)
def test_another_model_is_refused_by_its_configuration(model_type: str) -> None:
    with pytest.raises(UsageError, match=f"{model_type} has no two towers"):
        require_two_towers(CONFIG_MAPPING[model_type]())


@pytest.mark.parametrize("model_type", [*PROJECTED, *DIRECT])
def test_blocks_of_both_towers_are_found_and_the_projections_are_the_head(model_type: str) -> None:
    model, targets = found(model_type)
    assert {layer.split(".")[0] for layer in targets.layers} == {"text_model", "vision_model"}
    names = ("text_projection",) if model_type == "align" else ("visual_projection", "text_projection")
    assert {name.split(".")[0] for name in targets.head} == (set(names) if model_type in PROJECTED else set())
    bare = [layer for layer in targets.layers if not any(is_within(n, [layer]) for n in targets.selected)]
    assert all(model_type == "align" and layer.startswith("vision_model") for layer in bare), "blocks without a target"
    assert not [name for name in targets.selected if is_within(name, targets.head)]
    assert set(targets.head) <= set(sketch_head(model, False)), "a projection that trains would be quantised"


@pytest.mark.parametrize("model_type", [*PROJECTED, *DIRECT])
def test_lora_adapts_both_towers(model_type: str) -> None:
    model = on_meta(model_type, auto=AutoModel)
    targets = find_targets(model, projection_modules(model))
    config = LoraConfig(r=4, target_modules=list(targets.selected), modules_to_save=list(targets.head) or None)
    with torch.device("meta"):
        bare = get_peft_model(model, config, low_cpu_mem_usage=True).get_base_model()
    assert {n for n, m in bare.named_modules() if isinstance(m, LoraLayer)} == set(targets.selected)
    trains = [n for n, p in bare.named_parameters() if p.requires_grad]
    assert not [n for n in trains if "lora_" not in n and not is_within(n, targets.head)]


@pytest.mark.parametrize("part, tower", [("language", "text_model"), ("vision", "vision_model")])
@pytest.mark.parametrize("model_type", ["align", "clip", "siglip2"])
def test_an_adapter_can_be_kept_to_one_tower(model_type: str, part: str, tower: str) -> None:
    model, _ = found(model_type)
    selected = find_targets(model, projection_modules(model), part).selected
    assert selected and all(name.startswith(f"{tower}.") for name in selected)


@pytest.mark.parametrize("model_type", [*PROJECTED, *DIRECT])
def test_both_towers_are_taken_down_together(model_type: str) -> None:
    model, targets = found(model_type)
    stack, depth = stages(model, targets), max(map(len, towers(model, targets)))
    assert len(stack) == depth + 2
    assert sorted(n for stage in stack for n in stage) == sorted(n for n, _ in model.named_parameters())
    assert all(any(name.startswith(t) for name in stack[1]) for t in ("text_model.", "vision_model."))
    assert {name.split(".")[0] for name in stack[-1]} == {"text_model", "vision_model"}, "embeddings come last"


def test_the_last_block_of_each_tower_trains() -> None:
    model = small("clip")
    last_n_layers.adapt(model, last_n_layers.Config(n=1), find_targets(model, projection_modules(model)))
    free = {n for n, p in model.named_parameters() if p.requires_grad}
    blocks = {".".join(n.split(".")[:4]) for n in free if ".layers." in n}
    assert blocks == {"text_model.encoder.layers.1", "vision_model.encoder.layers.1"}
    assert "logit_scale" in free and not any("embeddings" in n for n in free)
    with pytest.raises(UsageError, match="has 2 blocks"):
        last_n_layers.adapt(model, last_n_layers.Config(n=3), find_targets(model, projection_modules(model)))


def test_attention_that_hands_its_weights_to_a_kernel_is_not_quantised() -> None:
    model, targets = found("siglip")
    assert attention_modules(model) == ("vision_model.head.attention",)
    assert "vision_model.head.attention" in sketch_head(model, False)
    assert not [name for name in targets.selected if is_within(name, attention_modules(model))]


def small(model_type: str) -> Any:
    """A model with a few real weights."""
    torch.manual_seed(0)
    options = {} if model_type == "siglip" else {"projection_dim": 24}
    config = AutoConfig.for_model(model_type, text_config=TEXT, vision_config=VISION, **options)
    return AutoModel.from_config(config).eval()


def joined() -> Any:
    """A ViT and a BERT with projections that were never trained."""
    torch.manual_seed(0)
    vision, text = (AutoConfig.for_model(name, **options) for name, options in (("vit", VISION), ("bert", TEXT)))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    return VisionTextDualEncoderModel(config).eval()


@pytest.mark.parametrize("model_type", [*SMALL, "vision-text-dual-encoder"])
def test_the_loss_is_the_models_own(model_type: str) -> None:
    model = joined() if model_type == "vision-text-dual-encoder" else small(model_type)
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 99, (5, 9), generator=random)
    ids[:, -1] = 2
    batch = {"input_ids": ids, "pixel_values": torch.randn(5, 3, 32, 32, generator=random)}
    own = model(**batch, return_loss=True)
    task = ContrastiveImageText(pairwise=is_pairwise(model))
    assert task.pairwise == (model_type == "siglip")
    labels = torch.ones(5, dtype=torch.long)
    loss = task.loss(model, {**batch, "labels": labels, "belongs": torch.eye(5, dtype=torch.bool)})
    torch.testing.assert_close(loss / 5, own.loss)
    torch.testing.assert_close(logits(model, *embeddings(model, batch)), own.logits_per_image)
    loss.backward()
    moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"text_model", "vision_model"} <= moved and moved & {"logit_scale", "logit_bias"}


def test_projections_of_joined_encoders_are_the_head() -> None:
    model = joined()
    targets = find_targets(model, projection_modules(model))
    assert targets.head == ("visual_projection", "text_projection")
    assert len(towers(model, targets)) == 2 and len(targets.layers) == 4


def test_a_model_of_one_tower_has_no_projections() -> None:
    assert projection_modules(on_meta("bert")) == ()
