"""What the tasks on conversations share: reading them, a chat template on the tokenizer, answering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_tuner.config import Run
from hf_tuner.console import count
from hf_tuner.tasks import _conversations as conversations
from hf_tuner.tasks import _templates as templates
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._models import require_decoder
from hf_tuner.tasks._task import Findings, Task, Usage
from hf_tuner.tasks._writing import Writing

SAMPLES = (
    "Name three colours.",
    "Write one sentence about the sea.",
    "¿Dónde está la biblioteca? 42 %, 3.14 — ok",
    "What is two and two?",
)
MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Answering(Writing):
    """Answers conversations: what the assistant says next."""

    def prompts(self, tokenizer: Any, batch: dict[str, list], room: int) -> list[list[int]]:
        """Token ids of each conversation, up to where the assistant begins."""
        tools = batch.get("tools") or [""] * len(batch["prompt"])
        return templates.prompt_ids(tokenizer, list(zip(batch["prompt"], tools, strict=True)))


@dataclass(frozen=True, kw_only=True)
class ChatTask(Task):
    """A language model that answers in a chat template."""

    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    pipeline: ClassVar[str] = "text-generation"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = conversations.COLUMNS
    targets: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    new_head: ClassVar[bool] = False
    before: ClassVar[bool] = True

    chat_template: str = "auto"
    max_new_tokens: int = 64

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> Any:
        """The task with the settings of the run; a template file is read here. Raises UsageError when it is not there."""
        settings = settings_of(cls, run)
        return cls(**{**settings, "chat_template": templates.template_text(settings["chat_template"])})

    def require_model(self, config: Any, model: str) -> None:
        """Raise UsageError for a model that is no decoder."""
        require_decoder(config, model, self.name)

    def dress(self, processor: Any) -> str:
        """Give the tokenizer the chat template, and the token that ends a turn as its end."""
        return templates.dress(processor, self.chat_template)

    def answering(self, **settings: Any) -> Task:
        """`predict` answers each conversation."""
        return Answering(max_new_tokens=self.max_new_tokens).answering(**settings)

    def samples(self) -> list[dict[str, Any]]:
        """Questions, and one conversation of several turns."""
        answer = [conversations.plain("assistant", "Red, green and blue.")]
        asked = [{"prompt": [conversations.plain("user", text)], "completion": answer, "tools": ""} for text in SAMPLES]
        turns = [*asked[0]["prompt"], *answer, conversations.plain("user", "And a fourth?")]
        return [*asked, {"prompt": turns, "completion": answer, "tools": ""}]

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        return (
            "It says what is likely after a text like those it was trained on, true or not.",
            "It knows no conversation that is longer than the tokens it was trained with.",
        )

    def usage(self, max_length: int) -> Usage:
        """How a stranger talks with it."""
        return Usage(
            reads="a column `prompt`, or `messages` as JSON",
            example='["Name three colours."]',
            answer="It prints the next message of the assistant; the tokenizer brings the chat template, and its end token is "
            "where an answer ends.",
            lines=(
                'messages = [{"role": "user", "content": "Name three colours."}]',
                "inputs = tokenizer.apply_chat_template(",
                '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
                ")",
                'start = inputs["input_ids"].shape[1]',
                f"written = model.generate(**inputs, max_new_tokens={self.max_new_tokens}, do_sample=False,",
                "                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)",
                'print({"role": "assistant", "content": tokenizer.decode(written[0, start:], skip_special_tokens=True)})',
            ),
        )


def odd_orders(data: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Warnings about conversations (`columns` of messages, joined) whose roles are out of order."""
    warnings = []
    for split, rows in data.items():
        faults: dict[str, list[int]] = {}
        for number, parts in enumerate(zip(*(rows[name] for name in columns), strict=True)):
            odd = conversations.out_of_order([message for part in parts for message in part])
            if odd:
                faults.setdefault(odd, []).append(number + 1)
        for odd, numbers in faults.items():
            named = ", ".join(map(str, numbers[:MOST_NAMED])) + (", …" if len(numbers) > MOST_NAMED else "")
            many = len(numbers) != 1
            warnings.append(f"{split}: roles are out of order in {count(len(numbers))} conversation{'s' * many}, {odd} "
                            f"(row{'s' * many} {named})")  # fmt: skip
    return warnings


def talk(data: Mapping[str, Any], wanted: str) -> Findings:
    """What is odd in conversations of `prompt` and `completion`; rows without the `wanted` answer are errors."""
    found = Findings(warnings=odd_orders(data, ("prompt", "completion")))
    train = data["train"]
    for split, rows in data.items():
        for number, (prompt, completion) in enumerate(zip(rows["prompt"], rows["completion"], strict=True)):
            if not completion and not any(m["role"] == "assistant" for m in prompt):
                found.errors.append((split, number, wanted))
    turns = [sum(m["role"] == "assistant" for m in [*p, *c])
             for p, c in zip(train["prompt"], train["completion"], strict=True)]  # fmt: skip
    several, tools = sum(n > 1 for n in turns), sum(bool(t) for t in train["tools"])
    found.facts["conversations"] = {"rows": len(turns), "turns": sum(turns), "several": several, "tools": tools}
    found.lines["talk"] = f"{count(len(turns))} conversations, {count(sum(turns))} turns of the assistant" + (
        f"; {count(several)} with several" if several else ""
    ) + (f"; {count(tools)} with tools" if tools else "")  # fmt: skip
    return found
