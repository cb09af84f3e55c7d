"""translation: a text in another language, by translation models (Marian, NLLB, mBART), T5, or models that write on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._languages import codes_of, model_code, name_of, two_letters
from hf_tuner.tasks._pairs import DICTIONARIES, audit_pairs, find, language_layout, languages_of, pair_layout
from hf_tuner.tasks._reading import bytes_of
from hf_tuner.tasks._seq2seq import Search, Seq2Seq
from hf_tuner.tasks._task import Findings, Layout, Measures, Usage
from hf_tuner.tasks._written import written_usage

if TYPE_CHECKING:
    import numpy as np

NO_LANGUAGES = ("id", "no", "is")
"""Columns that are Indonesian, Norwegian and Icelandic only when these are asked for."""


@dataclass(frozen=True, kw_only=True)
class Config(Search):
    """Settings of translation."""

    source_language: str | None = option(
        None, "Language of the sources, as the data or the model calls it (en, eng_Latn)."
    )
    target_language: str | None = option(
        None, "Language of the targets, as the data or the model calls it (de, de_DE)."
    )


@dataclass(frozen=True, kw_only=True)
class Translation(Seq2Seq):
    """Sentences in two languages; scored by BLEU and chrF, beside the source copied."""

    name: ClassVar[str] = "translation"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (("translation",), ("source", "target"))
    pipeline: ClassVar[str] = "translation"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("text", "source", "src", "source_text", "source_sentence", "input", "sentence"),
        "target": ("target", "tgt", "target_text", "target_sentence", "translation", "output"),
        "references": ("references", "targets"),
    }

    source_language: str | None = None
    target_language: str | None = None

    @classmethod
    def asked(cls, settings: Any) -> Mapping[str, str]:
        """The languages that are set."""
        found = {name: getattr(settings, name, None) for name in ("source_language", "target_language")}
        return {name: value for name, value in found.items() if value}

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """Sentences by language in one column, a column for each language, or columns that say source and target.

        Raises UsageError when the direction cannot be told, or a language is not there.
        """
        names = list(features)
        source, target = given.get("source_language"), given.get("target_language")
        if "text" not in given and (column := _by_language(names, first)):
            return _within(column, list(first[0][column]), source, target)
        columns = {**_named_by_language(names, source, target), **given}
        return pair_layout("sentences and their translations", cls.columns, names, columns, first)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Rows whose sides are equal, out of proportion or changed over."""
        return audit_pairs(data, languages=True)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "Translation":
        """The settings of the run; languages that are not set are those that the columns are named by."""
        known = getattr(data, "tuner_notes", {}).get("audit", {}).get("columns", {})
        source, target = languages_of(known)
        given = settings_of(cls, run)
        return cls(**{**given, "source_language": given.get("source_language") or source,
                      "target_language": given.get("target_language") or target})  # fmt: skip

    @property
    def prefix_key(self) -> str:  # type: ignore[override]
        """Where T5's configuration keeps the prefix of this pair of languages."""
        return f"translation_{two_letters(self.source_language or '')}_to_{two_letters(self.target_language or '')}"

    def _own_prefix(self, config: Any, writes_alone: bool) -> str:
        if self.source_language is None or self.target_language is None:
            return ""
        source, target = name_of(self.source_language), name_of(self.target_language)
        params = getattr(config, "task_specific_params", None)
        told = any(str(key).startswith("translation") for key in (params if isinstance(params, dict) else {}))
        if writes_alone:
            return f"{source}: "
        return f"translate {source} to {target}: " if told else ""

    def _separator(self) -> str:
        return f"\n{name_of(self.target_language)}:" if self.target_language else "\nTranslation:"

    def _with_languages(self, processor: Any) -> "Translation":
        codes = codes_of(processor)
        if not codes:
            return self
        for flag, language in (
            ("--source-language", self.source_language),
            ("--target-language", self.target_language),
        ):
            if language is None:
                raise UsageError(
                    f"this model translates between many languages: say which with {flag}, such as {codes[0]}"
                )
        source = model_code(str(self.source_language), codes, "--source-language")
        return replace(self, source_code=source,
                       target_code=model_code(str(self.target_language), codes, "--target-language"))  # fmt: skip

    def _scores(self, texts: list[str], references: list[list[str]]) -> Measures:
        from hf_tuner.metrics._bleu import bleu, chrf, tokenizer

        language = two_letters(self.target_language or "") or ""
        split = tokenizer(language)
        notes = {} if split == "13a" else {"bleu": f"texts are split by sacrebleu's tokenizer {split}"}
        return Measures({"bleu": bleu(texts, references, language), "chrf": chrf(texts, references)}, len(texts), notes)

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """The source as it is: names and numbers are right by that already."""
        return {"copy": [bytes_of(text) for text in rows["text"][:]]}

    @property
    def note(self) -> str:
        """The direction."""
        return f"from {self._language(self.source_language)} to {self._language(self.target_language)}"

    @property
    def gives(self) -> str:
        """A translation."""
        return f"a translation {self.note} for a text"

    def _language(self, code: str | None) -> str:
        return (
            name_of(code)
            if code
            else "the language of the sources"
            if code is self.source_language
            else "that of the targets"
        )

    @property
    def limits(self) -> tuple[str, ...]:
        """What translations may do."""
        return ("A translation may leave out or add words: names, numbers and negations deserve a second look.",
                f"It writes {self.max_new_tokens} tokens at most.")  # fmt: skip

    def usage(self, max_length: int) -> Usage:
        """Code that translates two texts."""
        example = '["A sentence to translate.", "Another one."]'
        return written_usage(self, max_length, "a column `text`", example, "Each answer is the translation of a text.")


def _by_language(names: Sequence[str], first: Sequence[dict[str, Any]]) -> str | None:
    """The column that holds one sentence by language."""
    if not first:
        return None
    nested = [name for name in names if isinstance(first[0][name], Mapping)]
    return find(DICTIONARIES, nested) or next(
        (name for name in nested if first[0][name] and all(two_letters(key) for key in first[0][name])), None
    )


def _within(column: str, keys: Sequence[str], source: str | None, target: str | None) -> Layout:
    """The layout of a column with one sentence by language, from what is asked for and what is there."""
    chosen = [
        _key(keys, language, flag) for language, flag in ((source, "--source-language"), (target, "--target-language"))
    ]
    left = [key for key in keys if key not in chosen]
    if None in chosen and len(keys) > 2:
        raise UsageError(f'"{column}" holds {", ".join(keys)}: say which with --source-language and --target-language')
    first = chosen[0] or (left.pop(0) if left else None)
    last = chosen[1] or (left.pop(0) if left else "")
    if first is None:
        raise UsageError(f'"{column}" holds {", ".join(keys)} only: nothing to translate from')
    return language_layout(column, first, str(last), {}, keys, asked=bool(source or target))


def _key(keys: Sequence[str], language: str | None, flag: str) -> str | None:
    """The key of a language. Raises UsageError for a source that is not there; a target may be missing."""
    if language is None:
        return None
    short = two_letters(language)
    found = next((key for key in keys if key == language or (short and two_letters(key) == short)), None)
    if found is None and (flag == "--source-language" or len(keys) > 1):
        raise UsageError(f"{flag} {language}: the data holds {', '.join(keys)}")
    return found or language


def _named_by_language(names: Sequence[str], source: str | None, target: str | None) -> dict[str, str]:
    """Columns named by their language: those asked for, or the only two, in their order."""
    asked = {two_letters(language or "") for language in (source, target)}
    by_code = {name: short for name in names if len(name) <= 8 and (short := two_letters(name))}
    by_code = {name: short for name, short in by_code.items() if name not in NO_LANGUAGES or short in asked}
    if source or target:
        wanted = {"text": two_letters(source or ""), "target": two_letters(target or "")}
        named = {side: name for side, code in wanted.items() for name, short in by_code.items() if code == short}
        rest = [name for name in by_code if name not in named.values()]
        missing = [side for side in ("text", "target") if side not in named]
        return {**named, **(dict(zip(missing, rest, strict=True)) if len(missing) == len(rest) == 1 else {})}
    return dict(zip(("text", "target"), by_code, strict=True)) if len(by_code) == 2 else {}
