"""Words for the gaps of a text: what `predict` gives for a masked language model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_tuner.console import count, warn
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks._language import few_rows
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Task

if TYPE_CHECKING:
    import numpy as np

MARK = "[MASK]"
"""Stands for a gap, whatever the tokenizer calls it; <mask> is taken too."""

NAMED = 5
"""So many rows without a gap are named."""


@dataclass(frozen=True, kw_only=True)
class Filling(Task):
    """The likeliest tokens for every gap in the `text` of each row."""

    top_k: int = 5

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function to `input_ids` and `length`."""
        mask = tokenizer.mask_token

        def rows(batch: dict[str, list]) -> dict[str, list]:
            texts = [text[: max_length * CHARACTERS_PER_TOKEN].replace(MARK, mask).replace("<mask>", mask)
                     for text in batch["text"]]  # fmt: skip
            ids = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
            return {"input_ids": list(ids), "length": [len(one) for one in ids]}

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function to one padded batch, ids and mask [rows, tokens], and the id of a gap."""
        gap = tokenizer.mask_token_id

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            padded = tokenizer.pad([{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt")
            return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"], "gap": gap}

        return batch

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Ids and probabilities [2, gaps, answers] of each row, the likeliest first."""
        gap, found = batch.pop("gap"), []
        for part in few_rows(model, batch):
            for row, ids in zip(packing.logits_of(model, part, causal=False), part["input_ids"], strict=True):
                best = row[ids == gap].float().softmax(dim=-1).topk(min(self.top_k, row.shape[-1]), dim=-1)
                found.append(_pair(best.indices, best.values))
        return found

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": the text filled, "score": how likely its words are, "fills": [{"token", "score"}] for each gap}.

        A text without a gap comes back as it is, without a score, and is named in a warning.
        """
        result = []
        whole = [str(number) for number, pair in enumerate(kept, start=1) if not pair.shape[1]]
        if whole:
            rows = ", ".join(whole[:NAMED]) + ", …" * (len(whole) > NAMED)
            warn(f"{count(len(whole))} of {count(len(kept))} texts have no gap that is read (row {rows}): nothing is filled, and "
                 f"there is no score; write {MARK} where a word is wanted")  # fmt: skip
        for (ids, scores), row in zip(kept, ready.with_format(None)["input_ids"][:], strict=True):
            fills = [[{"token": processor.decode([int(token)]).strip(), "score": float(score)}
                      for token, score in zip(*gap, strict=True)] for gap in zip(ids, scores, strict=True)]  # fmt: skip
            best = iter(int(gap[0]) for gap in ids)
            filled = [next(best) if token == processor.mask_token_id else token for token in row]
            text = processor.decode(filled, skip_special_tokens=True)
            result.append(
                {"prediction": text, "score": float(scores[:, 0].prod()) if len(fills) else None, "fills": fills}
            )
        return result


def _pair(ids: Any, scores: Any) -> "np.ndarray":
    import numpy as np

    return np.stack([ids.cpu().numpy().astype(np.float64), scores.cpu().numpy().astype(np.float64)])
