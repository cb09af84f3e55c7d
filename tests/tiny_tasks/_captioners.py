"""Models that write what a picture shows: a BLIP, a GIT, and a ViT with a GPT-2, of 32 pixels and two layers each."""

from pathlib import Path
from typing import Any

from tiny_tasks._seq2seq import tokenizer_of

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220), "white": (240, 240, 240)}
PLACES = ("top", "bottom")
WORDS = ["a", "an", "the", "square", "picture", "of", "at", "on", "is", ".", *COLOURS, *PLACES]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PIXELS = {"height": 32, "width": 32}
EYES = {**SMALL, "image_size": 32, "patch_size": 8, "initializer_range": 0.2}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def blip(folder: Path) -> Path:
    """A BLIP: the text reads the picture by cross-attention."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        set_seed,
    )

    tokenizer = tokenizer_of(WORDS, begin=False)
    set_seed(0)
    text = {**SMALL, **STILL, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "max_position_embeddings": 64,
            "bos_token_id": 0, "pad_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "initializer_range": 0.2}  # fmt: skip
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=EYES))
    return _saved(model, BlipProcessor(BlipImageProcessor(size=PIXELS), tokenizer), folder)


def git(folder: Path) -> Path:
    """A GIT: the picture's states stand before the text's."""
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor, set_seed

    tokenizer = tokenizer_of(WORDS, begin=False)
    set_seed(0)
    config = GitConfig(**SMALL, **STILL, vocab_size=len(tokenizer), vision_config=EYES, bos_token_id=0, pad_token_id=1,
                       eos_token_id=2, max_position_embeddings=64, initializer_range=0.2)  # fmt: skip
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=PIXELS)
    return _saved(GitForCausalLM(config), GitProcessor(pictures, tokenizer), folder)


def vit_gpt2(folder: Path) -> Path:
    """A ViT with a GPT-2, saved as such models are: tokenizer and image processor each for itself."""
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        set_seed,
    )

    tokenizer = tokenizer_of(WORDS, begin=False)
    set_seed(0)
    writes = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0,
                        eos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, is_decoder=True,
                        add_cross_attention=True, initializer_range=0.2)  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**EYES), writes)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 1, 2
    ViTImageProcessor(size=PIXELS).save_pretrained(folder)
    return _saved(VisionEncoderDecoderModel(config), tokenizer, folder)


def _saved(model: Any, processor: Any, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
