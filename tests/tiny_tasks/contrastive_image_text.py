"""Pictures of coloured squares with captions that say where they are, and a CLIP (or a SigLIP) of 32 pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiny_tasks import Tiny

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
PLACES = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
SIZES = {"small": 10, "large": 20}
LENGTH = 64
"""Tokens of a text at most."""
WORDS = "a the square is at of picture with photo this dog cat and in".split()


def make(folder: Path) -> Tiny:
    """18 training pictures (the last update of 8 is ragged) and 8 test pictures, with one to three captions each."""
    write_pictures(folder / "data", {"train": 18, "test": 8})
    # Every row has the others of its micro-batch for wrong answers: cut otherwise, an update is another one.
    return Tiny(make_clip(folder / "model"), folder / "data", additive=False)


def write_pictures(folder: Path, splits: dict[str, int]) -> Path:
    """Different pictures and a metadata.jsonl for each split."""
    random = np.random.default_rng(0)
    kinds = [(c, p, s) for c in COLOURS for p in PLACES for s in SIZES]
    kinds = [kinds[i] for i in random.permutation(len(kinds))]
    for split, count in splits.items():
        (folder / split).mkdir(parents=True)
        rows = []
        for index in range(count):
            colour, place, size = kinds.pop()
            name = f"{index}.png"
            Image.fromarray(picture(random, colour, place, size)).save(folder / split / name)
            texts = [f"a {size} {colour} square at the {place}", f"the {place} is {size} and {colour}",
                     f"picture of a {size} square in {colour} at the {place}"]  # fmt: skip
            rows.append({"file_name": name, "captions": texts[: 1 + index % 3]})
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def picture(random: np.random.Generator, colour: str, place: str, size: str) -> np.ndarray:
    """Grey noise, 48 × 56 pixels, with a square."""
    pixels = random.integers(90, 130, (48, 56, 3)).astype(np.uint8)
    (down, right), edge = PLACES[place], SIZES[size]
    pixels[down * 24 + 2 : down * 24 + 2 + edge, right * 28 + 2 : right * 28 + 2 + edge] = COLOURS[colour]
    return pixels


def tokenizer(**options: Any) -> Any:
    """Whole words; a text begins with <s> and ends with </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = [*COLOURS, *{word for place in PLACES for word in place.split()}, *SIZES, *WORDS]
    words = ["<pad>", "<s>", "</s>", "<unk>", *sorted(set(known))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=LENGTH, **names, **options)


TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": LENGTH, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
          "image_size": 32, "patch_size": 8}  # fmt: skip


def make_clip(folder: Path) -> Path:
    """A CLIP that was not trained, with its processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    words = tokenizer()
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config={**TEXT, "vocab_size": len(words)}, vision_config=VISION, projection_dim=24)
    ).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, words).save_pretrained(folder)
    return folder


def make_joined(folder: Path) -> Path:
    """A ViT and a BERT that are to meet, with projections that were never trained, and their processor."""
    import torch
    from transformers import (
        AutoConfig,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        VisionTextDualEncoderProcessor,
        ViTImageProcessor,
    )

    words = tokenizer()
    torch.manual_seed(0)
    vision, text = AutoConfig.for_model("vit", **VISION), AutoConfig.for_model("bert", **TEXT, vocab_size=len(words))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    VisionTextDualEncoderModel(config).save_pretrained(folder)
    images = ViTImageProcessor(size={"height": 32, "width": 32})
    VisionTextDualEncoderProcessor(images, words).save_pretrained(folder)
    return folder


def make_siglip(folder: Path) -> Path:
    """A SigLIP that was not trained, with its processor; its tokenizer gives no attention mask."""
    import torch
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    words = tokenizer(model_input_names=["input_ids"])
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config={**TEXT, "vocab_size": len(words)}, vision_config=VISION)).save_pretrained(
        folder
    )
    SiglipProcessor(SiglipImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    return folder
