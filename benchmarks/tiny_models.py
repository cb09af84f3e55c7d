"""Make a small language model from texts at hand and pretrain it for a minute or two, in the layout of the Hub.

    python benchmarks/tiny_models.py gpt --texts FOLDER_OR_FILE --output DIR [--steps 400]
    python benchmarks/tiny_models.py t5 --texts FOLDER_OR_FILE --output DIR [--steps 400]
    python benchmarks/tiny_models.py captioner --texts CAPTIONS --output DIR

`gpt` is a Llama of 1.6 million parameters that learns to go on with the texts; `t5` an encoder–decoder of about the
same size that learns to fill in what was cut out of them (span corruption, Raffel et al. 2020, arXiv 1910.10683). Both
read a byte-level BPE vocabulary of 2,048 tokens that is trained on the same texts, so that nothing is ever unknown.
`captioner` is a BLIP of about the same size for pictures of 96 pixels that has learned nothing but the words of the captions.
Texts are every string of parquet, JSON Lines and .txt files (paragraphs); several places are separated by commas.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    LlamaConfig,
    PreTrainedTokenizerFast,
    T5Config,
    set_seed,
)
from transformers.utils import logging

VOCABULARY, WIDTH, DEPTH, HEADS, POSITIONS = 2048, 128, 4, 4, 512
SENTINELS = 32
"""Tokens that stand for what was cut out."""
CUT, SPAN = 0.15, 3
"""The share of tokens that is cut out, and how many at a time."""
KINDS = (".parquet", ".jsonl", ".txt")


def main() -> None:
    """Read texts, train tokenizer and model, save both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("gpt", "t5", "captioner"))
    parser.add_argument("--texts", required=True, help="files or folders (parquet, jsonl, txt), separated by commas")
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument("--block", type=int, default=128, help="tokens of a row")
    seen = parser.parse_args()
    set_seed(0)
    logging.disable_progress_bar()
    texts = list(read_texts([Path(part) for part in seen.texts.split(",")]))
    if not texts:
        parser.error(f"--texts {seen.texts}: no text in {', '.join(KINDS)} files there")
    tokenizer = train_tokenizer(texts, seen.kind)
    if seen.kind == "captioner":
        save_captioner(tokenizer, seen.output)
        return
    stream = np.concatenate([[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, **PLAIN)["input_ids"]])
    model = (gpt if seen.kind == "gpt" else t5)(tokenizer)
    print(f"{len(texts):,} texts, {len(stream):,} tokens; {sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, stream, tokenizer, seen)
    model.save_pretrained(seen.output)
    tokenizer.save_pretrained(seen.output)
    print(f"saved: {seen.output}")


PLAIN = {"add_special_tokens": False}


def read_texts(places: list[Path]) -> Iterator[str]:
    """Every string in the files of some folders; those whose name says test or validation are left out when others are there."""
    files = [f for place in places for f in ([place] if place.is_file() else sorted(place.rglob("*")))]
    files = [f for f in files if f.suffix in KINDS]
    held = [f for f in files if not any(word in f.name for word in ("test", "validation"))]
    for file in held or files:
        if file.suffix == ".parquet":
            yield from (text for row in pq.read_table(file).to_pylist() for text in strings(row))
        elif file.suffix == ".jsonl":
            yield from (text for line in file.read_text("utf-8").splitlines() for text in strings(json.loads(line)))
        else:
            yield from (part.strip() for part in file.read_text("utf-8").split("\n\n") if part.strip())


def strings(value: Any) -> Iterator[str]:
    """Every string of more than a word inside a value."""
    if isinstance(value, str):
        if " " in value.strip():
            yield value.strip()
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def train_tokenizer(texts: list[str], kind: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; that of T5 ends every text with </s> and knows the sentinels."""
    special = ["<pad>", "</s>", "<s>"] + [f"<extra_id_{i}>" for i in range(SENTINELS if kind == "t5" else 0)]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    )
    if kind == "t5":
        core.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
    names = {"pad_token": "<pad>", "eos_token": "</s>", **({"bos_token": "<s>"} if kind != "t5" else {})}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=POSITIONS, **names)


def gpt(tokenizer: Any) -> Any:
    """A Llama with tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, intermediate_size=3 * WIDTH, max_position_embeddings=POSITIONS,
        tie_word_embeddings=True, **ids_of(tokenizer),
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def t5(tokenizer: Any) -> Any:
    """A T5 (version 1.1: gated feed-forward, no dropout)."""
    config = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=3 * WIDTH, num_layers=3, num_heads=HEADS,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, decoder_start_token_id=tokenizer.pad_token_id,
        **ids_of(tokenizer),
    )  # fmt: skip
    return AutoModelForSeq2SeqLM.from_config(config)


def save_captioner(tokenizer: Any, folder: str) -> None:
    """A BLIP whose text reads 36 patches of a picture, with its processor; nothing of it is trained."""
    size = {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 3 * WIDTH,
    }
    text = {**size, "vocab_size": len(tokenizer), "encoder_hidden_size": WIDTH, "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **ids_of(tokenizer),
            "sep_token_id": tokenizer.eos_token_id}  # fmt: skip
    eyes = {**size, "image_size": 96, "patch_size": 16, "initializer_range": 0.02}  # BLIP's own default is 1e-10
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=eyes))
    pictures = BlipImageProcessor(size={"height": 96, "width": 96})
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, untrained; saved: {folder}")


def ids_of(tokenizer: Any) -> dict[str, int]:
    """Special tokens as a configuration wants them."""
    return {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id}  # fmt: skip


def train(model: Any, stream: np.ndarray, tokenizer: Any, seen: Any) -> None:
    """AdamW with warm-up and a cosine on random windows of the texts."""
    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    warm = max(1, seen.steps // 20)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1.0, s / seen.steps)))
    )
    model.train()
    start, losses = time.monotonic(), []
    for step in range(seen.steps):
        at = random.integers(0, max(1, len(stream) - seen.block), seen.batch)
        windows = [stream[i : i + seen.block] for i in at]
        batch = plain(windows) if seen.kind == "gpt" else corrupted(windows, random, tokenizer)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % max(1, seen.steps // 10) == 0:
            print(f"step {step + 1:>5}  loss {np.mean(losses[-20:]):.3f}  {time.monotonic() - start:.0f} s", flush=True)
    model.eval()


def plain(windows: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Windows as inputs and labels of a causal model."""
    ids = torch.from_numpy(np.stack(windows))
    return {"input_ids": ids, "labels": ids}


def corrupted(windows: list[np.ndarray], random: np.random.Generator, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Windows with spans cut out, a sentinel in each place, and what was cut out as labels."""
    first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    pairs = [_cut(ids, random, first, tokenizer.eos_token_id) for ids in windows]
    inputs, labels = ([torch.tensor(pair[i]) for pair in pairs] for i in (0, 1))
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(inputs, batch_first=True, padding_value=tokenizer.pad_token_id)
    return {"input_ids": ids, "attention_mask": ids.ne(tokenizer.pad_token_id).long(),
            "labels": pad(labels, batch_first=True, padding_value=-100)}  # fmt: skip


def _cut(ids: np.ndarray, random: np.random.Generator, first: int, end: int) -> tuple[list[int], list[int]]:
    spans = min(SENTINELS, max(1, round(len(ids) * CUT / SPAN)))
    starts = np.sort(random.choice(max(1, len(ids) - SPAN), spans, replace=False))
    given: list[int] = []
    wanted: list[int] = []
    at = 0
    for number, start in enumerate(starts):
        given += [*ids[at:start], first + number]
        wanted += [first + number, *ids[max(at, start) : start + SPAN]]
        at = max(at, start + SPAN)
    return [*map(int, given), *map(int, ids[at:]), end], [*map(int, wanted), end]


if __name__ == "__main__":
    main()
