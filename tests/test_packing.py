"""Packed texts: blocks that are full, losses that are the same, and no packing where a model cannot keep texts apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from tiny_tasks import causal_lm as tiny
from transformers import AutoTokenizer

from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks.causal_lm import CausalLM

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**SMALL, "num_key_value_heads": 2}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt_neox": ("GPTNeoX", SMALL),
    "opt": ("OPT", {"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "ffn_dim": 64}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
}  # fmt: skip
KEEPS = {"llama": packing.POSITIONS, "gpt2": packing.POSITIONS, "gpt_neox": packing.POSITIONS, "opt": packing.MASK,
         "bloom": packing.OFF, "mamba": packing.OFF}  # fmt: skip


def build(name: str, folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a tiny language model."""
    stem, options = MODELS[name]
    kind = getattr(transformers, f"{stem}ForCausalLM", None) or getattr(transformers, f"{stem}LMHeadModel")
    made = tiny.make_causal(folder / name, kind, getattr(transformers, f"{stem}Config"), **options)
    return kind.from_pretrained(made), AutoTokenizer.from_pretrained(made)


def encoded(task: CausalLM, tokenizer: Any, folder: Path) -> Dataset:
    """20 texts as pieces of at most 32 tokens."""
    rows = Dataset.from_json(str(tiny.write_texts(folder / "texts.jsonl", 20, 3)))
    return rows.map(task.encode(tokenizer, 64), batched=True, remove_columns=rows.column_names)


def total(task: CausalLM, model: Any, tokenizer: Any, rows: Dataset) -> tuple[float, int]:
    """Summed loss and number of items over all rows, in one batch."""
    batch = task.collate(tokenizer)(rows.to_list())
    with torch.inference_mode():
        return float(task.loss(model.eval(), dict(batch))), int(task.items(batch))


@pytest.mark.parametrize("name", MODELS)
def test_packed_and_unpacked_give_the_same_loss_on_the_same_tokens(name: str, tmp_path: Path) -> None:
    model, tokenizer = build(name, tmp_path)
    task = CausalLM(block_size=32).suit(model, 64)
    assert task.packing == KEEPS[name]
    plain = encoded(task, tokenizer, tmp_path)
    blocks = task.pack(plain, "train", 64)
    if task.packing == packing.OFF:
        assert blocks is plain
        return
    assert len(blocks) < len(plain) and max(blocks["length"]) <= 32
    one, other = (total(task, model, tokenizer, rows) for rows in (plain, blocks))
    assert one[1] == other[1] == sum(plain["length"]) - len(plain)
    assert one[0] == pytest.approx(other[0], rel=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_mask_keeps_texts_apart_too(attention: str, tmp_path: Path) -> None:
    folder = tiny.make_llama(tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = CausalLM(block_size=32, packing=packing.MASK)
    plain = encoded(task, tokenizer, tmp_path)
    one, other = (total(task, model, tokenizer, rows) for rows in (plain, task.pack(plain, "train", 64)))
    assert one[0] == pytest.approx(other[0], rel=1e-5)


@pytest.mark.parametrize(("name", "found"), [("llama", packing.MASK), ("gpt2", packing.OFF)])
def test_a_neighbour_that_is_seen_is_found_out(name: str, found: str, tmp_path: Path) -> None:
    """Without position ids neighbours are seen. A mask mends that where places are relative, not where they are learned."""
    model, _ = build(name, tmp_path)
    forward = model.forward
    model.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    assert packing.style(model, 32, causal=True)[0] == found


def test_a_neighbour_is_found_out_however_coarse_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-precision numbers of one text differ from run to run; those beside two neighbours must not."""
    model, _ = build("llama", tmp_path)
    forward = model.forward
    model.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    monkeypatch.setattr(packing, "NEAR", {"float32": 10.0})
    assert packing.style(model, 32, causal=True)[0] == packing.MASK


def test_blocks_hold_every_text_once_and_leave_little_room() -> None:
    lengths = np.random.default_rng(0).integers(1, 33, 500)
    made = packing.blocks(lengths, 32)
    assert sorted(row for block in made for row in block) == list(range(500))
    filled = [sum(int(lengths[row]) for row in block) for block in made]
    assert max(filled) <= 32 and len(made) <= 1.06 * int(lengths.sum()) / 32
    assert packing.blocks([], 32) == []


def test_lists_are_joined_and_numbers_added() -> None:
    rows = Dataset.from_dict({"input_ids": [[1, 2], [3, 4, 5], [6]], "length": [2, 3, 1], "bytes": [10, 20, 30]})
    made = packing.packed(rows.select([0, 1, 2]), 4)
    assert made.to_list() == [
        {"input_ids": [3, 4, 5, 6], "length": 4, "bytes": 50, "sizes": [3, 1]},
        {"input_ids": [1, 2], "length": 2, "bytes": 10, "sizes": [2]},
    ]


def test_places_begin_again_and_padding_is_a_text_of_its_own() -> None:
    made = packing.apart([[2, 3], [4]], 6, packing.MASK, 1)
    assert made["position_ids"].tolist() == [[1, 2, 1, 2, 3, 1], [1, 2, 3, 4, 1, 2]]
    assert made["attention_mask"][0, 0].long().sum(-1).tolist() == [2, 2, 3, 3, 3, 1]
