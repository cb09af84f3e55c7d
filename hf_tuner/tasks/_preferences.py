"""Rows that say which answer is better, and the losses that learn from them.

A pair has `prompt`, `chosen` and `rejected`; a judged row has `prompt`, `completion` and `label` (1 good, 0 bad). The
losses are functions of the log-probabilities of whole answers, one loss a row, so that they add up over any cut.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._conversations import COLUMNS as TALK
from hf_tuner.tasks._conversations import Message, conversation_layout, messages_of, plain, said, whole
from hf_tuner.tasks._task import EmptyRow, Layout, RowError

if TYPE_CHECKING:
    import torch

LOSSES = ("dpo", "ipo", "orpo", "simpo", "kto")
REFERENCED = ("dpo", "ipo", "kto")
"""Losses that set the model beside its start."""
BETA = {"dpo": 0.1, "ipo": 0.1, "orpo": 0.1, "simpo": 2.0, "kto": 0.1}
COLUMNS = {
    "prompt": TALK["prompt"],
    "chosen": ("chosen", "chosen_response", "preferred", "accepted"),
    "rejected": ("rejected", "rejected_response", "dispreferred"),
    "completion": TALK["completion"],
    "label": ("label", "labels", "desirable", "thumbs_up"),
    "system": TALK["system"],
    "tools": TALK["tools"],
}
GOOD = {"true": 1, "1": 1, "good": 1, "desirable": 1, "chosen": 1, "yes": 1, "thumbs_up": 1,
        "false": 0, "0": 0, "bad": 0, "undesirable": 0, "rejected": 0, "no": 0, "thumbs_down": 0}  # fmt: skip
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
"""How turns begin in dialogues that are one text (HH-RLHF)."""


def preference_layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """Pairs, judged completions, or (to predict) prompts alone. Raises UsageError when none fits."""
    names = {name.lower(): name for name in features}
    found = {name: given.get(name) or next((names[n] for n in known if n in names), "")
             for name, known in COLUMNS.items()}  # fmt: skip
    beside = {name: found[name] for name in ("system", "tools") if found[name]}
    if found["chosen"] and found["rejected"]:
        columns = {name: found[name] for name in ("prompt", "chosen", "rejected") if found[name]}
        return Layout("pairs of answers", {**columns, **beside}, lambda row: _pair(row, columns, beside))
    if bool(found["chosen"]) != bool(found["rejected"]):
        have, lack = ("chosen", "rejected") if found["chosen"] else ("rejected", "chosen")
        raise UsageError(f'a column "{found[have]}" of {have} answers, none of {lack} ones; found: {", ".join(features)}\n'
                         f"say which: --columns {lack}=COLUMN")  # fmt: skip
    talk = {k: v for k, v in given.items() if k != "label"}
    below = conversation_layout({k: v for k, v in features.items() if k != found["label"]}, first, talk)
    if not found["label"]:
        return below

    def judged(row: dict[str, Any]) -> dict[str, Any]:
        made = below.convert(row)
        if not made["completion"]:
            raise RowError("no answer that could be good or bad")
        return {**made, "label": _label(row.get(found["label"]))}

    return Layout("judged answers", {**below.columns, "label": found["label"]}, judged)


def _pair(row: Mapping[str, Any], columns: Mapping[str, str], beside: Mapping[str, str]) -> dict[str, Any]:
    sides = [row.get(columns[name]) for name in ("chosen", "rejected")]
    if "prompt" in columns and row.get(columns["prompt"]):
        prompt = said(row[columns["prompt"]], "user", columns["prompt"])
        answers = [
            _answer(side, columns[name], prompt) for name, side in zip(("chosen", "rejected"), sides, strict=True)
        ]
    else:
        talks = [_dialogue(side, columns[name]) for name, side in zip(("chosen", "rejected"), sides, strict=True)]
        same = next((i for i, (a, b) in enumerate(zip(*talks, strict=False)) if a != b), min(map(len, talks)))
        if not same:
            raise RowError("chosen and rejected have no beginning in common, and there is no prompt")
        prompt, answers = talks[0][:same], [talk[same:] for talk in talks]
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        if not answer or answer[0]["role"] != "assistant":
            raise RowError(f'"{columns[name]}" holds no answer of the assistant')
    if answers[0] == answers[1]:
        raise RowError("chosen and rejected are the same answer: nothing is preferred")
    made = whole(prompt, row, beside, answers[0])
    return {"prompt": made["prompt"], "chosen": answers[0], "rejected": answers[1], "tools": made["tools"]}


def _answer(value: Any, column: str, prompt: Sequence[Message]) -> list[Message]:
    """Messages of an answer; a list that repeats the prompt first is cut behind it."""
    messages = said(value, "assistant", column)
    return messages[len(prompt) :] if messages[: len(prompt)] == list(prompt) else messages


def _dialogue(value: Any, column: str) -> list[Message]:
    """A conversation that is a list of messages, or one text with "Human:" and "Assistant:" before its turns."""
    if isinstance(value, list):
        return messages_of(value)
    if value is None or not str(value).strip():
        raise EmptyRow(f'"{column}" is empty')
    parts = TURN.split(str(value))
    if len(parts) < 3:
        raise RowError(f'"{column}" is text without "Human:" and "Assistant:", and there is no prompt column')
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return [plain(roles[role], text.strip()) for role, text in turns if text.strip()]


def _label(value: Any) -> int:
    known = GOOD.get(str(value).strip().lower().removesuffix(".0"))
    if known is None:
        raise RowError(f'the label "{str(value)[:40]}" is neither true (1, good) nor false (0, bad)')
    return known


def pair_losses(
    loss: str,
    logps: "torch.Tensor",
    reference: "torch.Tensor | None",
    tokens: "torch.Tensor",
    settings: Mapping[str, float],
) -> "torch.Tensor":
    """The loss of each pair [pairs] from log-probabilities of the answers [pairs, 2], chosen first.

    dpo: Rafailov et al. 2023, arXiv 2305.18290. ipo: Azar et al. 2023, arXiv 2310.12036, over tokens' means. simpo: Meng
    et al. 2024, arXiv 2405.14734. orpo: Hong et al. 2024, arXiv 2403.07691; its likelihood part is added by the caller.
    `tokens` [pairs, 2] are the answers' lengths; `settings` have beta and simpo_gamma.
    """
    import torch
    from torch.nn.functional import logsigmoid

    beta, mean = settings["beta"], logps / tokens
    if loss == "simpo":
        return -logsigmoid(beta * (mean[:, 0] - mean[:, 1]) - settings["simpo_gamma"])
    if loss == "orpo":
        odds = mean - torch.log(-torch.expm1(mean.clamp(max=-1e-7)))
        return -beta * logsigmoid(odds[:, 0] - odds[:, 1])
    ratio = logps - (reference if reference is not None else 0.0)
    if loss == "ipo":
        ratio = ratio / tokens
        return (ratio[:, 0] - ratio[:, 1] - 1 / (2 * beta)).square()
    return -logsigmoid(beta * (ratio[:, 0] - ratio[:, 1]))


def judged_losses(
    ratio: "torch.Tensor",
    unrelated: "torch.Tensor",
    good: "torch.Tensor",
    weight: "torch.Tensor",
    settings: Mapping[str, float],
) -> "torch.Tensor":
    """KTO's loss of each row [rows]: Ethayarajh et al. 2024, arXiv 2402.01306, equation 7.

    `ratio` is the log-probability of the answer less its reference, `unrelated` the same for an answer to another prompt:
    its mean over the rows (`weight` 0 leaves out) is how far the model is from its start, without gradient.
    """
    from torch import sigmoid

    far = ((unrelated * weight).sum() / weight.sum().clamp(min=1)).detach().clamp(min=0)
    beta = settings["beta"]
    gain = settings["desirable_weight"] * (1 - sigmoid(beta * (ratio - far)))
    pain = settings["undesirable_weight"] * (1 - sigmoid(beta * (far - ratio)))
    return gain.where(good, pain)


def rewards(loss: str, logps: Any, reference: Any, tokens: Any, beta: float) -> Any:
    """Implicit rewards, the shape of `logps`: beta times how much likelier an answer is than at the start.

    Losses without a reference take the mean log-probability of a token.
    """
    return beta * (logps - reference) if loss in REFERENCED else beta * logps / tokens
