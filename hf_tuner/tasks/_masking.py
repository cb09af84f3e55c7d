"""Which words of a text are hidden, and by what: drawn from a seed, an epoch and a row, never from a stream.

Whole-word masking (Devlin et al. 2019, arXiv 1810.04805, and the whole-word models that followed it): words are drawn
until the share of tokens is reached; of the tokens in them 80 % become the mask, 10 % a random token, 10 % stay. A
resumed run, another micro-batch and any number of data workers hide the same words.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HIDDEN, RANDOM = 0.8, 0.9
"""Below the first a token becomes the mask, below the second a random one, else it stays."""
FIXED = 1 << 30
"""Stands for the epoch where the same words are hidden each time: for measuring."""


def words_of(ids: Sequence[int], known: Sequence[int | None] | None, special: set[int]) -> list[int]:
    """Numbers of the words [tokens], from 0, -1 for special tokens; every token is a word where none are `known`."""
    if known is None:
        return [-1 if token in special else place for place, token in enumerate(ids)]
    return [-1 if word is None or token in special else word for token, word in zip(ids, known, strict=True)]


@dataclass(frozen=True)
class Masking:
    """Hides words of encoded rows. `vocabulary`: ids that a random token may have."""

    mask: int
    vocabulary: int
    probability: float
    seed: int

    @classmethod
    def of(cls, tokenizer: Any, probability: float, seed: int) -> "Masking":
        """For the vocabulary of a tokenizer."""
        return cls(tokenizer.mask_token_id, len(tokenizer), probability, seed)

    def __call__(self, row: Mapping[str, Any]) -> "tuple[np.ndarray, np.ndarray]":
        """Input ids [tokens] with words hidden and labels [tokens], -100 where nothing is. A row numbered -1 has no labels."""
        import numpy as np

        ids, words = np.array(row["input_ids"]), _distinct(row)
        number = row.get("row")
        if number is not None and number >= 0:
            key = (self.seed, int(row.get("epoch", 0)), int(number))
        else:
            key = (self.seed, FIXED, zlib.crc32(ids.astype("<i8").tobytes()))
        draw = np.random.default_rng(key)
        chosen = self._chosen(words, draw)
        labels = np.where(chosen, ids, -100) if number is None or number >= 0 else np.full_like(ids, -100)
        fate = np.where(chosen, draw.random(len(ids)), 1.0)
        other = draw.integers(0, self.vocabulary, len(ids))
        return np.where(fate < HIDDEN, self.mask, np.where(fate < RANDOM, other, ids)), labels

    def _chosen(self, words: "np.ndarray", draw: "np.random.Generator") -> "np.ndarray":
        """Which tokens [tokens] are to be guessed: whole words up to the share of tokens, at least one word."""
        import numpy as np

        known = words[words >= 0]
        if not len(known):
            return np.zeros(len(words), bool)
        names, lengths = np.unique(known, return_counts=True)
        order = draw.permutation(len(names))
        reached = np.cumsum(lengths[order]) <= max(1, round(self.probability * len(known)))
        reached[0] = True
        return np.isin(words, names[order[reached]])


def _distinct(row: Mapping[str, Any]) -> "np.ndarray":
    """Word numbers [tokens] that no two texts of a block share."""
    import numpy as np

    words = np.array(row["words"])
    if "sizes" in row:
        text = np.repeat(np.arange(len(row["sizes"])), row["sizes"])
        words = np.where(words >= 0, words + text * (words.max(initial=0) + 1), -1)
    return words
