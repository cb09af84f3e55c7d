"""LoRA on detectors that peft alone refuses, or whose shared heads it wraps at one place only: saved, reloaded, merged."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tasks.object_detection import write_pictures

from hf_tuner import catalog, finetune
from hf_tuner.cli.main import main
from hf_tuner.config import Run
from hf_tuner.models.head import class_modules
from hf_tuner.models.load import load_base
from hf_tuner.models.targets import is_within
from hf_tuner.tasks.object_detection import ObjectDetection

KINDS = [
    "deformable-detr",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("rt-detr-v2", "d-fine", "rt-detr")),
]


def save(kind: str, folder: Path) -> Path:
    """A small detector of a kind for other classes, with its processor."""
    import transformers as t

    t.set_seed(0)
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic",
                             "out_features": ["stage2", "stage3", "stage4"]}  # fmt: skip
    two = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "decoder_layers"), 2)
    common: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_labels": 5,
                              "num_queries": 8, **two}  # fmt: skip
    if kind == "deformable-detr":
        config = t.DeformableDetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
                                        backbone_config=t.ResNetConfig(**sizes), num_feature_levels=3, **common)  # fmt: skip
        t.DeformableDetrForObjectDetection(config).save_pretrained(folder)
        t.DeformableDetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 64}).save_pretrained(folder)
        return folder
    made, settings = {
        "rt-detr": (t.RTDetrForObjectDetection, t.RTDetrConfig),
        "rt-detr-v2": (t.RTDetrV2ForObjectDetection, t.RTDetrV2Config),
        "d-fine": (t.DFineForObjectDetection, t.DFineConfig),
    }[kind]
    more = {"encoder_hidden_dim": 32, "encoder_in_channels": [16] * 3, "decoder_in_channels": [32] * 3, "num_denoising": 4,
            "decoder_n_points": [2] * 3 if kind == "d-fine" else 2}  # fmt: skip
    made(settings(backbone_config=t.RTDetrResNetConfig(**sizes), **common, **more)).save_pretrained(folder)
    t.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_layers_for_other_classes_start_as_their_class_starts_them(tmp_path: Path) -> None:
    """As many classes under other names: the class loss has its prior, and nothing of the old classes is left."""
    from transformers import RTDetrForObjectDetection, set_seed

    known = RTDetrForObjectDetection.from_pretrained(save("rt-detr", tmp_path))
    known.config.id2label = dict(enumerate("vwxyz"))
    known.save_pretrained(tmp_path)
    task, made = ObjectDetection(names=tuple("abcde"), box_format="coco", density=1.0), []
    for _ in range(2):
        set_seed(3)
        run = Run(model=str(tmp_path), output_dir="unused", method="full")
        made.append(load_base(run, task, catalog.load("methods", "full"))[0])
    model, again = made
    layers = class_modules(model)
    assert "model.denoising_class_embed" in layers and len(layers) == 4
    for name in layers:
        one, old = model.get_submodule(name), known.get_submodule(name)
        assert not (one.weight[:5] == old.weight[:5]).any()
        assert getattr(one, "bias", None) is None or one.bias.tolist() == pytest.approx([-math.log(5)] * 5)
    for (name, one), two, old in zip(model.named_parameters(), again.parameters(), known.parameters(), strict=True):
        assert torch.equal(one, two) and (is_within(name, layers) or torch.equal(one, old)), name


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_gives_the_same_bits_when_it_is_loaded_again_and_merged(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_pictures(tmp_path / "data", {"train": 8, "test": 4})
    report = finetune(
        "object-detection", model=str(save(kind, tmp_path / "model")), dataset=str(tmp_path / "data"), method="lora",
        output_dir=str(tmp_path / "run"), max_steps=3, warmup_steps=0, per_device_train_batch_size=4, bf16=False,
    )  # fmt: skip
    proofs = {proof["name"]: proof for proof in report.proofs}
    assert proofs["trainable weights moved"]["passed"] and "the same bits" in proofs["saved = measured"]["detail"]
    main(["merge", str(tmp_path / "run"), "--output", str(tmp_path / "merged")])
    assert "✓ merged = measured" in capsys.readouterr().out
