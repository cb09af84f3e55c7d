"""Rows of several texts: an encoded row holds the token ids of all its texts, a batch holds them flat, one a line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

ABSENT = -1
"""In `place`: this row has no text in this column."""


def grouped(tokens: Mapping[str, list], sizes: Sequence[int]) -> dict[str, list]:
    """Tokens of flat texts as one list for each row, which has `sizes` of them; `length` is that of a row's longest."""
    result: dict[str, list] = {name: [] for name in ("input_ids", "token_type_ids") if name in tokens}
    start = 0
    for size in sizes:
        for name, rows in result.items():
            rows.append([list(ids) for ids in tokens[name][start : start + size]])
        start += size
    result["length"] = [max(map(len, ids), default=1) for ids in result["input_ids"]]
    return result


def collate_groups(tokenizer: Any, padded: int = 0) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """A function from encoded rows to one batch in which every text of every row is a line of its own.

    input_ids, attention_mask (and token_type_ids) [texts, tokens]; `place` [rows, columns] says which line a row's text
    is, ABSENT where it has none; `same` [texts] numbers equal texts alike; `labels` is what the rows have, each number or
    list of them flat. Texts are padded to `padded` tokens, 0: to the longest of the batch.
    """
    import torch

    keep = ("input_ids", "token_type_ids")
    padding: dict[str, Any] = {"padding": "max_length", "max_length": padded} if padded else {}

    def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        flat = {name: [ids for row in rows for ids in row[name]] for name in keep if name in rows[0]}
        result = dict(tokenizer.pad(flat, return_tensors="pt", **padding))
        sizes = [len(row["input_ids"]) for row in rows]
        place = torch.full((len(rows), max(sizes)), ABSENT)
        start = 0
        for number, size in enumerate(sizes):
            place[number, :size] = torch.arange(start, start + size)
            start += size
        known: dict[tuple[int, ...], int] = {}
        same = [known.setdefault(tuple(ids), len(known)) for ids in flat["input_ids"]]
        result |= {"place": place, "same": torch.tensor(same)}
        if "labels" in rows[0]:
            labels = [row["labels"] for row in rows]
            flat_labels = [one for label in labels for one in (label if isinstance(label, list) else [label])]
            result["labels"] = torch.tensor(flat_labels, dtype=torch.float)
        return result

    return batch
