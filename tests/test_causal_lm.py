"""causal-lm: documents become pieces, every token but the first is learnt once, perplexity is that of a plain loop."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_tasks import causal_lm as tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_tuner import finetune, predict
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import at_one
from hf_tuner.tasks._writing import Writing
from hf_tuner.tasks.causal_lm import CausalLM, Config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with its tokenizer."""
    return tiny.make_llama(tmp_path_factory.mktemp("lm") / "model")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    """Whole words; no special tokens are added by it."""
    return AutoTokenizer.from_pretrained(folder)


def pieces(texts: list[str], tokenizer: Any, size: int = 64, **settings: Any) -> Dataset:
    """Texts encoded by the task."""
    rows = Dataset.from_dict({"text": texts})
    return rows.map(CausalLM(**settings).encode(tokenizer, size), batched=True, remove_columns=["text"])


def test_every_token_but_the_first_is_learnt_once_and_the_end_too(tokenizer: Any) -> None:
    text = " ".join(["rain sun the wind"] * 10)
    made = pieces([text, "sun"], tokenizer, block_size=8)
    whole = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    first = [row for row in made if row["first"]]
    assert len(first) == 2 and first[1]["labels"] == [-100, tokenizer.eos_token_id]
    learnt = [label for row in list(made)[:-1] for label in row["labels"] if label != -100]
    assert learnt == whole[1:]
    assert all(len(row["input_ids"]) == row["length"] <= 8 for row in made)


def test_bytes_of_pieces_add_up_to_those_of_the_text(tokenizer: Any) -> None:
    text = "rain sun the wind " * 9
    made = pieces([text.strip()], tokenizer, block_size=8)
    assert sum(made["bytes"]) == len(text.strip()) - len("rain")


def test_perplexity_is_that_of_a_plain_loop(folder: Path, tokenizer: Any) -> None:
    texts = ["rain sun the wind", "bread soup with cheese and apple " * 4, "team"]
    task, model = CausalLM(), AutoModelForCausalLM.from_pretrained(folder).eval()
    ready = pieces(texts, tokenizer)
    with torch.inference_mode():
        kept = task.outputs(model, task.collate(tokenizer)(ready.to_list()))
        loss, count = 0.0, 0
        for text in texts:
            ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
            loss += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    scores = at_one(task.measure(kept, ready, None))
    assert scores["perplexity"] == pytest.approx(math.exp(loss / count), rel=1e-5)
    assert scores["bits_per_byte"] == pytest.approx(loss / math.log(2) / sum(ready["bytes"]), rel=1e-5)


def test_measuring_holds_few_logits_at_once(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = CausalLM(), AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = task.collate(tokenizer)(
        pieces(["rain sun the wind", "bread soup " * 4, "team", "goal run"], tokenizer).to_list()
    )
    seen, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: seen.append(k["input_ids"].shape) or forward(*a, **k))
    with torch.inference_mode():
        whole = task.outputs(model, dict(batch))
        monkeypatch.setattr(
            "hf_tuner.tasks._language.LOGITS", 2 * batch["input_ids"].shape[1] * model.config.vocab_size
        )
        parts = task.outputs(model, dict(batch))
    assert [shape[0] for shape in seen] == [4, 2, 2]
    np.testing.assert_allclose(np.stack(whole), np.stack(parts), rtol=1e-6)


def test_the_bootstrap_draws_documents_with_all_their_pieces(tokenizer: Any) -> None:
    ready = pieces(["rain sun the wind " * 8, "sun wind"], tokenizer, block_size=8)
    kept = [np.array([2.0 * row["first"] + 1, 1.0]) for row in ready]
    measures = CausalLM().measure(kept, ready, None)
    assert measures.rows == 2
    only_second = measures.scores["loss"](np.array([[0.0, 1.0]]))
    assert only_second[0] == 3.0


def test_text_files_are_read_by_paragraph_or_whole(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("One\nline two\n\n\n  \nSecond text\n" + "\nmore\n" * 20)
    (tmp_path / "test.txt").write_text("Something else\n\nAnd more of it")
    run = Run(task="causal-lm", dataset=str(tmp_path), output_dir=str(tmp_path / "out"), task_config=Config())
    data = load_data(run, CausalLM)
    assert data["train"]["text"][:2] == ["One\nline two", "Second text"] and data["test"].num_rows == 2
    whole = Run(task="causal-lm", dataset=str(tmp_path), output_dir=str(tmp_path / "out"), separator="file",
                task_config=Config())  # fmt: skip
    assert load_data(whole, CausalLM)["test"]["text"][:] == ["Something else\n\nAnd more of it"]


def test_blank_rows_are_left_out_when_training_and_named_when_answering(tmp_path: Path) -> None:
    from hf_tuner.data.layouts import arranged

    rows = Dataset.from_dict({"text": ["", "one", " ", "two"]})
    assert arranged(rows, CausalLM, None)["text"][:] == ["one", "two"]
    with pytest.raises(UsageError, match='row 1, row 3: column "text" is empty'):
        arranged(rows, CausalLM, None, answers=False)


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [({"a": ["x"], "b": ["y"]}, {}, "--columns text="), ({"n": [1]}, {"text": "n"}, "holds int, expected text")],
)
def test_what_is_no_text_is_refused(columns: dict, given: dict, said: str) -> None:
    from hf_tuner.data.layouts import arranged

    with pytest.raises(UsageError, match=said):
        arranged(Dataset.from_dict(columns), CausalLM, ",".join(f"{k}={v}" for k, v in given.items()) or None)


def test_blocks_longer_than_the_longest_text_are_refused() -> None:
    run = Run(task="causal-lm", output_dir=".", task_config=Config(block_size=1024))
    with pytest.raises(UsageError, match="--max-length 1024"):
        CausalLM.from_data({}, run)


def test_prompts_leave_room_for_an_answer(tokenizer: Any) -> None:
    encode = Writing(max_new_tokens=10).encode(tokenizer, 16)
    long = encode({"text": ["rain sun the wind " * 8, ""]})
    assert long["length"] == [6, 1] and long["input_ids"][1] == [tokenizer.bos_token_id]
    assert long["input_ids"][0] == tokenizer("rain sun the wind " * 8)["input_ids"][-6:]
    with pytest.raises(UsageError, match="at most 15 leave room"):
        Writing(max_new_tokens=16).encode(tokenizer, 16)


def test_writing_does_not_depend_on_the_neighbours_in_a_batch(folder: Path, tokenizer: Any) -> None:
    model, task = AutoModelForCausalLM.from_pretrained(folder).eval(), Writing(max_new_tokens=6)
    texts = ["rain sun", "bread soup with cheese and apple", "team"]
    rows = [dict(zip(("input_ids", "length"), pair, strict=True))
            for pair in zip(*task.encode(tokenizer, 64)({"text": texts}).values(), strict=True)]  # fmt: skip
    with torch.inference_mode():
        together = task.outputs(model, task.collate(tokenizer)(rows))
        alone = [task.outputs(model, task.collate(tokenizer)([row]))[0] for row in rows]
    assert [a.tolist() for a in together] == [a.tolist() for a in alone]
    assert all(len(a) <= 6 for a in together)


def test_a_text_learnt_by_heart_is_written_and_ends_by_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.txt").write_text("\n\n".join(["rain sun wind cloud storm snow"] * 8))
    finetune("causal-lm", model=str(folder), dataset=str(tmp_path / "data"), method="full", output_dir=str(tmp_path / "run"),
             max_steps=60, learning_rate=0.01, per_device_train_batch_size=4, save_strategy="no", verify=False,
             bf16=False)  # fmt: skip
    answer = predict(tmp_path / "run", ["rain sun"], max_new_tokens=20)[0]
    assert answer == {"prediction": "wind cloud storm snow", "finished": True}
