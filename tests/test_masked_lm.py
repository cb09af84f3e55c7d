"""masked-lm: whole words are hidden, the same ones however a run is cut, and the loss is that of the model alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from datasets import Dataset
from tiny_tasks.causal_lm import write_texts
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, set_seed

from hf_tuner.errors import UsageError
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks._filling import Filling
from hf_tuner.tasks._masking import Masking, words_of
from hf_tuner.tasks.masked_lm import MaskedLM
from hf_tuner.training.batching import EPOCH, Rows

MASK = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("mlm"))


def row(words: list[int], **more: Any) -> dict[str, Any]:
    """An encoded row whose token ids are 100, 101 …"""
    return {"input_ids": list(range(100, 100 + len(words))), "words": words, **more}


def test_whole_words_are_hidden_and_special_tokens_never() -> None:
    hide = Masking(MASK, 50, 0.3, 0)
    words = [-1, 0, 0, 0, 1, 2, 2, 3, 4, 4, -1]
    for number in range(50):
        ids, labels = hide(row(words, row=number, epoch=0))
        hidden = labels != -100
        assert 0 < hidden.sum() <= 4 or hidden.sum() <= 3
        assert not hidden[0] and not hidden[-1]
        for word in range(5):
            assert len(set(hidden[np.array(words) == word])) == 1
        assert (labels[hidden] == np.arange(100, 111)[hidden]).all() and (
            ids[~hidden] == np.arange(100, 111)[~hidden]
        ).all()


def test_shares_are_those_asked_for() -> None:
    hide, words = Masking(MASK, 50, 0.15, 0), list(range(200))
    seen = [hide(row(words, row=number, epoch=1)) for number in range(200)]
    ids, labels = (np.concatenate([pair[i] for pair in seen]) for i in (0, 1))
    hidden = labels != -100
    assert hidden.mean() == pytest.approx(0.15, abs=0.001)
    assert (ids[hidden] == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (ids[hidden] == labels[hidden]).mean() == pytest.approx(0.1, abs=0.015)


def test_what_is_hidden_depends_on_seed_epoch_and_row_alone() -> None:
    hide, words = Masking(MASK, 50, 0.15, 0), list(range(60))

    def drawn(hide: Masking, **more: Any) -> list[int]:
        return np.flatnonzero(hide(row(words, **more))[1] != -100).tolist()

    first = drawn(hide, row=3, epoch=1)
    assert drawn(Masking(MASK, 50, 0.15, 0), row=3, epoch=1) == first
    others = [
        drawn(hide, row=4, epoch=1),
        drawn(hide, row=3, epoch=2),
        drawn(Masking(MASK, 50, 0.15, 1), row=3, epoch=1),
    ]
    assert first not in others
    assert drawn(hide) == drawn(hide)  # measuring


def test_filler_has_no_labels_and_texts_of_a_block_share_no_word() -> None:
    hide = Masking(MASK, 50, 0.5, 0)
    assert (hide(row([0, 1, 2], row=-1, epoch=0))[1] == -100).all()
    for number in range(20):
        hidden = hide(row([0, 0, 0, 0], sizes=[2, 2], row=number, epoch=0))[1] != -100
        assert hidden.sum() == 2 and hidden[0] == hidden[1]


def test_rows_tell_the_epoch_with_the_row() -> None:
    rows = Rows(Dataset.from_dict({"input_ids": [[1], [2]]}))
    dealt = rows.__getitems__([1, 2 * EPOCH + 1, 2 * EPOCH + 5])
    assert [(r["row"], r["epoch"], r["input_ids"]) for r in dealt] == [(1, 0, [2]), (1, 2, [2]), (-1, 2, [1])]


def test_words_are_tokens_where_the_tokenizer_knows_none() -> None:
    assert words_of([5, 9, 8, 6], None, {5, 6}) == [-1, 1, 2, -1]
    assert words_of([5, 9, 8, 6], [None, 0, 0, None], {5, 6}) == [-1, 0, 0, -1]


def test_long_texts_are_split_and_pieces_know_where_a_document_begins(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = MaskedLM(block_size=10).encode(tokenizer, 64)({"text": ["rain sun wind " * 8, "sun"]})
    assert made["first"] == [1, 0, 0, 1] and made["length"] == [10, 10, 10, 3]
    assert all(words[0] == words[-1] == -1 for words in made["words"])


def test_packed_and_unpacked_give_the_same_loss_on_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    set_seed(1)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    task = MaskedLM(block_size=32).suit(model, 64)
    assert task.packing == packing.MASK, "position ids alone never keep the texts of an encoder apart"
    rows = Dataset.from_json(str(write_texts(tmp_path / "t.jsonl", 20, 3)))
    plain = rows.map(task.encode(tokenizer, 64), batched=True, remove_columns=rows.column_names)
    blocks = task.pack(plain, "train", 64)
    assert len(blocks) < len(plain)
    hidden = {}  # the same tokens are hidden in both: those of each text, by its own content
    masking = Masking.of(tokenizer, 0.15, 42)
    for one in plain:
        hidden[tuple(one["input_ids"])] = masking(one)

    def batch(rows: Dataset) -> dict[str, Any]:
        made = task.collate(tokenizer)(rows.to_list())
        for place, one in enumerate(rows):
            at = 0
            for size in packing.sizes_of(one):
                ids, labels = hidden[tuple(one["input_ids"][at : at + size])]
                made["input_ids"][place, at : at + size] = torch.from_numpy(ids)
                made["labels"][place, at : at + size] = torch.from_numpy(labels)
                at += size
            made["labels"][place, at:] = -100
        return made

    with torch.inference_mode():
        one, other = (float(task.loss(model, batch(part))) for part in (plain, blocks))
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("name", ["Roberta", "Electra", "DistilBert", "ModernBert"])
def test_other_encoders_keep_texts_apart_or_are_not_packed(name: str) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} if name == "DistilBert" else sizes
    more = {"pad_token_id": 1 if name == "Roberta" else 0, **({"local_attention": 16} if name == "ModernBert" else {})}
    config = getattr(transformers, f"{name}Config")(vocab_size=60, max_position_embeddings=80, **sizes, **more)
    set_seed(0)
    found, start = packing.style(AutoModelForMaskedLM.from_config(config), 64, causal=False)
    # A mask of our own would open ModernBERT's windows: the texts are longer than one, and it is found out.
    assert (found, start) == {"Roberta": (packing.MASK, 2), "ModernBert": (packing.OFF, 0)}.get(name, (packing.MASK, 0))


def test_gaps_are_filled_as_the_pipeline_does(folder: Path) -> None:
    from transformers import pipeline

    set_seed(1)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    task, text = Filling(top_k=3), "it was [MASK] today"
    rows = Dataset.from_dict({"text": [text]})
    ready = rows.map(task.encode(tokenizer, 64), batched=True, remove_columns=["text"])
    with torch.inference_mode():
        kept = task.outputs(model, task.collate(tokenizer)(ready.to_list()))
    answer = task.answers(kept, ready, rows, tokenizer)[0]
    expected = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=3)(text)
    assert [f["token"] for f in answer["fills"][0]] == [e["token_str"] for e in expected]
    assert answer["score"] == pytest.approx(expected[0]["score"], rel=1e-5)
    assert answer["prediction"] == expected[0]["sequence"]


def test_a_text_without_a_gap_comes_back_and_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer, task = (
        AutoModelForMaskedLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        Filling(),
    )
    ready = Dataset.from_dict({"text": ["it was rain"]}).map(task.encode(tokenizer, 64), batched=True)
    with torch.inference_mode():
        kept = task.outputs(model, task.collate(tokenizer)(ready.to_list()))
    assert task.answers(kept, ready, None, tokenizer) == [{"prediction": "it was rain", "score": None, "fills": []}]
    assert "1 of 1 texts have no gap that is read (row 1): nothing is filled" in capsys.readouterr().err


def test_a_tokenizer_without_a_mask_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.mask_token = None
    with pytest.raises(UsageError, match="--task causal-lm"):
        MaskedLM().encode(tokenizer, 64)


def test_a_head_that_came_with_the_model_stays_frozen_under_an_adapter(folder: Path, tmp_path: Path) -> None:
    from hf_tuner.config import Run
    from hf_tuner.methods.lora import Config
    from hf_tuner.models.load import load_model

    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "whole")
    config = BertConfig.from_pretrained(folder)
    BertForMaskedLM(config).save_pretrained(tmp_path / "whole")
    for model, new in ((folder, ("cls.predictions",)), (tmp_path / "whole", ())):
        run = Run(task="masked-lm", model=str(model), output_dir=str(tmp_path), method_config=Config())
        loaded = load_model(run, MaskedLM())
        assert loaded.tuner_notes["new_head"] == new
        assert any("cls" in n for n, p in loaded.named_parameters() if p.requires_grad) is bool(new)
