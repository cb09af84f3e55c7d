"""Questions about coloured shapes, and a SmolVLM (Idefics 3) of 32 pixels with a chat template."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tiny_tasks import Tiny

COLOURS = {"red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
SHAPES = ("square", "circle", "triangle")
QUESTIONS = ("what colour", "what shape", "how many")
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def picture(path: Path, shape: str, colour: str, number: int, random: np.random.Generator) -> None:
    """One to three shapes of a colour, of one kind, side by side on grey."""
    size = (int(random.integers(40, 64)), int(random.integers(40, 64)))
    image = Image.new("RGB", size, (120, 120, 120))
    pen, wide = ImageDraw.Draw(image), size[0] // 3
    for place in range(number):
        left, top = place * wide + 2, int(random.integers(4, size[1] - wide))
        box = (left, top, left + wide - 4, top + wide - 4)
        if shape == "square":
            pen.rectangle(box, fill=COLOURS[colour])
        elif shape == "circle":
            pen.ellipse(box, fill=COLOURS[colour])
        else:
            pen.polygon([(left, box[3]), (left + wide // 2 - 2, top), (box[2], box[3])], fill=COLOURS[colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_questions(folder: Path, splits: dict[str, int], colours: int = 3, shapes: int = 3, seed: int = 0) -> Path:
    """A JSON Lines file of questions for each split, three about every picture."""
    random = np.random.default_rng(seed)
    for split, pictures in splits.items():
        rows = []
        for index in range(pictures):
            shape, colour = SHAPES[index % shapes], list(COLOURS)[index // shapes % colours]
            number = int(random.integers(1, 4))
            picture(folder / split / f"{index}.png", shape, colour, number, random)
            for question, answer in zip(QUESTIONS, (colour, shape, str(number)), strict=True):
                rows.append({"image": f"{split}/{index}.png", "question": question, "answer": answer})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tokenizer_of(special: list[str], **names: str) -> Any:
    """A byte-level tokenizer that knows the questions' words, and these special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=256 + len(special) + 80, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    words = [*QUESTIONS, *COLOURS, *SHAPES, "User:", "Assistant:", "what is it"]
    core.train_from_iterator([f"{word} {word}" for word in words] * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                                   model_max_length=256, **names)  # fmt: skip


def make_smolvlm(folder: Path, width: int = 32, layers: int = 2) -> Path:
    """A SmolVLM whose pictures are four tokens and three around them; not trained."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        set_seed,
    )

    tokenizer = tokenizer_of(SPECIAL)
    eyes = Idefics3ImageProcessor(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    processor = Idefics3Processor(eyes, tokenizer, image_seq_len=4, chat_template=TEMPLATE)
    set_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sees = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8}  # fmt: skip
    reads = {"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width,
             "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 2,
             "max_position_embeddings": 256, "attention_bias": True, "tie_word_embeddings": False, **ids}  # fmt: skip
    config = Idefics3Config(image_token_id=tokenizer.convert_tokens_to_ids("<image>"), vision_config=sees, text_config=reads,
                            scale_factor=2, tie_word_embeddings=False, **ids)  # fmt: skip
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make(folder: Path) -> Tiny:
    """24 questions to learn, 9 to measure."""
    write_questions(folder / "data", {"train": 8, "test": 3})
    return Tiny(make_smolvlm(folder / "model"), folder / "data", {"max_length": 96, "max_new_tokens": 6})
