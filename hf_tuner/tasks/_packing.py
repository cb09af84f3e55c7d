"""Short texts side by side in blocks of a fixed length, none seeing another: less padding, the same loss.

How much of that a model can do is asked of the model itself (`style`), not of a table of architectures: two texts are
laid side by side, one of them is changed, and what is said about the other must not change; and it must be what is said
about it alone. transformers masks packed texts by position ids that restart (`masking_utils`), where the architecture
hands them on; else a mask of 0 and 1 for every pair of tokens does it, where the attention takes one. What keeps a state
over the whole row, or learned places that cannot be told, does neither: then nothing is packed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_tuner.console import count, say

if TYPE_CHECKING:
    import numpy as np
    import torch

OFF, POSITIONS, MASK = "off", "positions", "mask"
SAID = {
    OFF: "one text a row: this model cannot keep packed texts apart",
    POSITIONS: "texts share blocks of {length} tokens, kept apart by position ids that restart ({attention} attention)",
    MASK: "texts share blocks of {length} tokens, kept apart by a block-diagonal mask ({attention} attention)",
}
NOTES = {
    OFF: "one text a row",
    POSITIONS: "texts were packed, kept apart by position ids",
    MASK: "texts were packed, kept apart by a block-diagonal mask",
}
AT_ONCE = 4096
"""Blocks that are put together at once."""
NEAR = {"float32": 1e-3, "bfloat16": 6e-2, "float16": 2e-2}
"""How far numbers of one text may lie apart, as a share of their scale, when it is computed alone and in a block."""


def blocks(lengths: "Sequence[int] | np.ndarray", size: int) -> list[list[int]]:
    """Which texts share a block of at most `size` tokens: longest first, each where the least room is left over.

    Best fit decreasing (Johnson 1974); the rooms that are open are bits of one number, so that the search is fast.
    """
    import numpy as np

    made: list[list[int]] = []
    rooms: dict[int, list[int]] = {}
    open_rooms = 0
    for row in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        need = int(lengths[row])
        fits = open_rooms >> need
        room = need + (fits & -fits).bit_length() - 1 if fits else size
        if fits:
            at = rooms[room].pop()
            if not rooms[room]:
                open_rooms &= ~(1 << room)
        else:
            at = len(made)
            made.append([])
        made[at].append(row)
        rooms.setdefault(room - need, []).append(at)
        open_rooms |= 1 << (room - need)
    return made


def settled(model: Any, length: int, *, causal: bool) -> tuple[str, int]:
    """`style`, said on the screen."""
    found, start = style(model, length, causal=causal)
    say(f"  packing   {SAID[found].format(length=length, attention=attention_of(model))}")
    return found, start


def filled(ready: Any, size: int, what: str = "texts") -> Any:
    """`packed`, with how full the blocks are said on the screen; `what` the rows are called."""
    made = packed(ready, size)
    full = sum(made["length"][:]) / max(1, len(made) * size)
    say(f"  packed    {count(len(ready))} {what} in {count(len(made))} blocks, {full:.1%} full")
    return made


def packed(ready: Any, size: int) -> Any:
    """Encoded rows as blocks of at most `size` tokens: lists joined, "length" and other numbers added up.

    "sizes" has the lengths of the texts in each block, in order.
    """
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    plain = ready.with_format(None)
    lengths = np.asarray(plain["length"])
    made = blocks(lengths, size)
    tables = []
    for start in range(0, len(made), AT_ONCE):
        part = made[start : start + AT_ONCE]
        order = np.concatenate([np.asarray(block) for block in part])
        ends = np.cumsum([len(block) for block in part])
        rows = plain.select(order).with_format("arrow")[:]
        columns = {name: _joined(rows[name].combine_chunks(), ends) for name in ready.column_names}
        columns["sizes"] = _lists(lengths[order], ends)
        tables.append(pa.table(columns))
    return Dataset(pa.concat_tables(tables)) if tables else ready


def _joined(column: Any, ends: "np.ndarray") -> Any:
    """A column of the texts as one of their blocks, which end after `ends` texts."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        offsets = column.offsets.to_numpy()
        return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], (offsets - offsets[0])[ends]]), pa.int32()),
                                        column.flatten())  # fmt: skip
    return pa.array(np.add.reduceat(column.to_numpy(), np.concatenate([[0], ends[:-1]])))


def _lists(values: "np.ndarray", ends: "np.ndarray") -> Any:
    import numpy as np
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), pa.array(values))


def sizes_of(row: Mapping[str, Any]) -> list[int]:
    """Lengths of the texts in an encoded row."""
    return list(row["sizes"]) if "sizes" in row else [len(row["input_ids"])]


def collated(pad: int, style: str) -> "Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]":
    """A function to one batch padded on the right: `input_ids`, `labels` [rows, tokens] and what keeps texts apart."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids = pad_sequence([torch.as_tensor(row["input_ids"]) for row in rows], True, pad)
        labels = pad_sequence([torch.as_tensor(row["labels"]) for row in rows], True, -100)
        result = {"input_ids": ids, "labels": labels}
        if "sizes" in rows[0]:
            return {**result, **apart([sizes_of(row) for row in rows], ids.shape[1], style)}
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return {**result, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}

    return batch


def apart(rows: Sequence[Sequence[int]], width: int, style: str, start: int = 0) -> "dict[str, torch.Tensor]":
    """What keeps the texts of blocks apart, from their `sizes`: position ids [rows, width] that count from `start`.

    With "mask" also `attention_mask`: who sees whom, boolean [rows, 1, width, width]. Padding is a text of its own.
    """
    import torch

    whole = [[*sizes, *([width - sum(sizes)] if width > sum(sizes) else [])] for sizes in rows]
    places = torch.stack([torch.cat([torch.arange(start, start + n) for n in sizes]) for sizes in whole])
    if style == POSITIONS:
        return {"position_ids": places}
    text = torch.stack([torch.repeat_interleave(torch.arange(len(s)), torch.tensor(s)) for s in whole])
    return {"position_ids": places, "attention_mask": text[:, None, :, None] == text[:, None, None, :]}


def logits_of(model: Any, batch: Mapping[str, Any], *, causal: bool) -> "torch.Tensor":
    """Logits [rows, tokens, vocabulary] of a plain or packed batch; those of virtual tokens are left out.

    Packed texts are told apart only while no cache is made. A mask of who sees whom is handed over in the form that the
    model's attention takes, `causal` ones without what comes later.
    """
    import torch

    inputs, width = dict(batch), batch["input_ids"].shape[1]
    if causal and "position_ids" in inputs:
        inputs["use_cache"] = False
    mask = inputs.get("attention_mask")
    if mask is not None and mask.ndim == 4:
        mask = mask.tril() if causal else mask
        bare = bare_model(model)
        if attention_of(bare) != "sdpa":  # the others add their mask to the scores
            mask = torch.where(mask, 0.0, torch.finfo(bare.dtype).min).to(bare.dtype)
        inputs["attention_mask"] = mask
    return model(**inputs)["logits"][:, -width:]


def bare_model(model: Any) -> Any:
    """The transformers model inside what several processes and peft wrap around it (or the model itself)."""
    inner = model if hasattr(model, "config") else model.module
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def attention_of(model: Any) -> str:
    """Name of the attention implementation of a model."""
    return str(getattr(bare_model(model).config, "_attn_implementation", None) or "its own")


def style(model: Any, length: int, *, causal: bool) -> tuple[str, int]:
    """How this model keeps packed texts apart, and where its positions start; ("off", 0) when it cannot.

    It is asked about two texts that fill `length` tokens together: what looks at a window only is found out too.
    """
    import torch

    if length < 8:
        return OFF, 0
    text = bare_model(model).config.get_text_config()
    # Positions of RoBERTa and its kin start after the padding id.
    starts = (0,) if causal else (0, (getattr(text, "pad_token_id", None) or 0) + 1)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            ids = torch.arange(2 * length, device=device) * 31 % max(2, text.vocab_size - 5) + 4
            ids = ids.clamp(max=text.vocab_size - 1)
            for kind in (POSITIONS, MASK):
                for start in starts:
                    if _keeps_apart(model, ids, length, (kind, start), causal):
                        return kind, start
    finally:
        model.train(was_training)
    return OFF, 0


def _keeps_apart(model: Any, ids: Any, length: int, way: tuple[str, int], causal: bool) -> bool:
    import torch

    first = length // 4
    one, two, other = ids[:first], ids[first:length], ids[length : length + first]
    extra = {k: v.to(ids.device) for k, v in apart([[first, length - first]], length, *way).items()}
    try:
        plain = {"input_ids": two[None], "attention_mask": torch.ones_like(two[None])}
        alone = logits_of(model, plain, causal=causal)[0].float()
        beside = [
            logits_of(model, {"input_ids": torch.cat([left, two])[None], **extra}, causal=causal)[0, first:].float()
            for left in (one, other)
        ]
    except Exception:  # an architecture that takes no positions, or no such mask, says so in many ways
        return False
    scale = float(alone.abs().max()) or 1.0
    near = NEAR.get(str(model.dtype).removeprefix("torch."), NEAR["float32"])
    same = float((beside[0] - beside[1]).abs().max()) <= 1e-5 * scale
    return same and float((beside[0] - alone).abs().max()) <= near * scale
