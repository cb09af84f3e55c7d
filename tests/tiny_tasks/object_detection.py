"""Pictures with coloured rectangles, in COCO boxes, and a DETR of 64 pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig, set_seed

from tiny_tasks import Tiny

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30)}


def make(folder: Path) -> Tiny:
    """16 training and 6 test pictures, none square, with one to three rectangles (one picture with none)."""
    write_pictures(folder / "data", {"train": 16, "test": 6})
    return Tiny(make_detr(folder / "model"), folder / "data", {"augment": "flip"})


def write_pictures(folder: Path, splits: dict[str, int]) -> None:
    """Pictures and a metadata.jsonl for each split."""
    random = np.random.default_rng(0)
    for split, number in splits.items():
        (folder / split).mkdir(parents=True)
        rows = []
        for index in range(number):
            height, width = (int(n) for n in random.integers(40, 90, 2))
            pixels = random.integers(90, 130, (height, width, 3)).astype(np.uint8)
            objects: dict[str, list[Any]] = {"bbox": [], "category": []}
            for place in range(0 if index == 3 else int(random.integers(1, 4))):
                name = list(COLOURS)[int(random.integers(2))]
                left, top = place * width // 3 + 1, int(random.integers(0, height // 2))
                w, h = width // 3 - 2, int(random.integers(10, height // 2))
                pixels[top : top + h, left : left + w] = COLOURS[name]
                objects["bbox"].append([float(n) for n in (left, top, w, h)])
                objects["category"].append(name)
            Image.fromarray(pixels).save(folder / split / f"{index}.png")
            rows.append({"file_name": f"{index}.png", "objects": objects})
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_detr(folder: Path) -> Path:
    """A DETR for other classes than those of the data, with its processor; not trained."""
    set_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_queries=8, d_model=32,
        encoder_layers=1, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_attention_heads=2,
        decoder_attention_heads=2, dropout=0.0, num_labels=5,
    )  # fmt: skip
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 64}).save_pretrained(folder)
    return folder
