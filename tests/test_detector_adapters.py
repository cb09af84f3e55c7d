"""LoRA on detectors that peft alone refuses, or whose shared heads it wraps at one place only: saved, reloaded, merged."""

from pathlib import Path
from typing import Any

import pytest
from tiny_tasks.object_detection import write_pictures

from hf_tuner import finetune
from hf_tuner.cli.main import main

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
