"""Short conversations, one of them with two answers, and a Llama whose tokenizer has no chat template."""

import json
from pathlib import Path

import numpy as np
from conftest import FILLER, WORDS

from tiny_tasks import Tiny

ANSWERS = {"weather": "take a coat", "food": "eat it warm", "sport": "run fast"}


def make_tiny_llama(folder: Path) -> Path:
    """Save a Llama of two layers and 32 dimensions with a byte-level tokenizer of 300 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    words = [*FILLER, *(w for ws in WORDS.values() for w in ws), *ANSWERS.values(), "### User:\n", "### Assistant:\n"]
    tokenizer.train_from_iterator([f"{word} {word}" for word in words], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                                   additional_special_tokens=["<|im_start|>", "<|im_end|>"], model_max_length=128)  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, attention_bias=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=False)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def conversation(random: np.random.Generator, kind: str, number: int) -> list[dict[str, str]]:
    """A question about a kind of thing with its answer; every fifth goes on."""
    asks = f"{' '.join(random.choice(FILLER, 3))} {random.choice(WORDS[kind])} {number}"
    turns = [{"role": "user", "content": asks}, {"role": "assistant", "content": ANSWERS[kind]}]
    more = [{"role": "user", "content": "and"}, {"role": "assistant", "content": ANSWERS["food"]}]
    return turns + (more if number % 5 == 0 else [])


def write_conversations(path: Path, count: int, seed: int = 0) -> None:
    """A JSON Lines file of chat messages."""
    random = np.random.default_rng(seed)
    rows = [{"messages": conversation(random, list(WORDS)[i % 3], i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make(folder: Path) -> Tiny:
    """20 conversations to learn, 8 to measure."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    write_conversations(folder / "data" / "train.jsonl", 20)
    write_conversations(folder / "data" / "test.jsonl", 8, seed=5)
    return Tiny(make_tiny_llama(folder / "model"), folder / "data", {"max_length": 96, "max_new_tokens": 6})
