"""From scores of tokens to answers: the best spans of every window of a context, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Candidate:
    """A span of characters of a context, and how high its first and last token score together."""

    score: float
    start: int
    end: int
    text: str


def best_spans(start: "np.ndarray", end: "np.ndarray", longest: int, count: int) -> list[tuple[float, int, int]]:
    """The `count` best (score, first token, last token) of at most `longest` tokens, from scores [tokens]; best first."""
    import numpy as np

    tokens = len(start)
    width = min(longest, tokens)
    if not tokens:
        return []
    beyond = np.concatenate([end, np.full(width, -np.inf, end.dtype)])
    sums = start[:, None] + np.lib.stride_tricks.sliding_window_view(beyond, width)[:tokens]
    flat = sums.ravel()
    some = min(count, flat.size)
    top = np.argpartition(-flat, some - 1)[:some]
    top = top[np.argsort(-flat[top], kind="stable")]
    return [(float(flat[i]), int(i // width), int(i // width + i % width)) for i in top if np.isfinite(flat[i])]


def candidates(windows: Sequence[tuple["np.ndarray", Mapping[str, Any]]], context: str, longest: int,
               count: int) -> tuple[float, list[Candidate]]:  # fmt: skip
    """The score of no answer (the least over windows), and the best different answers, best first.

    A window is its scores [1 + tokens, 2] (the first row is no answer) and its `starts` and `ends` in characters.
    """
    nothing, found = float("inf"), dict[tuple[int, int], float]()
    for scores, place in windows:
        nothing = min(nothing, float(scores[0].sum()))
        for score, first, last in best_spans(scores[1:, 0], scores[1:, 1], longest, count):
            start, end = _trimmed(context, place["starts"][first], place["ends"][last])
            if start < end:
                found[start, end] = max(score, found.get((start, end), score))
    best = sorted(found.items(), key=lambda item: -item[1])[:count]
    return nothing, [Candidate(score, start, end, context[start:end]) for (start, end), score in best]


def probabilities(scores: Sequence[float]) -> list[float]:
    """Softmax."""
    import numpy as np

    values = np.asarray(scores, np.float64)
    shifted = np.exp(values - values.max(initial=-np.inf))
    return (shifted / shifted.sum()).tolist()


def shortened(tokenizer: Any, questions: Sequence[str], longest: int) -> list[str]:
    """Questions of at most `longest` tokens."""
    found = tokenizer(list(questions), add_special_tokens=False, truncation=True, max_length=longest + 1,
                      return_offsets_mapping=True)  # fmt: skip
    return [question if len(places) <= longest else question[: places[longest - 1][1]]
            for question, places in zip(questions, found["offset_mapping"], strict=True)]  # fmt: skip


def label(answers: Mapping[str, Any], places: Sequence[tuple[int, int]], first: int, null: int) -> list[int]:
    """First and last token of the first answer in a window, both `null` when it is not whole in it."""
    if not answers["text"] or not places:
        return [null, null]
    begin, end = answers["answer_start"][0], answers["answer_start"][0] + len(answers["text"][0])
    if places[0][0] > begin or places[-1][1] < end:
        return [null, null]
    start = next(i for i, (_, stop) in enumerate(places) if stop > begin)
    last = next(i for i in range(len(places) - 1, -1, -1) if places[i][0] < end)
    return [first + start, first + max(start, last)]


def code(max_length: int, longest: int, threshold: float | None) -> tuple[str, ...]:
    """Lines of Python that answer one question from a context of one window; no `threshold` always answers."""
    settled = [
        "nothing = (first[0, 0] + last[0, 0]).item()",
        f'print("no answer" if nothing - scores.max().item() > {threshold!r} else context[start:end])',
    ]
    return (
        "import torch",
        "",
        'question, context = "Who wrote the letter?", "Ann Lee wrote the letter in May."',
        f'inputs = tokenizer(question, context, truncation="only_second", max_length={max_length},',
        '                   return_offsets_mapping=True, return_tensors="pt")',
        'places = inputs.pop("offset_mapping")[0]',
        "inside = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])",
        "with torch.no_grad():",
        "    output = model(**inputs)",
        "first, last = output.start_logits, output.end_logits",
        "scores = first[0][:, None] + last[0][None, :]",
        f"allowed = (inside[:, None] & inside[None, :]).triu().tril({longest - 1})",
        'scores = scores.masked_fill(~allowed, float("-inf"))',
        "begin, stop = divmod(scores.argmax().item(), len(places))",
        "start, end = places[begin][0].item(), places[stop][1].item()",
        *(["print(context[start:end])"] if threshold is None else settled),
    )


def _trimmed(context: str, start: int, end: int) -> tuple[int, int]:
    """Without the white space that some tokenizers count to a word."""
    while start < end and context[start].isspace():
        start += 1
    while end > start and context[end - 1].isspace():
        end -= 1
    return start, end
