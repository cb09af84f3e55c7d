"""Head, blocks and targets in every architecture of the auto classes that see: classes, boxes, maps, masks.

Those that chat or compare are in test_seeing_architectures and test_two_towers.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from tiny_architectures import _shallow
from tiny_tasks.object_detection import make_detr
from transformers import (
    AutoModelForImageTextToText,
    DetrConfig,
    DetrForObjectDetection,
    GPT2Config,
    ResNetConfig,
    RTDetrResNetConfig,
    VisionEncoderDecoderConfig,
    ViTConfig,
)
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.errors import UsageError
from hf_tuner.models.head import class_modules, new_modules
from hf_tuner.models.load import load_base, sketch_head, whole_head
from hf_tuner.models.targets import CONVOLUTIONS, find_targets, is_within
from hf_tuner.tasks._segment_loss import KINDS, require_known
from hf_tuner.tasks.image_classification import ImageClassification
from hf_tuner.tasks.image_to_text import ImageToText
from hf_tuner.tasks.instance_segmentation import InstanceSegmentation
from hf_tuner.tasks.object_detection import ObjectDetection
from hf_tuner.tasks.panoptic_segmentation import PanopticSegmentation
from hf_tuner.tasks.semantic_segmentation import SemanticSegmentation

MAPS = {
    ImageClassification: modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    ObjectDetection: modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    SemanticSegmentation: modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    PanopticSegmentation: modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
}
EVERY = [(kind, name) for kind, names in MAPS.items() for name in sorted(names)]
REFUSED = {
    (ImageClassification, "imagegpt"): "reads colours as words",
    (ImageClassification, "shieldgemma2"): "reads pictures with a text",
    (ImageClassification, "siglip2"): "reads patches of pictures in their own shape",
    **{(ObjectDetection, name): "is made for prediction alone" for name in (
        "pp_doclayout_v2", "pp_doclayout_v3", "pp_doclayout_v4", "pp_ocrv5_mobile_det", "pp_ocrv5_server_det",
        "pp_ocrv6_medium_det", "pp_ocrv6_small_det")},
    (PanopticSegmentation, "detr"): "is not among those whose masks can be trained",
    (PanopticSegmentation, "oneformer"): "it reads a text with each picture",
    (PanopticSegmentation, "videomt"): "is not among those whose masks can be trained",
}  # fmt: skip
UNREACHABLE = {
    (ImageClassification, "dinat"): (ImportError, "its attention is in natten, which has no wheels for this Python"),
    (SemanticSegmentation, "sapiens2"): (TypeError, "its default configuration says nothing about its head"),
}
SUPPORTED = [pair for pair in EVERY if pair not in REFUSED and pair not in UNREACHABLE]
LABELS = 7
SMALL = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "layer_type": "basic"}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
OWN = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}


def _small(first: int) -> dict[str, Any]:
    """A small backbone, read from one of its stages on."""
    return {"backbone_config": ResNetConfig(**SMALL, out_features=STAGES[first:])}


NEEDED: dict[tuple[type, str], dict[str, Any]] = {
    (ImageClassification, "efficientnet"): {"num_block_repeats": [1] * 7},
    (ImageClassification, "timm_wrapper"): {"architecture": "test_vit"},
    **{(ObjectDetection, name): {**OWN, **_small(3)} for name in ("conditional_detr", "dab-detr", "detr", "table-transformer")},
    **{(ObjectDetection, name): {"backbone_config": RTDetrResNetConfig(**SMALL, out_features=STAGES[1:]),
                                 "encoder_in_channels": [16] * 3} for name in ("d_fine", "rt_detr", "rt_detr_v2")},
    (ObjectDetection, "deformable_detr"): {**OWN, **_small(1), "num_feature_levels": 3},
    (SemanticSegmentation, "beit"): {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    (SemanticSegmentation, "upernet"): _small(0),
}  # fmt: skip
"""What default configurations lack, would fetch, or have more of than a test needs."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def config_of(kind: type, name: str, labels: int) -> Any:
    config = _shallow(CONFIG_MAPPING[name], NEEDED.get((kind, name), {}))
    if (kind, name) not in NEEDED and isinstance(getattr(config, "depths", None), list):
        config = _shallow(CONFIG_MAPPING[name], {"depths": [1] * len(config.depths)})
    config.num_labels, config.architectures = labels, []
    return config


def on_meta(kind: Any, name: str, labels: int = LABELS) -> Any:
    with torch.device("meta"):
        return getattr(transformers, kind.auto_model).from_config(config_of(kind, name, labels))


@cache
def found(kind: Any, name: str) -> tuple[Any, set[str], Any]:
    """A model, its weights that a checkpoint for other classes does not bring in this size, and the targets then."""
    model, other = on_meta(kind, name), dict(on_meta(kind, name, LABELS + 2).named_parameters(remove_duplicate=False))
    lost = {n for n, p in model.named_parameters(remove_duplicate=False) if other[n].shape != p.shape}
    return model, lost, find_targets(model, whole_head(model, kind, new_modules(model, lost)))


def weights(model: Any, names: Any) -> set[int]:
    """Identities of the weights in some modules: some have two names."""
    return {id(p) for n, p in model.named_parameters(remove_duplicate=False) if is_within(n, list(names))}


def refuse(kind: Any, name: str) -> None:
    """Raise UsageError where the task does."""
    config = CONFIG_MAPPING[name]()
    if kind is PanopticSegmentation:
        require_known(config, 0)
    else:
        kind.require_model(kind, config, "mine")


def test_the_lists_are_those_of_transformers() -> None:
    assert len(EVERY) > 70 and {*REFUSED, *UNREACHABLE} < set(EVERY)
    assert {name for kind, name in SUPPORTED if kind is PanopticSegmentation} == set(KINDS)
    assert InstanceSegmentation.auto_model == PanopticSegmentation.auto_model
    others = set(modeling_auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES) - set(MAPS[PanopticSegmentation])
    for name in others:  # RF-DETR
        with pytest.raises(UsageError, match="not among those whose masks"):
            require_known(CONFIG_MAPPING[name](), 0)


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_what_cannot_be_trained_is_refused_with_the_reason(kind: Any, name: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[kind, name]):
        refuse(kind, name)


@pytest.mark.parametrize(("kind", "name"), UNREACHABLE)
def test_exceptions_are_still_needed(kind: Any, name: str) -> None:
    with pytest.raises(UNREACHABLE[kind, name][0]):
        on_meta(kind, name)


@pytest.mark.parametrize(("kind", "name"), SUPPORTED)
def test_the_head_holds_what_knows_the_classes(kind: Any, name: str) -> None:
    """From a checkpoint for other classes, and where as many others take the place of those that are known."""
    refuse(kind, name) if kind is not SemanticSegmentation else None
    model, lost, targets = found(kind, name)
    assert lost
    new = weights(model, lost)
    assert new == weights(model, new_modules(model, lost)), "what is new, and nothing else"
    assert new <= weights(model, targets.head) and (new == weights(model, class_modules(model)) or name == "perceiver")
    known = whole_head(model, kind)
    assert new <= weights(model, known) and not weights(model, known) & weights(model, targets.layers)


@pytest.mark.parametrize(("kind", "name"), SUPPORTED)
def test_every_block_has_targets_and_the_head_has_none(kind: Any, name: str) -> None:
    model, _, targets = found(kind, name)
    assert len(targets.layers) >= 2 and targets.norms
    kinds: tuple[type, ...] = (torch.nn.Linear,) if targets.linears else CONVOLUTIONS
    for layer in targets.layers:
        if not any(is_within(n, [layer]) for n in targets.selected):  # all of a stage that has none is convolutions
            odd = [
                m for m in model.get_submodule(layer).modules() if isinstance(m, kinds) and getattr(m, "groups", 1) == 1
            ]
            assert not odd, f"no target in {layer}"
    everything = (*targets.selected, *targets.linears, *targets.feedforward, *targets.norms)
    assert not [n for n in everything if is_within(n, targets.head)]


@pytest.mark.parametrize(("kind", "name"), SUPPORTED)
def test_lora_adapts_the_targets_alone_and_trains_the_whole_head(kind: Any, name: str) -> None:
    method = catalog.load("methods", "lora")
    _, _, targets = found(kind, name)
    with torch.device("meta"):
        bare = method.adapt(on_meta(kind, name), method.Config(), targets).get_base_model()
    assert {n for n, m in bare.named_modules() if isinstance(m, LoraLayer)} == set(targets.selected)
    wrapped = {n: m for n, m in bare.named_modules() if isinstance(m, ModulesToSaveWrapper)}
    assert wrapped and set(wrapped) <= set(targets.head)
    assert all(p.requires_grad for m in wrapped.values() for p in m.modules_to_save.parameters())
    trainable = [n for n, p in bare.named_parameters() if p.requires_grad]
    assert not [n for n in trainable if "lora_" not in n and not is_within(n, targets.head)]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("cat", "dog", "owl", "yak"), [0, 1, 2, 3, 4]),
        (("owl", "yak", "cat", "dog"), [2, 3, 0, 1, 4]),
        (("a", "b", "c", "d"), None),
    ],
)
def test_as_many_classes_are_reordered_or_learned_anew_and_boxes_stay(
    names: tuple[str, ...], rows: list[int] | None, tmp_path: Path
) -> None:
    """Four classes as a box has four numbers; "nothing is there" stays the last row."""
    make_detr(tmp_path)
    config = DetrConfig.from_pretrained(tmp_path, id2label=dict(enumerate(["cat", "dog", "owl", "yak"])), num_labels=4)
    known = DetrForObjectDetection(config)
    known.save_pretrained(tmp_path)
    run = Run(model=str(tmp_path), output_dir="unused", method="full")
    task = ObjectDetection(names=names, box_format="coco", density=1.0)
    model, notes = load_base(run, task, catalog.load("methods", "full"))
    found, before = (m.class_labels_classifier.weight for m in (model, known))
    assert torch.equal(found, before[rows]) if rows else not torch.equal(found, before)
    assert notes["new_head"] == (() if rows else ("class_labels_classifier",))
    boxes = zip(model.bbox_predictor.parameters(), known.bbox_predictor.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in boxes)


@pytest.mark.parametrize("name", ["blip", "git", "vision-encoder-decoder"])
def test_captioners_are_adapted_where_they_see_and_where_they_write(name: str) -> None:
    """These three kinds caption (see `Captioner`); their output layer is no target, and nothing of them is new."""
    config: Any
    if name == "vision-encoder-decoder":
        two = ViTConfig(num_hidden_layers=2), GPT2Config(n_layer=2)
        config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(*two)
    else:
        config = _shallow(CONFIG_MAPPING[name], {})
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    targets = find_targets(model, whole_head(model, ImageToText))
    assert targets.head == () and len(targets.layers) >= 2
    for layer in targets.layers:
        assert any(is_within(n, [layer]) for n in targets.selected), f"no target in {layer}"
    outputs = sketch_head(model, False)
    assert outputs and not [n for n in targets.selected if is_within(n, outputs)]
    seen, written = (set(find_targets(model, (), part).selected) for part in ("vision", "language"))
    assert seen and written and not seen & written
    method = catalog.load("methods", "lora")
    with torch.device("meta"):
        bare = method.adapt(model, method.Config(), targets).get_base_model()
    assert all("lora_" in n for n, p in bare.named_parameters() if p.requires_grad)
