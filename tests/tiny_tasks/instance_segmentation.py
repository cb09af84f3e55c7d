"""Pictures of discs and bars in a COCO folder, as polygons and runs, and segmenters of 64 pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from transformers import (
    EomtConfig,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessor,
    SwinConfig,
    set_seed,
)

from tiny_tasks import Tiny

COLOURS = {"bar": (220, 60, 30), "disc": (40, 200, 60)}


def make(folder: Path) -> Tiny:
    """12 training and 6 test pictures, none square, with one to three things (one with none), and a Mask2Former."""
    write_things(folder / "data", {"train": 12, "test": 6})
    return Tiny(make_mask2former(folder / "model"), folder / "data", {})


def write_things(folder: Path, splits: dict[str, int]) -> None:
    """A COCO folder: a file of annotations in the folder of each split."""
    random = np.random.default_rng(0)
    for split, number in splits.items():
        (folder / split).mkdir(parents=True)
        known: dict[str, Any] = {"images": [], "annotations": []}
        known["categories"] = [{"id": 3, "name": "bar"}, {"id": 7, "name": "disc"}]
        for index in range(number):
            pixels, things = picture_of_things(random, 0 if index == 3 else int(random.integers(1, 4)))
            Image.fromarray(pixels).save(folder / split / f"{index}.png")
            height, width = pixels.shape[:2]
            known["images"].append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
            for name, box, segmentation in things:
                known["annotations"].append({"id": len(known["annotations"]) + 1, "image_id": index, "bbox": box, "iscrowd": 0,
                                             "category_id": {"bar": 3, "disc": 7}[name], "segmentation": segmentation})  # fmt: skip
        (folder / split / "_annotations.coco.json").write_text(json.dumps(known))


def picture_of_things(
    random: np.random.Generator, number: int
) -> tuple[np.ndarray, list[tuple[str, list[float], Any]]]:
    """Pixels [height, width, 3], and (label, box, segmentation) of each thing: bars are polygons, discs are runs."""
    from hf_tuner.tasks._runs import runs_of, written

    height, width = (int(n) for n in random.integers(44, 80, 2))
    image = Image.fromarray(random.integers(90, 130, (height, width, 3)).astype(np.uint8))
    things: list[tuple[str, list[float], Any]] = []
    for place in range(number):
        name = list(COLOURS)[int(random.integers(2))]
        left, top = place * width // 3 + 1, int(random.integers(0, height // 2))
        w, h = width // 3 - 2, int(random.integers(10, height // 2))
        if name == "bar":
            shape = ImageDraw.Draw(image).rectangle
            segmentation: Any = [[left, top, left + w, top, left + w, top + h, left, top + h]]
        else:
            shape = ImageDraw.Draw(image).ellipse
            mask = Image.new("1", (width, height))
            ImageDraw.Draw(mask).ellipse((left, top, left + w - 1, top + h - 1), fill=1)
            segmentation = {"size": [height, width], "counts": written(runs_of(np.asarray(mask)))}
        shape((left, top, left + w - 1, top + h - 1), fill=COLOURS[name])
        things.append((name, [float(n) for n in (left, top, w, h)], segmentation))
    return np.asarray(image), things


def swin() -> SwinConfig:
    """A Swin of one block a stage."""
    return SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, drop_path_rate=0.0,
                      out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip


def mask2former(**settings: Any) -> Mask2FormerForUniversalSegmentation:
    """A small Mask2Former for other classes than those of the data; not trained."""
    set_seed(0)
    small = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 32, "dim_feedforward": 32,
             "encoder_layers": 1, "decoder_layers": 3, "num_attention_heads": 2, "num_queries": 8, "train_num_points": 64,
             "dropout": 0.0, "num_labels": 5}  # fmt: skip
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=swin(), **(small | settings)))


def maskformer(**settings: Any) -> MaskFormerForInstanceSegmentation:
    """A small MaskFormer."""
    from transformers import DetrConfig

    set_seed(0)
    decoder = DetrConfig(d_model=32, decoder_layers=2, encoder_layers=1, decoder_attention_heads=2, encoder_attention_heads=2,
                         decoder_ffn_dim=32, encoder_ffn_dim=32, num_queries=8, dropout=0.0)  # fmt: skip
    config = MaskFormerConfig(backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32,
                              **({"num_labels": 5} | settings))  # fmt: skip
    return MaskFormerForInstanceSegmentation(config)


def eomt(**settings: Any) -> EomtForUniversalSegmentation:
    """A small EoMT, which reads pictures of 64 pixels only."""
    set_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
             "num_blocks": 2, "num_queries": 8, "num_upscale_blocks": 1, "mlp_ratio": 2, "train_num_points": 64,
             "num_labels": 5}  # fmt: skip
    return EomtForUniversalSegmentation(EomtConfig(**(small | settings)))


def make_mask2former(folder: Path) -> Path:
    """A Mask2Former with its processor."""
    mask2former().save_pretrained(folder)
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_maskformer(folder: Path) -> Path:
    """A MaskFormer with its processor."""
    maskformer().save_pretrained(folder)
    MaskFormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_eomt(folder: Path) -> Path:
    """An EoMT with its processor."""
    eomt().save_pretrained(folder)
    EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64}).save_pretrained(folder)
    return folder
