"""Sources and targets as ids, and ids as texts: for models with an encoder and for those without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Reading:
    """Plain values that say how texts become ids."""

    alone: bool
    """No encoder: source, separator and target are one text."""
    prefix: str
    suffix: str
    longest_target: int
    """Tokens of a target, the one that ends it included."""
    end: int
    """The token that ends a target."""
    source_code: str | None
    target_code: str | None
    opens: bool
    """Every text begins with the tokenizer's first token (bos); only without an encoder."""

    def set_languages(self, processor: Any) -> None:
        """Tell a multilingual tokenizer which languages it reads and writes; it is saved with them."""
        if self.source_code is not None:
            processor.src_lang = self.source_code
        if self.target_code is not None:
            processor.tgt_lang = self.target_code

    def targets(self, processor: Any, texts: Sequence[str]) -> list[list[int]]:
        """Ids of target texts, cut, each with the token that ends it."""
        longest, end = self.longest_target, self.end
        cut = [text[: longest * CHARACTERS_PER_TOKEN] for text in texts]
        if self.alone:
            return [[*ids[: longest - 1], end] for ids in self._continued(processor, cut)]
        made = processor(text_target=cut, truncation=True, max_length=longest)["input_ids"]
        return [ids if end in ids[-2:] else [*ids[: longest - 1], end] for ids in made]

    def _continued(self, processor: Any, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as they go on after the separator and a space."""
        before = processor(self.suffix, add_special_tokens=False)["input_ids"]
        whole = processor([f"{self.suffix} {text.strip()}" for text in texts], add_special_tokens=False)["input_ids"]
        if all(ids[: len(before)] == before for ids in whole):
            return [ids[len(before) :] for ids in whole]
        return processor([f" {text.strip()}" for text in texts], add_special_tokens=False)["input_ids"]

    def encoder(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """See `Seq2Seq.encode`."""
        self.set_languages(processor)
        limit, read = max_length * CHARACTERS_PER_TOKEN, self
        if self.alone:  # source and target share what the model reads
            read = replace(self, longest_target=min(self.longest_target, max_length // 2))

        def rows(batch: dict[str, list]) -> dict[str, list]:
            texts = [read.prefix + text[:limit] for text in batch["text"]]
            if read.alone:
                made, cut = prompts(read, processor, texts, max_length)
            else:
                made = processor(texts, truncation=True, max_length=max_length)["input_ids"]
                cut = [False] * len(made)
            result: dict[str, list] = {"input_ids": made, "attention_mask": [[1] * len(ids) for ids in made]}
            if "target" in batch:
                result["labels"] = read.targets(processor, batch["target"])
            # What is read decides how rows are sorted; without an encoder the target is read as well.
            more = [len(ids) if read.alone else 0 for ids in result.get("labels", [[]] * len(made))]
            lengths = (len(ids) + extra for ids, extra in zip(made, more, strict=True))
            return {**result, "length": [max_length if c else n for c, n in zip(cut, lengths, strict=True)]}

        return rows

    def collator(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """See `Seq2Seq.collate`."""
        import torch

        pad, alone = processor.pad_token_id, self.alone

        def padded(rows: Sequence[Sequence[float]], value: int, left: bool = False) -> torch.Tensor:
            width = max(map(len, rows))
            fill = [[value] * (width - len(row)) for row in rows]
            whole = [[*f, *map(int, r)] if left else [*map(int, r), *f] for f, r in zip(fill, rows, strict=True)]
            return torch.tensor(whole, dtype=torch.long)

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            sources = [row["input_ids"] for row in rows]
            made = {
                "input_ids": padded(sources, pad, left=alone),
                "attention_mask": padded([row["attention_mask"] for row in rows], 0, left=alone),
            }
            if "labels" not in rows[0]:
                return made
            targets = [row["labels"] for row in rows]
            if not alone:
                return {**made, "labels": padded(targets, -100)}
            known = [[pad if one == -100 else one for one in ids] for ids in targets]
            whole = [[*a, *b] for a, b in zip(sources, known, strict=True)]
            labels = [[*([-100] * len(a)), *b] for a, b in zip(sources, targets, strict=True)]
            mask = padded([[1] * len(row) for row in whole], 0)
            return {**made, "whole_ids": padded(whole, pad), "whole_mask": mask, "labels": padded(labels, -100)}

        return batch


def reading(task: Any) -> Reading:
    """How a `Seq2Seq` task reads."""
    return Reading(task.alone, task.source_prefix or "", task.source_suffix or "", task.max_target_length, task.end or 0,
                   task.source_code, task.target_code, bool(task.opening))  # fmt: skip


def prompts(read: Reading, processor: Any, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
    """Ids of source and separator, and which sources were cut so that separator and target have room."""
    begin = [processor.bos_token_id] if read.opens else []
    room = max_length - min(read.longest_target, max_length // 2) - len(begin)
    whole = processor([text + read.suffix for text in texts], add_special_tokens=False)["input_ids"]
    tail = processor(read.suffix, add_special_tokens=False)["input_ids"]
    cut = [len(ids) > room for ids in whole]
    short = [[*ids[: max(1, room - len(tail))], *tail] if c else ids for ids, c in zip(whole, cut, strict=True)]
    return [[*begin, *ids] for ids in short], cut


def decoded_bytes(kept: "Sequence[np.ndarray]", processor: Any) -> "list[np.ndarray]":
    """Texts of written ids, each as its bytes in UTF-8."""
    texts = processor.batch_decode([ids.tolist() for ids in kept], skip_special_tokens=True) if len(kept) else []
    return [bytes_of(text.strip()) for text in texts]


def bytes_of(text: str) -> "np.ndarray":
    """A text as its bytes in UTF-8."""
    import numpy as np

    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)


def text_of(kept: "np.ndarray") -> str:
    """The text of `bytes_of`."""
    return kept.astype("uint8").tobytes().decode("utf-8", "replace")
