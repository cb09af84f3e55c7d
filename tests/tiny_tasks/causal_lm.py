"""Short texts about three things, and a Llama with a word tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import FILLER, WORDS, sentence

from tiny_tasks import Tiny


def make(folder: Path) -> Tiny:
    """20 texts to train on, some longer than a block, and 8 to measure; blocks of 32 tokens."""
    (folder / "data").mkdir()
    write_texts(folder / "data" / "train.jsonl", 20, 0)
    write_texts(folder / "data" / "test.jsonl", 8, 1)
    return Tiny(make_llama(folder / "model"), folder / "data", {"block_size": 32, "max_new_tokens": 8})


def write_texts(path: Path, count: int, seed: int) -> Path:
    """JSON Lines with texts of one to six sentences."""
    random, names = np.random.default_rng(seed), list(WORDS)
    texts = [" ".join(sentence(random, names[i % 3]) for _ in range(1 + i % 6)) for i in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def make_llama(folder: Path) -> Path:
    """A Llama of two layers and 32 dimensions, with biases in its attention (for bitfit)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return make_causal(folder, LlamaForCausalLM, LlamaConfig, hidden_size=32, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, attention_bias=True)  # fmt: skip


def make_causal(folder: Path, kind: Any, config: Any, **options: Any) -> Path:
    """A language model from a configuration, and a tokenizer of whole words that ends with </s>."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *sorted({w for ws in WORDS.values() for w in ws} | set(FILLER))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **names).save_pretrained(folder)
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    kind(config(vocab_size=len(words), max_position_embeddings=64, **ids, **options)).save_pretrained(folder)
    return folder
