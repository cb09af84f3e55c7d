"""preference: layouts, losses equal to trl's for the same weights, the reference computed once, a margin that rises."""

import json
import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command
from datasets import Dataset
from tiny_tasks.preference import write_pairs
from tiny_tasks.sft import make_tiny_llama

from hf_tuner import finetune
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.evaluate import evaluate
from hf_tuner.evaluation.reference import still
from hf_tuner.models.foreign import tokenizer_of
from hf_tuner.tasks._conversations import text_of
from hf_tuner.tasks._task import RowError
from hf_tuner.tasks.preference import Preference

TALK = [{"role": "user", "content": "say"}]
GOOD, BAD = [{"role": "assistant", "content": "coat"}], [{"role": "assistant", "content": "no"}]
LAYOUTS = [
    {"prompt": "say", "chosen": "coat", "rejected": "no"},
    {"prompt": TALK, "chosen": GOOD, "rejected": BAD},
    {"chosen": TALK + GOOD, "rejected": TALK + BAD},
    {"prompt": "say", "chosen": TALK + GOOD, "rejected": TALK + BAD},
    {"chosen": "\n\nHuman: say\n\nAssistant: coat", "rejected": "\n\nHuman: say\n\nAssistant: no"},
    {"question": "say", "chosen": "coat", "rejected": "no"},
]


@pytest.mark.parametrize("row", LAYOUTS)
def test_layouts_become_pairs(row: dict) -> None:
    made = Preference.layout(dict.fromkeys(row), [row], {}).convert(row)
    assert [text_of(made[name]) for name in ("prompt", "chosen", "rejected")] == [
        "user: say", "assistant: coat", "assistant: no"]  # fmt: skip
    assert Preference.layout(dict.fromkeys(made), [made], {}).convert(made) == made


@pytest.mark.parametrize(("value", "good"), [(True, 1), ("bad", 0), (1.0, 1), ("False", 0)])
def test_judged_answers_are_read(value: Any, good: int) -> None:
    row = {"prompt": "say", "completion": "coat", "label": value}
    layout = Preference.layout(dict.fromkeys(row), [row], {})
    assert layout.name == "judged answers" and layout.convert(row)["label"] == good


@pytest.mark.parametrize(("row", "said"), [
    ({"prompt": "say", "chosen": "no", "rejected": "no"}, "the same answer"),
    ({"chosen": "coat", "rejected": "no"}, "no prompt column"),
    ({"chosen": TALK + GOOD, "rejected": BAD}, "no beginning in common"),
    ({"prompt": "say", "completion": "coat", "label": "perhaps"}, "neither true"),
])  # fmt: skip
def test_rows_that_show_no_preference(row: dict, said: str) -> None:
    with pytest.raises(RowError, match=said):
        Preference.layout(dict.fromkeys(row), [row], {}).convert(row)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(UsageError, match="--columns rejected=COLUMN"):
        Preference.layout({"prompt": None, "chosen": None}, [], {})


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model folder, data folder with pairs, tokenizer, model that moved from its start, start."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("pairs")
    (folder / "data").mkdir()
    (folder / "model").mkdir()
    make_tiny_llama(folder / "model")
    write_pairs(folder / "data" / "train.jsonl", 20)
    write_pairs(folder / "data" / "test.jsonl", 8, seed=5)
    found = tokenizer_of(str(folder / "model"))
    Preference().dress(found)
    start = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    moved = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return folder, found, moved, start


def batch_of(setup: Any, task: Preference, count: int) -> dict[str, Any]:
    """A batch of training rows with their reference, as fit makes it."""
    folder, found, _, start = setup
    rows = load_data(Run(task="preference", dataset=str(folder / "data")), Preference)["train"]
    ready = rows.map(task.encode(found, 96), batched=True, remove_columns=rows.column_names)
    batch = task.collate(found)(task.pack(ready, "train", 96).to_list()[:count])
    with torch.no_grad():
        reference = torch.stack([torch.as_tensor(row) for row in task.outputs(start, dict(batch))])
    return {**batch, **({"reference": reference.float()} if task.refers else {})}


def ours(setup: Any, task: Preference, batch: dict[str, Any]) -> float:
    with torch.no_grad():
        return float(task.loss(setup[2], dict(batch)) / task.items(batch))


def bare(kind: type, model: Any, **settings: Any) -> Any:
    """A trainer of trl with what its loss reads and nothing else."""
    from accelerate import Accelerator

    made = object.__new__(kind)
    counts: Any = defaultdict(lambda: defaultdict(list))
    known = {"model": model, "accelerator": Accelerator(cpu=True), "aux_loss_enabled": False, "_metrics": counts,
             "_total_train_tokens": 0, "_tp_size": 1, "precompute_ref_logps": True, "label_smoothing": 0.0,
             "is_encoder_decoder": False, "padding_value": 0, "pad_token_id": 0}  # fmt: skip
    for name, value in {**known, **settings}.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(("ours_is", "theirs_is"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_dpo_and_ipo_are_those_of_trl(ours_is: str, theirs_is: str, setup: Any) -> None:
    trl = pytest.importorskip("trl")
    from trl.trainer.dpo_trainer import add_fused_lm_head

    task = Preference(preference_loss=ours_is, beta=0.3)
    batch = batch_of(setup, task, 6)
    trainer = bare(trl.DPOTrainer, setup[2], ld_alpha=None, f_divergence_type="reverse_kl", beta=0.3, loss_types=[theirs_is],
                   loss_weights=[1.0], use_weighting=False)  # fmt: skip
    expected = ours(setup, task, batch)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"],
              "completion_mask": batch["learnt"].ne(-100).long(), "ref_chosen_logps": batch["reference"][:, 0],
              "ref_rejected_logps": batch["reference"][:, 1]}  # fmt: skip
    with torch.no_grad(), fused(add_fused_lm_head, setup[2]) as model:
        assert float(trainer._compute_loss(model, inputs, False)) == pytest.approx(expected, abs=1e-5)


def fused(add: Any, model: Any) -> Any:
    """trl's forward on a copy of the model."""
    import contextlib
    import copy
    import inspect

    other = copy.deepcopy(model)
    known = inspect.signature(add).parameters
    names = ("log_probs", "entropy", "is_top1", "mean_logits", "log_sum_sq_probs")
    add(other, **({"outputs": names} if "outputs" in known else {}))
    return contextlib.nullcontext(other)


def sides(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch of pairs in the columns of trl's older trainers."""
    half = len(batch["labels"])
    parts = {"chosen": slice(0, half), "rejected": slice(half, None)}
    keys = {"input_ids": "input_ids", "attention_mask": "attention_mask", "labels": "learnt"}
    return {f"{name}_{key}": batch[mine][where] for name, where in parts.items() for key, mine in keys.items()}


def test_orpo_is_that_of_trl(setup: Any) -> None:
    """Pair by pair: trl averages the likelihood over the tokens of a batch, the paper and we over pairs."""
    pytest.importorskip("trl")
    from trl.experimental.orpo import ORPOTrainer

    task = Preference(preference_loss="orpo", beta=0.2)
    trainer = bare(ORPOTrainer, setup[2], beta=0.2)
    whole = batch_of(setup, task, 5)
    each = []
    for i in range(5):
        one = {k: v[[i, i + 5]] if len(v) == 10 else v[[i]] for k, v in whole.items()}
        with torch.no_grad():
            each.append(float(trainer.get_batch_loss_metrics(setup[2], sides(one))[0]))
        assert ours(setup, task, one) == pytest.approx(each[-1], abs=1e-5)
    assert ours(setup, task, whole) == pytest.approx(sum(each) / 5, abs=1e-5)


def test_simpo_is_that_of_trl(setup: Any) -> None:
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOTrainer

    task = Preference(preference_loss="simpo", simpo_gamma=0.7)
    batch = batch_of(setup, task, 6)
    trainer = bare(CPOTrainer, setup[2], beta=2.0, simpo_gamma=0.7, loss_type="simpo", cpo_alpha=0.0, alpha=0.0)
    with torch.no_grad():
        theirs = float(trainer.get_batch_loss_metrics(setup[2], sides(batch))[0])
    assert ours(setup, task, batch) == pytest.approx(theirs, abs=1e-5)


def test_kto_is_that_of_trl(setup: Any) -> None:
    trl = pytest.importorskip("trl")
    from trl.trainer.kto_trainer import add_fused_lm_head

    task = Preference(preference_loss="kto", desirable_weight=1.5)
    batch = batch_of(setup, task, 7)
    assert sorted(set(batch["labels"].tolist())) == [0, 1], "pairs give good answers and bad ones"
    half = len(batch["labels"])
    trainer = bare(
        trl.KTOTrainer,
        setup[2],
        beta=0.1,
        desirable_weight=1.5,
        undesirable_weight=1.0,
        loss_type="kto",
        calculate_KL=True,
    )
    inputs = {
        "label": batch["labels"].bool(),
        "ref_logps": batch["reference"][:, 0],
        "ref_KL_logps": batch["reference"][:, 1],
    }
    for prefix, where in (("", slice(0, half)), ("KL_", slice(half, None))):
        inputs |= {f"{prefix}input_ids": batch["input_ids"][where], f"{prefix}attention_mask": batch["attention_mask"][where],
                   f"{prefix}completion_mask": batch["learnt"][where].ne(-100).long()}  # fmt: skip
    expected = ours(setup, task, batch)
    with torch.no_grad(), fused(add_fused_lm_head, setup[2]) as model:
        assert float(trainer._compute_loss(model, inputs, False)) == pytest.approx(expected, abs=1e-5)


def test_an_unrelated_answer_follows_its_rows_own_prompt(setup: Any) -> None:
    batch = batch_of(setup, Preference(preference_loss="kto"), 4)
    own, other = batch["learnt"][:4], batch["learnt"][4:]
    begin = own.ne(-100).int().argmax(dim=1)
    assert (other.ne(-100).int().argmax(dim=1) == begin).all()
    for row in range(4):
        assert batch["input_ids"][4 + row, : begin[row]].tolist() == batch["input_ids"][row, : begin[row]].tolist()
    answers = [row[row != -100].tolist() for row in own]
    assert other[1][other[1] != -100].tolist() == answers[0]


def test_filler_counts_for_nothing(setup: Any) -> None:
    for kind in ("dpo", "orpo", "kto"):
        task = Preference(preference_loss=kind)
        batch = batch_of(setup, task, 3)
        with_filler = {k: v.clone() for k, v in batch_of(setup, task, 4).items()}
        with_filler["labels"][3] = -100
        assert ours(setup, task, with_filler) == pytest.approx(ours(setup, task, batch), abs=1e-6), kind


@pytest.fixture(scope="module")
def trained(setup: Any) -> Any:
    return run_of(setup, "lora", "dpo")


def run_of(setup: Any, method: str, loss: str) -> Any:
    folder = setup[0]
    where = folder / f"{method}-{loss}"
    report = finetune("preference", model=str(folder / "model"), dataset=str(folder / "data"), method=method, output_dir=str(where),
                      preference_loss=loss, max_steps=20, learning_rate=3e-3, save_strategy="no", verify=False, max_length=96,
                      per_device_train_batch_size=10)  # fmt: skip
    return where, report


def test_dpo_raises_the_chosen_margin(trained: Any) -> None:
    _, report = trained
    before, after = report.baselines["before"]["test"], report.metrics["test"]
    assert before["margin"]["value"] == 0 and after["margin"]["low"] > 0.1
    assert after["accuracy"]["value"] == 1


def test_a_saved_adapter_is_measured_beside_its_base(trained: Any) -> None:
    folder, report = trained
    _, _, scores = evaluate(folder)
    assert set(scores) == set(report.metrics["test"]) and next(iter(scores)) == "margin"
    assert scores["margin"]["value"] == pytest.approx(report.metrics["test"]["margin"]["value"], rel=1e-5)
    assert scores["margin"]["base"] == 0 and scores["accuracy"]["base"] == 0.5
    before = report.baselines["before"]["test"]["chosen_logp"]["value"]
    assert scores["chosen_logp"]["base"] == pytest.approx(before, rel=1e-5)
    shown = [line.split() for line in command("evaluate", folder).stdout.splitlines()]
    assert ["metric", "value", "95", "%", "interval", "base"] in shown
    assert next(line for line in shown if line[0] == "margin")[-1] == "0.0000"


@pytest.mark.parametrize("bf16", [False, True])
def test_the_first_loss_is_that_of_a_model_set_beside_itself(bf16: bool, setup: Any, tmp_path: Path) -> None:
    """ln 2, in bf16 too (to what its rounding does in batches of another make-up), and with dropout in the configuration."""
    shutil.copytree(setup[0] / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    finetune("preference", model=str(tmp_path / "model"), dataset=str(setup[0] / "data"), output_dir=str(tmp_path / "run"),
             max_steps=1, bf16=bf16, verify=False, per_device_train_batch_size=4)  # fmt: skip
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=3e-4 if bf16 else 1e-6)


def test_dropout_goes_but_that_of_an_adapter() -> None:
    model = torch.nn.ModuleDict({"drop": torch.nn.Dropout(0.1), "lora_dropout": torch.nn.Dropout(0.2)})
    model.attention_dropout = 0.3
    assert still(model) and (model["drop"].p, model["lora_dropout"].p, model.attention_dropout) == (0.0, 0.2, 0.0)
    assert not still(model)


@pytest.mark.parametrize("loss", ["kto", "simpo"])
def test_other_losses_raise_it_too(loss: str, setup: Any) -> None:
    _, report = run_of(setup, "full", loss)
    after = report.metrics["test"]["margin"]["value"]
    assert math.isfinite(after) and after > report.baselines["before"]["test"]["margin"]["value"]


def test_judged_answers_and_a_loss_for_pairs_are_refused(setup: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"say {i}", "completion": "coat", "label": i % 2} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match="--preference-loss kto learns from them"):
        finetune(
            "preference",
            model=str(setup[0] / "model"),
            dataset=str(tmp_path / "rows.jsonl"),
            output_dir=str(tmp_path / "run"),
        )


def measured(logps: list, labels: list, learnt: list, loss: str = "dpo") -> dict[str, float]:
    """Scores of rows at the start: rewards are the log-probabilities."""
    rows = {"labels": labels, "learnt": learnt, "reference": [[0.0] * len(row) for row in logps]}
    ready = Dataset.from_dict(rows)
    return Preference(preference_loss=loss).quick([np.array(row) for row in logps], ready, ready)


def test_rows_without_an_answer_count_for_nothing_and_ties_for_half() -> None:
    whole, nothing = [[-100, 5], [-100, 5]], [[-100, -100], [-100, -100]]
    scores = measured([[-1.0, -3.0], [0.0, 0.0]], [1, 1], [whole, nothing])
    assert scores["accuracy"] == 1.0 and scores["chosen_logp"] == -1.0
    assert measured([[-1.0, -1.0]], [1], [whole])["accuracy"] == 0.5


def test_judged_rows_of_one_kind_have_no_margin() -> None:
    scores = measured([[-1.0], [-2.0]], [1, 1], [[[-100, 5]]] * 2, "kto")
    assert scores == {"chosen_logp": -1.5}
