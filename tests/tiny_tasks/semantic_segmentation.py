"""Pictures of coloured shapes on a dark ground with their masks, and segmenters of 64 pixels: SegFormer and MobileNetV2."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    MobileNetV2ImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    set_seed,
)

from tiny_tasks import Tiny

NAMES = ("ground", "red", "blue")
COLOURS = np.array([(30, 30, 30), (220, 40, 40), (40, 40, 220)])
VOID = 255


def make(folder: Path) -> Tiny:
    """12 training and 6 test pictures with masks, none square, and a SegFormer."""
    write_shapes(folder / "data", {"train": 12, "test": 6})
    return Tiny(make_segformer(folder / "model"), folder / "data", {})


def write_shapes(folder: Path, numbers: dict[str, int]) -> None:
    """train/images, train/masks … with a rectangle of each colour and an unknown border below."""
    random = np.random.default_rng(0)
    for split, number in numbers.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for index in range(number):
            pixels, mask = shapes(random)
            Image.fromarray(pixels).save(folder / split / "images" / f"{split}{index}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{split}{index}.png")
    names = {str(index): name for index, name in enumerate(NAMES)}
    (folder / "id2label.json").write_text(json.dumps(names))


def shapes(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture uint8 [height, width, 3] and its mask uint8 [height, width]."""
    height, width = (int(n) for n in random.integers(50, 80, 2))
    mask = np.zeros((height, width), np.uint8)
    for colour in (1, 2):
        top, left = (int(n) for n in random.integers(0, 30, 2))
        mask[top : top + int(random.integers(10, 25)), left : left + int(random.integers(10, 40))] = colour
    pixels = COLOURS[mask] + random.normal(0, 15, (height, width, 3))
    mask[-3:] = VOID
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def make_segformer(folder: Path) -> Path:
    """A SegFormer whose decode head was never trained, with its processor."""
    set_seed(0)
    config = SegformerConfig(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32],
                             patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
                             decoder_hidden_size=32, hidden_dropout_prob=0.0, drop_path_rate=0.0,
                             attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0)  # fmt: skip
    SegformerForSemanticSegmentation(config).segformer.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_mobilenet(folder: Path, tf_padding: bool = False) -> Path:
    """A MobileNetV2 with a DeepLabV3+ head for 21 other classes, as the checkpoints on the Hub have it."""
    set_seed(0)
    config = MobileNetV2Config(depth_multiplier=0.1, depth_divisible_by=2, min_depth=4, output_stride=16, num_labels=21,
                               tf_padding=tf_padding, classifier_dropout_prob=0.0)  # fmt: skip
    MobileNetV2ForSemanticSegmentation(config).save_pretrained(folder)
    MobileNetV2ImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False).save_pretrained(folder)
    return folder
