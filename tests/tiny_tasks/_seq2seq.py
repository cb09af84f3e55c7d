"""Models that write, and the words that they know, for summarization and translation."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ENGLISH = "a man woman dog cat sees likes holds the red blue old house ball tree . bank rain stopped today".split()
GERMAN = "ein mann frau hund katze sieht mag hält das rote blaue alte haus ball baum . bank regen hielt heute".split()


def tokenizer_of(words: Iterable[str], *, begin: bool) -> Any:
    """Words by number; every text ends with </s> and, where asked, begins with <s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*special, *words]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    single = "<s> $A </s>" if begin else "$A </s>"
    core.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
    )


def t5(folder: Path, words: Iterable[str]) -> Path:
    """A T5 of two layers on each side."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = tokenizer_of(words, begin=False)
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
                      decoder_start_token_id=1, pad_token_id=1, eos_token_id=2, bos_token_id=0,
                      task_specific_params={"summarization": {"prefix": "short : "}})  # fmt: skip
    return _saved(T5ForConditionalGeneration(config), tokenizer, folder)


def bart(folder: Path, words: Iterable[str]) -> Path:
    """A BART of two layers on each side."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = tokenizer_of(words, begin=True)
    torch.manual_seed(0)
    config = BartConfig(vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
                        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, dropout=0.0,
                        max_position_embeddings=64)  # fmt: skip
    return _saved(BartForConditionalGeneration(config), tokenizer, folder)


def pegasus(folder: Path, words: Iterable[str]) -> Path:
    """A Pegasus of two layers on each side."""
    import torch
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    tokenizer = tokenizer_of(words, begin=False)
    torch.manual_seed(0)
    config = PegasusConfig(vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, dropout=0.0,
                           encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                           max_position_embeddings=64, decoder_start_token_id=1, pad_token_id=1, eos_token_id=2,
                           bos_token_id=0, forced_eos_token_id=2,
                           task_specific_params={"summarization": {"prefix": "short : "}})  # fmt: skip
    return _saved(PegasusForConditionalGeneration(config), tokenizer, folder)


def llama(folder: Path, words: Iterable[str]) -> Path:
    """A Llama of two layers, which has no encoder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(words, begin=False)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64, bos_token_id=0,
                         eos_token_id=2, pad_token_id=1)  # fmt: skip
    return _saved(LlamaForCausalLM(config), tokenizer, folder)


def _saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def write_summaries(path: Path, count: int, seed: int = 0) -> Path:
    """Rows of three sentences and the first words of the first; every second row with two references."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        sentences = [" ".join([*random.choice(ENGLISH[:-5], 5), "."]) for _ in range(3)]
        short = " ".join(sentences[0].split()[:3])
        known = [short, "a dog ."] if i % 2 else [short]
        rows.append({"source": " ".join(sentences), "summary": short, "references": known, "title": f"t{i}"})
    return _lines(path, rows)


def write_translations(path: Path, count: int, seed: int = 0) -> Path:
    """Rows of one sentence in two languages, word by word."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = random.integers(0, len(ENGLISH), int(random.integers(3, 9)))
        rows.append(
            {"translation": {"en": " ".join(ENGLISH[w] for w in words), "de": " ".join(GERMAN[w] for w in words)}}
        )
    return _lines(path, rows)


def _lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
