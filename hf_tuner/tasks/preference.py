"""preference: a language model learns which of two answers is better, or which answers are good (DPO, IPO, ORPO, SimPO, KTO)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.console import count, say
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _chat as chat
from hf_tuner.tasks import _language as language
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks import _preferences as preferences
from hf_tuner.tasks import _templates as templates
from hf_tuner.tasks._conversations import plain
from hf_tuner.tasks._task import Findings, Layout, Measures

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of preference tuning."""

    preference_loss: str = option(
        "dpo", "Loss: dpo, ipo, orpo, simpo (pairs of answers) or kto (answers judged alone).", preferences.LOSSES
    )
    beta: float | None = option(
        None, "How closely the model keeps to its start, scale of rewards (default: 0.1; simpo 2)."
    )
    simpo_gamma: float = option(0.5, "simpo: by how much a chosen answer should be ahead.")
    desirable_weight: float = option(1.0, "kto: weight of good answers.")
    undesirable_weight: float = option(1.0, "kto: weight of bad answers.")
    chat_template: str = option(
        "auto", "Chat template: auto (the model's own, else chatml or plain), chatml, plain, or a Jinja file."
    )
    max_new_tokens: int = option(64, "Tokens that predict writes at most.")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        if self.beta is not None and not 0 < self.beta < float("inf"):
            raise ValueError(f"beta is {self.beta}; expected a number above 0")
        if min(self.desirable_weight, self.undesirable_weight) < 0:
            raise ValueError("desirable_weight and undesirable_weight are at least 0")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Preference(chat.ChatTask):
    """Answers to a prompt, one better than the other; the model's start, computed once, is what it is set beside."""

    name: ClassVar[str] = "preference"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("chosen", "rejected"), ("prompt", "completion", "label"))
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = preferences.COLUMNS
    texts: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected", "completion")

    preference_loss: str = "dpo"
    beta: float | None = None
    simpo_gamma: float = 0.5
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Pairs of chosen and rejected answers, or answers with a label."""
        return preferences.preference_layout(features, first, given)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """How many pairs or judged answers there are, and which roles are out of order."""
        train = data["train"]
        if "chosen" in train.column_names:
            warnings = chat.odd_orders(data, ("prompt", "chosen")) + chat.odd_orders(data, ("prompt", "rejected"))
            line, facts = f"{count(len(train))} pairs", {"pairs": len(train)}
        elif "label" in train.column_names:
            warnings, good = chat.odd_orders(data, ("prompt", "completion")), sum(train["label"])
            line = f"{count(len(train))} answers, {count(good)} good and {count(len(train) - good)} bad"
            facts = {"answers": len(train), "good": good}
        else:
            raise UsageError("no preferences in these rows: they are prompts with one answer each, from which --task sft learns; "
                             "expected chosen and rejected, or completion and label; --columns chosen=COLUMN,rejected=COLUMN says "
                             "which")  # fmt: skip
        return Findings(warnings=list(dict.fromkeys(warnings)), lines={"answers": line}, facts={"preferences": facts})

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "Preference":
        """The task with the settings of the run. Raises UsageError when the loss needs other rows."""
        task: Preference = super().from_data(data, run)
        if task.preference_loss != "kto" and "chosen" not in data["train"].column_names:
            raise UsageError(f"--preference-loss {task.preference_loss} compares chosen and rejected answers, and these are "
                             "judged alone; --preference-loss kto learns from them")  # fmt: skip
        return task

    @property
    def refers(self) -> bool:
        """Whether the loss sets the model beside its start."""
        return self.preference_loss in preferences.REFERENCED

    @property
    def settings(self) -> dict[str, float]:
        """Numbers of the losses."""
        beta = self.beta if self.beta is not None else preferences.BETA[self.preference_loss]
        return {"beta": beta, "simpo_gamma": self.simpo_gamma, "desirable_weight": self.desirable_weight,
                "undesirable_weight": self.undesirable_weight}  # fmt: skip

    @property
    def note(self) -> str:
        """Which loss, and what it is set beside."""
        beside = "; the reference is the model before training, its answers' probabilities were computed once"
        return f"{self.preference_loss} with beta {self.settings['beta']:g}" + (
            beside if self.refers else ", without a reference"
        )

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function to `input_ids` and `learnt`, lists with one answer each (chosen, rejected; for kto one).

        `labels` is 1 for pairs and good answers, 0 for bad ones; `length` that of the longest answer with its prompt.
        """
        how, alone = templates.chat_of(tokenizer), self.preference_loss == "kto"

        def rows(batch: dict[str, list]) -> dict[str, list]:
            names = [name for name in ("chosen", "rejected", "completion") if name in batch]
            talks = [(prompt, batch[name][i], batch["tools"][i])
                     for i, prompt in enumerate(batch["prompt"]) for name in names]  # fmt: skip
            made = templates.encode(tokenizer, how, talks, "completion", max_length)
            good = [1, 0] * len(batch["prompt"]) if len(names) == 2 else batch.get("label", [1] * len(made))
            groups = (
                [[one] for one in made] if alone or len(names) == 1 else list(zip(made[::2], made[1::2], strict=True))
            )
            return {
                "input_ids": [[one.ids for one in group] for group in groups],
                "learnt": [[one.labels for one in group] for group in groups],
                "labels": list(good) if len(groups) == len(made) else [1] * len(groups),
                "length": [max(len(one.ids) for one in group) for group in groups],
            }

        return rows

    def pack(self, ready: Any, split: str, max_length: int) -> Any:
        """Training rows whose answers fit; for kto each with the answer of another row, to see how far the model went."""
        if split != "train":
            return ready
        fits = [i for i, sides in enumerate(ready.with_format(None)["learnt"]) if all(max(side) >= 0 for side in sides)]
        if not fits:
            raise UsageError(f"no answer begins within {max_length} tokens: a larger --max-length")
        if len(fits) < len(ready):
            say(
                f"  note      {count(len(ready) - len(fits))} rows are left out: no answer begins within {max_length} tokens"
            )
            ready = ready.select(fits).flatten_indices()
        return _with_unrelated(ready, max_length) if self.preference_loss == "kto" else ready

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function to one batch: all first answers, then all second ones, padded on the right [answers, tokens]."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        pad = tokenizer.pad_token_id

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            sides = range(len(rows[0]["input_ids"]))
            ids = [torch.as_tensor(row["input_ids"][side]) for side in sides for row in rows]
            learnt = [torch.as_tensor(row["learnt"][side]) for side in sides for row in rows]
            lengths = torch.tensor([len(one) for one in ids])
            padded = pad_sequence(ids, True, pad)
            result = {"input_ids": padded, "learnt": pad_sequence(learnt, True, -100),
                      "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long(),
                      "labels": torch.tensor([row["labels"] for row in rows])}  # fmt: skip
            if "reference" in rows[0]:
                result["reference"] = torch.stack([torch.as_tensor(row["reference"]) for row in rows]).float()
            return result

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """The answers count, the prompts do not."""
        tokens = learnt = 0
        for row in ready.select(range(min(len(ready), language.LOOKED_AT))).with_format(None):
            tokens += sum(map(len, row["input_ids"]))
            learnt += sum(label != -100 for side in row["learnt"] for label in side)
        return [
            (
                "answers are compared",
                0 < learnt < tokens,
                f"{learnt / max(1, tokens):.0%} of {count(tokens)} tokens looked at",
            )
        ]

    def example(self, processor: Any, ready: Any) -> str:
        """The first row's answers; what is compared is green, or in brackets."""
        row = ready.with_format(None)[0]
        names = ("chosen", "rejected") if self.preference_loss != "kto" else (("bad", "good")[row["labels"]],)
        shown = [language.marked(processor, ids, [label != -100 for label in learnt])
                 for ids, learnt in zip(row["input_ids"], row["learnt"], strict=True)]  # fmt: skip
        return "\n            ".join(f"{name}: {text}" for name, text in zip(names, shown, strict=False))

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """The preference loss summed over rows; filler counts for nothing."""
        labels, kind = batch["labels"], self.preference_loss
        reference: Any = batch.get("reference")
        weight = labels.ne(-100).float()
        if kind == "kto":
            import torch

            own, unrelated = _half(batch, 0), _half(batch, 1)
            with torch.no_grad():
                far = self._logps(model, unrelated)[0][:, 0] - reference[:, 1]
            ratio = self._logps(model, own)[0][:, 0] - reference[:, 0]
            return (preferences.judged_losses(ratio, far, labels == 1, weight, self.settings) * weight).sum()
        logps, tokens, whole = self._logps(model, batch)
        losses = preferences.pair_losses(kind, logps, reference, tokens, self.settings)
        losses = losses + (whole[:, 0] if kind == "orpo" else 0.0)
        return (losses * weight).sum()

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Log-probabilities of each row's answers [answers], summed over tokens."""
        rows = len(batch["labels"])
        at_once = language.rows_at_once(model, batch["input_ids"]) * rows // len(batch["input_ids"])
        parts = [_some(batch, start, max(1, at_once)) for start in range(0, rows, max(1, at_once))]
        return [row for part in parts for row in self._logps(model, part)[0].double().cpu().numpy()]

    def _logps(self, model: Any, batch: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """[rows, answers]: log-probabilities of the answers, their tokens, and the mean loss of the texts with prompts."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        learnt, rows = batch["learnt"][:, 1:], len(batch["labels"])
        logits = packing.logits_of(model, inputs, causal=True)[:, :-1]
        text = inputs["input_ids"][:, 1:].masked_fill(inputs["attention_mask"][:, 1:] == 0, -100)
        losses = language.token_losses(logits, text if self.preference_loss == "orpo" else learnt)
        answer = learnt.ne(-100)
        logps, tokens = -(losses * answer).sum(dim=1), answer.sum(dim=1).clamp(min=1)
        mean = losses.sum(dim=1) / text.ne(-100).sum(dim=1).clamp(min=1)
        return logps.view(-1, rows).T, tokens.view(-1, rows).T, mean.view(-1, rows).T

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Margin of rewards, how often the better answer has the higher one (ties count half), log-probabilities a token.

        Rows whose answers begin behind the length that is read are left out, as in training.

        Without the model's start (a whole model that was trained alone is at hand) rewards cannot be told: then only what
        needs none is given.
        """
        import numpy as np

        plain_rows = ready.with_format(None)
        tokens = np.array([[sum(t != -100 for t in side[1:]) for side in sides] for sides in plain_rows["learnt"]])
        held = tokens.min(axis=1) > 0
        held = held if held.any() else np.ones_like(held)
        logps, good = np.stack(kept)[held], np.asarray(plain_rows["labels"])[held]
        tokens = tokens[held].clip(min=1)
        known = not self.refers or "reference" in ready.column_names
        start = np.asarray(plain_rows["reference"])[held] if self.refers and known else np.zeros_like(logps)
        reward = preferences.rewards(self.preference_loss, logps, start, tokens, self.settings["beta"])
        if logps.shape[1] == 1:
            return Measures(_judged(reward[:, 0], (logps / tokens)[:, 0], good == 1, known), len(logps))
        from hf_tuner.metrics._weighted import mean

        margin = reward[:, 0] - reward[:, 1]
        scores = {"margin": mean(margin), "accuracy": mean((margin > 0) + 0.5 * (margin == 0))} if known else {}
        each = logps / tokens
        return Measures({**scores, "chosen_logp": mean(each[:, 0]), "rejected_logp": mean(each[:, 1])}, len(logps))

    def samples(self) -> list[dict[str, Any]]:
        """Questions with two answers, or one."""
        asked = [{**row, "tools": ""} for row in super().samples()]
        good, bad = [plain("assistant", "Red, green, blue.")], [plain("assistant", "No.")]
        if self.preference_loss == "kto":
            return [{**row, "completion": good, "label": 1} for row in asked]
        return [{"prompt": row["prompt"], "tools": "", "chosen": good, "rejected": bad} for row in asked]

    @property
    def gives(self) -> str:
        """What it gives for what."""
        return "the assistant's next message in a conversation, in the manner of the preferred answers"


def _judged(reward: "np.ndarray", each: "np.ndarray", good: "np.ndarray", known: bool) -> dict[str, Any]:
    """Scores of answers judged alone: means over the good ones and over the bad ones."""
    import numpy as np

    def over(values: "np.ndarray", which: "np.ndarray") -> Callable[[Any], Any]:
        def score(weights: Any) -> Any:
            with np.errstate(invalid="ignore"):
                return (weights @ (values * which)) / (weights @ which.astype(float))

        return score

    above, below = over(reward, good), over(reward, ~good)
    margin = {"margin": lambda weights: above(weights) - below(weights)} if known else {}
    return {**margin, "chosen_logp": over(each, good), "rejected_logp": over(each, ~good)}


def _some(batch: Mapping[str, Any], start: int, count: int) -> dict[str, Any]:
    """`count` rows of a batch from `start` on, with both answers of each."""
    rows, result = len(batch["labels"]), {}
    for name, value in batch.items():
        sides = value.view(len(value) // rows, rows, *value.shape[1:])
        result[name] = sides[:, start : start + count].flatten(0, 1)
    return result


def _half(batch: Mapping[str, Any], side: int) -> dict[str, Any]:
    """One answer of each row of a batch with two."""
    rows = len(batch["labels"])
    return {
        **batch,
        **{k: batch[k][side * rows : (side + 1) * rows] for k in ("input_ids", "learnt", "attention_mask")},
    }


def _with_unrelated(ready: Any, max_length: int) -> Any:
    """Rows of one answer, each with a second one: the answer of the row before, to its own prompt."""
    from datasets import Dataset

    columns = {name: ready.with_format(None)[name][:] for name in ready.column_names}
    own = list(zip(columns["input_ids"], columns["learnt"], strict=True))
    begins = [next(i for i, label in enumerate(learnt[0]) if label != -100) for _, learnt in own]
    for number, ((ids, learnt), begin) in enumerate(zip(own, begins, strict=True)):
        (other_ids, other_learnt), start = own[number - 1], begins[number - 1]
        columns["input_ids"][number] = [ids[0], (ids[0][:begin] + other_ids[0][start:])[:max_length]]
        columns["learnt"][number] = [learnt[0], ([-100] * begin + other_learnt[0][start:])[:max_length]]
    columns["length"] = [max(map(len, sides)) for sides in columns["input_ids"]]
    return Dataset.from_dict(columns)
