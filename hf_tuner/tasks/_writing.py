"""Texts that a decoder-only model writes for prompts: what `predict` gives where the likelihood of texts is measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN, Task

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Writing(Task):
    """Goes on with the `text` of each row: the likeliest token each time, or the best of some beams.

    Another kind of prompt (a conversation) says in `prompts` which token ids it is.
    """

    max_new_tokens: int = 64
    num_beams: int = 1

    def prompts(self, tokenizer: Any, batch: dict[str, list], room: int) -> list[list[int]]:
        """Token ids of each row's prompt, without an end."""
        texts = [text[-room * CHARACTERS_PER_TOKEN :] for text in batch["text"]]
        end = tokenizer.eos_token_id
        found = tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        return [ids[:-1] if len(ids) > 1 and ids[-1] == end else ids for ids in found]

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function to `input_ids` and `length`: the ends of the prompts that leave room for an answer.

        Raises UsageError when there is none.
        """
        if min(self.max_new_tokens, self.num_beams) < 1:
            raise UsageError(f"max_new_tokens={self.max_new_tokens}, num_beams={self.num_beams}: at least 1 each")
        room = max_length - self.max_new_tokens
        if room < 1:
            raise UsageError(f"max_new_tokens={self.max_new_tokens}: the model was trained with {max_length} tokens; "
                             f"at most {max_length - 1} leave room for a prompt")  # fmt: skip
        prompts = self.prompts
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id

        def rows(batch: dict[str, list]) -> dict[str, list]:
            cut = [ids[-room:] or [start] for ids in prompts(tokenizer, batch, room)]
            return {"input_ids": cut, "length": [len(ids) for ids in cut]}

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function to one batch padded on the left, ids and mask [rows, tokens], and the ids that end and pad."""
        import torch

        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            width = max(len(row["input_ids"]) for row in rows)
            ids = [[pad] * (width - len(row["input_ids"])) + list(row["input_ids"]) for row in rows]
            seen = [[0] * (width - len(row["input_ids"])) + [1] * len(row["input_ids"]) for row in rows]
            return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(seen), "ends": (end, pad)}

        return batch

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Ids of what was written [tokens] for each row, with the token that ends it when it ended."""
        stops = batch.pop("ends")
        return written(model, batch, stops, {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams})

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": what was written, "finished": whether it ended by itself}."""
        texts = processor.batch_decode(kept, skip_special_tokens=True)
        return [{"prediction": text, "finished": len(ids) < self.max_new_tokens}
                for text, ids in zip(texts, kept, strict=True)]  # fmt: skip


def written(
    model: Any, inputs: Mapping[str, Any], stops: tuple[int, int], search: Mapping[str, Any]
) -> "list[np.ndarray]":
    """Ids that the model goes on with [tokens] for each row of `inputs`, padded on the left, up to where it ended.

    `stops` are the ids that end and pad, `search` what `generate` is told; the likeliest is written, nothing is drawn.
    """
    import numpy as np

    end, pad = stops
    width = inputs["input_ids"].shape[1]
    known = getattr(model, "generation_config", None)
    ends = {end} | set(np.atleast_1d(getattr(known, "eos_token_id", None) or [])) - {None}
    ids = model.generate(**inputs, **search, do_sample=False, eos_token_id=sorted(map(int, ends - {None})) or None,
                         pad_token_id=pad, temperature=None, top_p=None, top_k=None).cpu().numpy()  # fmt: skip
    rows = ids[:, width:] if ids.shape[1] >= width else ids
    return [_until(row, ends) for row in rows]


def _until(row: "np.ndarray", ends: set) -> "np.ndarray":
    """A row up to its first end, without it: what follows is padding."""
    import numpy as np

    at = np.flatnonzero(np.isin(row, [e for e in ends if e is not None]))
    return row[: at[0]] if len(at) else row
