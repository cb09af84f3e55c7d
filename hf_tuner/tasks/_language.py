"""What the tasks on raw text share: finding the text, the loss of tokens, perplexity, an example on the screen."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import count
from hf_tuner.errors import UsageError
from hf_tuner.tasks import _packing as packing
from hf_tuner.tasks._task import BlankRow, Findings, Layout, Measures, RowError

if TYPE_CHECKING:
    import numpy as np
    import torch

COLUMNS = {"text": ("text", "content", "document", "raw_content", "article", "story", "passage", "body", "sentence")}
"""Names that raw text goes by, in order of preference."""
LONGEST = 512
"""What --max-length is when nothing is asked for."""
SHOWN = 60
"""Tokens of the example on the screen."""
LOGITS = 64_000_000
"""Logits that measuring holds at once: 256 MB in float32."""
LOOKED_AT = 1000
"""Encoded rows that a proof about the mask looks at."""
SAMPLES = (
    "The harbour was quiet in the morning, and the boats lay where they had been left.",
    "Stocks fell on Tuesday after the central bank raised rates by a quarter of a point.",
    "¿Dónde está la biblioteca? 42 %, 3.14 — ok",
    "A long text, to see that what is split is split alike. " * 40,
)


def raw_text(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """The one column of text: as given, by its usual name, or the only one that holds text. Raises UsageError."""
    strings = [name for name in features if any(isinstance(row.get(name), str) for row in first)]
    usual = [name for name in COLUMNS["text"] if name in features]
    column = given.get("text") or next(iter(usual), None) or (strings[0] if len(strings) == 1 else None)
    if column is None:
        close = catalog.nearest("text", list(features))
        raise UsageError(f'no column for "text"; found: {", ".join(features) or "none"}\n'
                         f"say which: --columns text={close or (strings or ['COLUMN'])[0]}")  # fmt: skip

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        text = row[column]
        if text is None or (isinstance(text, str) and not text.strip()):
            raise BlankRow(f'column "{column}" is empty')
        if not isinstance(text, str):
            raise RowError(f'column "{column}" holds {type(text).__name__}, expected text')
        return {"text": text}

    return Layout("raw text", {"text": column}, convert)


def require_block(size: int | None, run: Run) -> None:
    """Raise UsageError for blocks longer than --max-length."""
    longest = run.max_length or LONGEST
    if size and size > longest:
        raise UsageError(f"--block-size {size} is more than --max-length ({longest}); add --max-length {size}")


def looked_over(data: Mapping[str, Any]) -> Findings:
    """How much text there is."""
    sizes = {split: sum(len(text) for text in rows["text"][:]) for split, rows in data.items()}
    words = ", ".join(f"{split} {count(size)}" for split, size in sizes.items())
    return Findings(lines={"characters": words}, facts={"characters_in": sizes})


def token_losses(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Negative log-likelihood [rows, tokens] in float32, 0 where the label is -100.

    Only what has a label is turned into float32: logits [rows, tokens, vocabulary] are the largest thing in memory.
    """
    import torch

    keep = labels.ne(-100)
    losses = torch.zeros(labels.shape, dtype=torch.float32, device=labels.device)
    found = torch.nn.functional.cross_entropy(logits[keep].float(), labels[keep], reduction="none")
    return losses.masked_scatter(keep, found)


def few_rows(model: Any, batch: Mapping[str, Any], ids: str = "input_ids") -> "Iterator[dict[str, torch.Tensor]]":
    """The rows of a batch in parts whose logits, [rows, tokens of `ids`, vocabulary], are not more than `LOGITS` numbers."""
    step = rows_at_once(model, batch[ids])
    for start in range(0, len(batch[ids]), step):
        yield {name: value[start : start + step] for name, value in batch.items()}


def rows_at_once(model: Any, ids: "torch.Tensor") -> int:
    """How many rows of ids [rows, tokens] have logits of at most `LOGITS` numbers, at least one."""
    vocabulary = packing.bare_model(model).config.get_text_config().vocab_size
    return max(1, LOGITS // (ids.shape[1] * vocabulary))


def sums(*columns: "torch.Tensor") -> "list[np.ndarray]":
    """Sums over tokens of columns [rows, tokens] as one float64 array [columns] for each row."""
    import torch

    return list(torch.stack([column.double().sum(dim=1) for column in columns], dim=1).cpu().numpy())


def by_token(kept: "Sequence[np.ndarray]") -> dict[str, float]:
    """Loss and accuracy per token of rows of [sum of losses, tokens, tokens that were the likeliest]."""
    import numpy as np

    loss, tokens, right = np.asarray(kept, np.float64).sum(axis=0)
    return {"loss": float(loss / max(tokens, 1)), "token_accuracy": float(right / max(tokens, 1))}


def perplexity(kept: "list[np.ndarray]", first: "np.ndarray", size: "np.ndarray | None" = None) -> Measures:
    """Perplexity and loss over documents, with `size` (bytes of each row) bits per byte, with a third sum accuracy.

    `kept` has [sum of losses, tokens(, tokens that were right)] for each encoded row; `first` tells which rows begin a
    document: the documents are what the bootstrap draws, since the pieces of one are not independent.
    """
    import numpy as np

    document = np.maximum(np.cumsum(first) - 1, 0)
    total = np.zeros((int(document[-1]) + 1, kept[0].size + (size is not None)))
    np.add.at(total, document, np.column_stack([np.stack(kept), *([size] if size is not None else [])]))
    loss, tokens = total[:, 0], total[:, 1]

    def mean(weights: "np.ndarray") -> "np.ndarray":
        return (weights @ loss) / (weights @ tokens)

    scores: dict[str, Any] = {"perplexity": lambda weights: np.exp(mean(weights)), "loss": mean}
    if size is not None:
        scores["bits_per_byte"] = lambda weights: (weights @ loss) / np.log(2) / (weights @ total[:, -1])
    if kept[0].size > 2:
        scores["accuracy"] = lambda weights: (weights @ total[:, 2]) / (weights @ tokens)
    return Measures(scores, len(total), {})


def marked(processor: Any, ids: Sequence[int], learnt: Sequence[bool]) -> str:
    """The first tokens as text, what the loss covers between ⟦ and ⟧."""
    text = ""
    for on, run in groupby(list(zip(ids, learnt, strict=True))[:SHOWN], key=lambda pair: pair[1]):
        piece = processor.decode([token for token, _ in run]).replace("\n", "⏎")
        text += f"⟦{piece}⟧" if on else piece
    return text + (" …" if len(ids) > SHOWN else "")
