"""ROUGE of every row, by the rouge-score library: F-measures with stemming, the best of several references (Lin 2004)."""

import re
from collections.abc import Sequence

import numpy as np

KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""Our name → the library's."""
OTHER_LETTERS = re.compile(r"[^\W\d_a-zA-ZÀ-ɏ]")
"""Letters that are not Latin: the library's own tokenizer throws them away."""
WORDS = re.compile("[぀-ヿ㐀-鿿豈-﫿]|[^\\W぀-ヿ㐀-鿿豈-﫿]+")
"""Words; where they stand without spaces (Chinese, Japanese), single characters."""
UNICODE_NOTE = "split into words of any script, without stemming: the rouge-score library reads Latin letters only"


class AnyScript:
    """A tokenizer for rouge-score that reads every script."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case; Chinese and Japanese by the character."""
        return WORDS.findall(text.lower())


def needs_any_script(references: Sequence[Sequence[str]]) -> bool:
    """Whether more than a tenth of the letters of the references are not Latin."""
    text = "".join(one for known in references for one in known)
    letters = sum(character.isalpha() for character in text)
    return len(OTHER_LETTERS.findall(text)) > letters / 10


def rouge(texts: Sequence[str], references: Sequence[Sequence[str]], *, any_script: bool) -> dict[str, np.ndarray]:
    """F-measures 0 to 1 of texts [rows] against one or several references a row: rouge_1, rouge_2, rouge_l [rows].

    Of several references the one with the best F-measure counts, for each kind alone.
    """
    from rouge_score.rouge_scorer import RougeScorer

    own = AnyScript() if any_script else None
    scorer = RougeScorer(list(KINDS.values()), use_stemmer=True, tokenizer=own)
    rows = [scorer.score_multi(list(known), text) for text, known in zip(texts, references, strict=True)]
    return {name: np.array([row[kind].fmeasure for row in rows], np.float64) for name, kind in KINDS.items()}
