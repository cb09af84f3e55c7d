"""sft: every layout becomes conversations, the assistant's turns are found exactly, each ends once, and the model stops."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tasks.sft import ANSWERS, make_tiny_llama, write_conversations

from hf_tuner import finetune, predict
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.models.foreign import tokenizer_of
from hf_tuner.models.restore import restore
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks import _templates as templates
from hf_tuner.tasks._conversations import messages_of, out_of_order, plain, text_of
from hf_tuner.tasks._task import EmptyRow, RowError
from hf_tuner.tasks.sft import SFT

CHATML = templates.GENERATION.sub("", templates.BUILT_IN["chatml"])
UNMARKED = CHATML.replace("{{ '\\n' }}", "{{ '\\n' ~ '' }}")
"""The same text by a template that is in no list: nothing is known about it."""
LAST_ONLY = UNMARKED.replace("{{ m.content }}", "{{ m.content if loop.last else m.content | upper }}", 1)
"""Earlier answers are written otherwise than the last."""
NO_END = (
    "{% for m in messages %}{{ m.role ~ ':\n' ~ m.content ~ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
TALK = [
    plain("user", "the rain"),
    plain("assistant", "take a coat"),
    plain("user", "and"),
    plain("assistant", "eat it warm"),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


def tokenizer(folder: Path, template: str = "auto") -> Any:
    """A tokenizer with the template."""
    found = tokenizer_of(str(folder))
    templates.dress(found, template)
    return found


def encoded(folder: Path, template: str = "auto", loss_on: str = "assistant", talk: Any = TALK, limit: int = 96) -> Any:
    """One conversation whose last message is the completion."""
    found = tokenizer(folder, template)
    made = templates.encode(found, templates.chat_of(found), [(talk[:-1], talk[-1:], "")], loss_on, limit)[0]
    return found, made


def learnt(found: Any, made: Any) -> list[str]:
    """The runs of tokens that are learnt, as text."""
    runs, open_run = [], []
    for token, label in [*zip(made.ids, made.labels, strict=True), (0, -100)]:
        if label != -100:
            open_run.append(token)
        elif open_run:
            runs.append(found.decode(open_run))
            open_run = []
    return runs


ALPACA = {"instruction": "say", "input": "rain", "output": "coat"}
LAYOUTS = [
    ({"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": "coat"}]}, "chat messages",
     "user: say\nassistant: coat"),
    ({"conversations": [{"from": "system", "value": "be"}, {"from": "human", "value": "say"}, {"from": "gpt", "value": "coat"}]},
     "ShareGPT conversations", "system: be\nuser: say\nassistant: coat"),
    (ALPACA, "instructions (alpaca)", "user: say\n\nrain\nassistant: coat"),
    ({**ALPACA, "input": ""}, "instructions (alpaca)", "user: say\nassistant: coat"),
    ({"prompt": "say", "completion": "coat"}, "prompts and completions", "user: say\nassistant: coat"),
    ({"prompt": [{"role": "user", "content": "say"}], "completion": [{"role": "assistant", "content": "coat"}]},
     "prompts and completions", "user: say\nassistant: coat"),
    ({"question": "say", "answer": "coat"}, "questions and answers", "user: say\nassistant: coat"),
    ({"system": "be", "prompt": "say", "response": "coat"}, "prompts and completions", "system: be\nuser: say\nassistant: coat"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "name", "text"), LAYOUTS)
def test_layouts_become_conversations(row: dict, name: str, text: str) -> None:
    layout = SFT.layout(dict.fromkeys(row), [row], {})
    made = layout.convert(row)
    assert layout.name == name and text_of([*made["prompt"], *made["completion"]]) == text
    assert [m["role"] for m in made["completion"]] == ["assistant"]
    again = SFT.layout(dict.fromkeys(made), [made], {}).convert(made)
    assert again == made, "rows that are read once read the same again"


def test_tools_and_calls_pass_through(llama: Path) -> None:
    call = {"type": "function", "function": {"name": "rain", "arguments": {"city": "Ulm", "when": None}}}
    row = {"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                        {"role": "tool", "content": "wet"}, {"role": "assistant", "content": "coat"}],
           "tools": json.dumps([{"name": "rain"}])}  # fmt: skip
    made = SFT.layout(dict.fromkeys(row), [row], {}).convert(row)
    found = tokenizer(llama)
    whole = templates.encode(
        found, templates.chat_of(found), [(made["prompt"], made["completion"], made["tools"])], "assistant", 500
    )
    text = found.decode(whole[0].ids)
    assert '"name": "rain"' in text.partition("user")[0] and '"arguments": {"city": "Ulm"}' in text
    assert [part[:5] for part in learnt(found, whole[0])] == ['[{"ty', "coat<"]


@pytest.mark.parametrize(("value", "kind", "said"), [
    ([{"role": "usr", "content": "x"}], RowError, 'did you mean "user"'),
    ([{"role": "user", "content": " "}], EmptyRow, "an empty turn of the user"),
    ([], EmptyRow, "no messages"),
    ("hello", RowError, "no JSON"),
    ([{"role": "user", "content": [{"type": "image"}]}], RowError, "only text is read"),
])  # fmt: skip
def test_messages_that_cannot_be_read(value: Any, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        messages_of(value)


def test_columns_that_hold_no_conversation_are_refused_with_what_would_be_read() -> None:
    with pytest.raises(UsageError, match="expected messages"):
        SFT.layout({"a": None}, [{"a": "x"}], {})


@pytest.mark.parametrize(("roles", "said"), [
    ("system user assistant user assistant", ""), ("user assistant tool assistant", ""), ("user user assistant", "user after user"),
    ("assistant user", "the assistant speaks first"), ("user system", "system after user"),
    ("user tool", "a tool answers after user"),
])  # fmt: skip
def test_order_of_roles(roles: str, said: str) -> None:
    assert out_of_order([plain(role, "x") for role in roles.split()]) == said


def test_odd_rows_are_named_and_rows_without_answers_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    rows = [good, [{"role": "user", "content": "again"}, *good]]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": r}) + "\n" for r in rows * 5))
    load_data(Run(task="sft", dataset=str(path)), SFT)
    assert "roles are out of order in" in (seen := capsys.readouterr().err) and "user after user (rows 2," in seen
    path.write_text(path.read_text() + json.dumps({"messages": good[:1]}) + "\n")
    with pytest.raises(UsageError, match=r"rows.jsonl row 11: no turn of the assistant"):
        load_data(Run(task="sft", dataset=str(path)), SFT)


@pytest.mark.parametrize("template", ["auto", UNMARKED, "plain", NO_END])
def test_every_turn_of_the_assistant_is_learnt_with_its_end_once(template: str, llama: Path) -> None:
    found, made = encoded(llama, template)
    end = found.eos_token
    assert learnt(found, made) == [f"take a coat{end}", f"eat it warm{end}"]
    assert made.turns == made.ends == 2 and made.labels.count(found.eos_token_id) == 2
    assert end == ("</s>" if template in ("plain", NO_END) else "<|im_end|>")


def test_loss_on_completion_and_on_all(llama: Path) -> None:
    found, made = encoded(llama, loss_on="completion")
    assert learnt(found, made) == ["eat it warm<|im_end|>"]
    found, made = encoded(llama, loss_on="all")
    assert made.labels == [-100, *made.ids[1:]]


def test_a_template_that_rewrites_earlier_turns_is_refused_unless_the_last_is_enough(llama: Path) -> None:
    with pytest.raises(UsageError, match="writes earlier turns otherwise"):
        encoded(llama, LAST_ONLY)
    found, made = encoded(llama, LAST_ONLY, "completion")
    assert learnt(found, made) == ["eat it warm<|im_end|>"]


def test_what_is_cut_off_is_not_counted_as_ended(llama: Path) -> None:
    whole = encoded(llama)[1]
    cut = encoded(llama, limit=len(whole.ids) - 2)[1]
    assert cut.ids == whole.ids[:-2] and cut.turns == cut.ends == 1


def test_an_answer_that_holds_the_end_itself_is_refused(llama: Path) -> None:
    with pytest.raises(UsageError, match=r"holds <\|im_end\|> itself"):
        encoded(llama, talk=[plain("user", "x"), plain("assistant", "a<|im_end|>b")])


def test_templates_are_chosen_and_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; expected auto, chatml, plain"):
        templates.template_text("chatmi")
    with pytest.raises(UsageError, match="leaves out what the assistant says"):
        tokenizer(llama, "{{ 'nothing' }}")
    file = tmp_path / "own.jinja"
    file.write_text(NO_END)
    assert templates.template_text(str(file)) == NO_END
    plain_only = make_tiny_llama(tmp_path)
    config = json.loads((plain_only / "tokenizer.json").read_text().replace("<|im_", "<|xx_"))
    (plain_only / "tokenizer.json").write_text(json.dumps(config))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (plain_only / name).is_file():
            (plain_only / name).write_text((plain_only / name).read_text().replace("<|im_", "<|xx_"))
    bare = tokenizer_of(str(plain_only))
    with pytest.raises(UsageError, match="plain needs none"):
        templates.dress(bare, "chatml")
    assert templates.dress(bare, "auto").startswith("plain (the model has none)")
    assert bare.eos_token == "</s>"


def test_labels_are_those_of_trl(llama: Path) -> None:
    """The mask that trl's SFTTrainer makes with assistant_only_loss, for a template with generation marks."""
    pytest.importorskip("trl")
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(llama)
    pairs = sorted((Path(__import__("trl").__file__).parent / "chat_templates").glob("qwen2_5*.jinja"))
    own = {path.name: path.read_text() for path in pairs}
    assert templates.training_template(own["qwen2_5.jinja"]) == own["qwen2_5_training.jinja"]
    for template in (own["qwen2_5.jinja"], templates.BUILT_IN["chatml"]):
        made = encoded(llama, template, limit=500)[1]
        messages = [{"role": m["role"], "content": m["content"]} for m in TALK]
        mask = theirs.apply_chat_template(messages, chat_template=templates.training_template(template), return_dict=True,
                                          return_assistant_tokens_mask=True)  # fmt: skip
        assert made.ids == list(mask["input_ids"])
        assert made.labels == [
            t if on else -100 for t, on in zip(mask["input_ids"], mask["assistant_masks"], strict=True)
        ]


def test_packed_conversations_have_the_loss_they_have_alone(llama: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    write_conversations(tmp_path / "rows.jsonl", 12)
    rows = load_data(Run(task="sft", dataset=str(tmp_path / "rows.jsonl")), SFT)["train"]
    found, model = tokenizer(llama), AutoModelForCausalLM.from_pretrained(llama).eval()
    task = SFT(packing="off")
    ready = rows.map(task.encode(found, 96), batched=True, remove_columns=rows.column_names)
    packed = SFT().suit(model, 96).pack(ready, "train", 96)
    assert isinstance(packed, Dataset) and len(packed) < len(ready)
    losses = []
    for how, data in ((task, ready), (SFT(packing=packing.style(model, 96, causal=True)[0]), packed)):
        with torch.no_grad():
            batch = how.collate(found)(data.to_list())
            losses.append((float(how.loss(model, dict(batch))), int(how.items(batch))))
    assert losses[0][1] == losses[1][1] and losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)


def test_proofs_see_a_mask_that_covers_nothing_or_all(llama: Path) -> None:
    from datasets import Dataset

    row = {"input_ids": [1, 2, 3], "length": 3, "turns": 1, "ends": 1}
    for labels, passed in (([-100, 2, 3], True), ([-100] * 3, False), ([1, 2, 3], False)):
        assert SFT().masks(Dataset.from_list([{**row, "labels": labels}]))[0][1] is passed
    twice = Dataset.from_list([{**row, "labels": [-100, 2, 3], "ends": 2}])
    assert not SFT().masks(twice)[1][1]


@pytest.fixture(scope="module")
def overfitted(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt 20 conversations by heart."""
    data = tmp_path_factory.mktemp("talk")
    write_conversations(data / "train.jsonl", 20)
    finetune("sft", model=str(llama), dataset=str(data), method="full", output_dir=str(data / "run"), num_train_epochs=40,
             learning_rate=5e-3, save_strategy="no", max_length=96, max_new_tokens=24, verify=False, per_device_train_batch_size=4,
             warmup_steps=5)  # fmt: skip
    return data


@pytest.mark.fault(35)
def test_the_model_stops_by_itself_after_overfitting(overfitted: Path) -> None:
    rows = [json.loads(line)["messages"] for line in (overfitted / "train.jsonl").read_text().splitlines()]
    asked = [{"prompt": messages[:1]} for messages in rows]
    answers = predict(overfitted / "run", asked)
    assert all(answer["finished"] for answer in answers)
    right = sum(answer["prediction"] == messages[1]["content"] for answer, messages in zip(answers, rows, strict=True))
    assert right >= 18 and {answer["prediction"] for answer in answers} <= set(ANSWERS.values())


def test_the_saved_run_brings_template_end_and_generation_end(overfitted: Path) -> None:
    saved = restore(overfitted / "run")
    assert "<|im_start|>" in saved.processor.chat_template and saved.processor.eos_token == "<|im_end|>"
    ends = json.loads((overfitted / "run" / "generation_config.json").read_text())["eos_token_id"]
    assert saved.processor.eos_token_id in ends


def test_the_screen_shows_the_mask(overfitted: Path, llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finetune("sft", model=str(llama), dataset=str(overfitted / "train.jsonl"), method="lora", output_dir=str(overfitted / "short"),
             max_steps=1, save_strategy="no", verify=False, max_length=96)  # fmt: skip
    seen = capsys.readouterr().out
    assert "chat messages" in seen and "% of" in seen and "<|im_start|>assistant" in seen
    assert "kept apart by position ids" in seen


def test_marks_that_touch_are_one_turn() -> None:
    assert templates._joined([(0, 3), (3, 5), (7, 9)]) == [(0, 5), (7, 9)]
