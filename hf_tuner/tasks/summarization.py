"""summarization: a short text for a long one, by models that read and write (T5, BART, Pegasus) or write on (Llama, Qwen)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._pairs import pair_layout
from hf_tuner.tasks._reading import bytes_of
from hf_tuner.tasks._seq2seq import Search, Seq2Seq
from hf_tuner.tasks._task import Layout, Measures, Usage
from hf_tuner.tasks._written import written_usage

if TYPE_CHECKING:
    import numpy as np

SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")
MOST_SENTENCES = 3
"""The lead is never longer."""


@dataclass(frozen=True, kw_only=True)
class Config(Search):
    """Settings of summarization."""

    no_repeat_ngram_size: int = option(3, "No run of so many tokens is written twice (0: it may).")


@dataclass(frozen=True, kw_only=True)
class Summarization(Seq2Seq):
    """Texts and their summaries; scored by ROUGE, beside the first sentences of each text."""

    name: ClassVar[str] = "summarization"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("document", "summary"),
        ("article", "highlights"),
        ("article", "summary"),
        ("dialogue", "summary"),
        ("source", "summary"),
        ("text", "summary"),
    )
    pipeline: ClassVar[str] = "summarization"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("text", "source", "article", "document", "dialogue", "documents", "body", "content", "report", "input"),
        "target": ("target", "summary", "highlights", "tldr", "abstract", "headline", "title_summary", "output"),
        "references": ("references", "summaries", "targets"),
    }  # fmt: skip
    prefix_key: ClassVar[str] = "summarization"

    no_repeat_ngram_size: int = 3
    lead: int = 1
    """Sentences of the lead baseline: as many as training summaries have, 3 at most."""

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Texts and summaries by the names of their columns; lists of sentences are joined, lists of summaries kept."""
        return pair_layout("texts and summaries", cls.columns, list(features), given, first)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "Summarization":
        """The settings of the run, and how long a lead is comparable."""
        few = data["train"].select(range(min(len(data["train"]), 1000)))["target"][:]
        sentences = sum(len(sentences_of(text)) for text in few) / max(1, len(few))
        return cls(**settings_of(cls, run), lead=min(MOST_SENTENCES, max(1, round(sentences))))

    def _separator(self) -> str:
        return "\nTL;DR:"

    def _scores(self, texts: list[str], references: list[list[str]]) -> Measures:
        from hf_tuner.metrics._rouge import UNICODE_NOTE, needs_any_script, rouge
        from hf_tuner.metrics._weighted import mean

        any_script = needs_any_script(references)
        rows = rouge(texts, references, any_script=any_script)
        order = {name: mean(rows[name]) for name in ("rouge_l", "rouge_1", "rouge_2")}
        return Measures(order, len(texts), dict.fromkeys(order, UNICODE_NOTE) if any_script else {})

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """The first sentences of every text."""
        return {"lead": [bytes_of(" ".join(sentences_of(text)[: self.lead])) for text in rows["text"][:]]}

    @property
    def note(self) -> str:
        """What the lead is."""
        return f"the lead baseline gives the first {'sentence' if self.lead == 1 else f'{self.lead} sentences'} of each text"

    @property
    def gives(self) -> str:
        """A summary."""
        return "a short text for a long one"

    @property
    def limits(self) -> tuple[str, ...]:
        """What summaries may do."""
        return ("A summary may say what the text does not: check names and numbers against the text.",
                f"It writes {self.max_new_tokens} tokens at most.")  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """Code that summarises two texts."""
        example = '["A long text that is to be said shortly.", "Another text."]'
        return written_usage(self, max_length, "a column `text`", example, "Each answer is the summary of a text.")


def sentences_of(text: str) -> list[str]:
    """Sentences of a text, by the marks that end them."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]
