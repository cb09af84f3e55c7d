"""Long rows in overlapping windows, and rows of unequal length in one batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any


@dataclass(frozen=True)
class Window:
    """Words `begin` … `end` of a row, and those among them that are answered here: `own` … `own_end`."""

    begin: int
    end: int
    own: int
    own_end: int


def windows(sizes: Sequence[int], room: int, stride: int) -> list[Window]:
    """Windows over words of `sizes` tokens (none over `room`), of at most `room` tokens; neighbours share up to `stride`.

    A word in two windows belongs to the one where it stands farther from the edge. No words give one empty window.
    """
    until = [0, *accumulate(sizes)]
    found, begin, count = [], 0, len(sizes)
    while True:
        end = begin
        while end < count and until[end + 1] - until[begin] <= room:
            end += 1
        found.append((begin, end))
        if end >= count:
            break
        begin = next(
            k
            for k in range(begin + 1, end + 1)
            if until[end] - until[k] <= stride and until[end + 1] - until[k] <= room
        )
    cuts = [0]
    for (_, end), (begin, _) in pairwise(found):
        middle = (until[begin] + until[end]) / 2
        cuts.append(next((k for k in range(begin, end) if until[k] >= middle), end))
    cuts.append(count)
    return [Window(*place, *owned) for place, owned in zip(found, pairwise(cuts), strict=True)]


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and after a text."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return list(whole[:at]), list(whole[at + len(plain) :])


def word_ids(tokenizer: Any) -> Callable[[Sequence[str], Sequence[bool]], list[list[int]]]:
    """A function from words, and whether a space stands before each, to their token ids: at least one a word.

    Tokenisers that count the space before a word to it (byte-level BPE) are told apart by trying.
    """

    def ids(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []

    whole, first, bare, spaced = ids(["a b", "a", "b", " b"])
    mark = " " if first + bare != whole and first + spaced == whole else ""
    known = (tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    nothing = [next((token for token in known if token is not None), 0)]

    def words(texts: Sequence[str], after_space: Sequence[bool]) -> list[list[int]]:
        keys = [mark + text if space else text for text, space in zip(texts, after_space, strict=True)]
        distinct = list(dict.fromkeys(keys))
        found = dict(zip(distinct, ids(distinct), strict=True))
        return [found[key] or nothing for key in keys]

    return words


def groups(numbers: Sequence[int]) -> Iterator[range]:
    """Which encoded rows came from each of the data's rows, by the number of the window in its row (0 begins a row)."""
    starts = [index for index, number in enumerate(numbers) if number == 0]
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        yield range(start, end)


def padded(rows: Sequence[Mapping[str, Any]], fill: Mapping[str, int]) -> dict[str, Any]:
    """Columns of token numbers as tensors int64 [rows, tokens], filled up on the right."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    return {
        name: torch.tensor([[*map(int, row[name]), *[value] * (longest - len(row[name]))] for row in rows])
        for name, value in fill.items()
        if name in rows[0]
    }
