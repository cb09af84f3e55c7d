"""What summarization and translation share: a source text in, a target text out, by any model that can write.

Models with an encoder and a decoder (T5, BART, mBART, NLLB, Marian, Pegasus …) read the source and write the target.
Models with a decoder alone get source, a separator and target as one text, and learn the target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.console import count, say, warn
from hf_tuner.errors import UsageError
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._language import by_token, few_rows, sums, token_losses
from hf_tuner.tasks._models import sees_both_ways
from hf_tuner.tasks._packing import bare_model
from hf_tuner.tasks._pairs import audit_pairs
from hf_tuner.tasks._reading import Reading, decoded_bytes, text_of
from hf_tuner.tasks._reading import reading as how_to_read
from hf_tuner.tasks._task import Findings, Measures, Task

if TYPE_CHECKING:
    import numpy as np
    import torch

LONGEST_TARGET = 128
SAMPLE = 2_000
"""Target texts whose tokens are counted."""
ROOM = 1.2
"""How much longer than nearly all known targets a written text may become."""
SHORTEST = 8
"""Tokens that a text may have in any case."""
SAMPLES = (
    "Yes.",
    "The meeting was moved from Monday to Thursday because half of the team was ill. Nobody minded much.",
    "Stocks fell on Tuesday after the central bank raised rates by a quarter of a point. Banks lost most.",
    "A new path along the river was opened last week; it is closed to cars. Cyclists asked for it for ten years.",
    "no idea what this is supposed to do, it broke after two days :(",
    "A long text, to see that what is cut is cut alike. " * 40,
)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Settings of tasks that write a text for a text."""

    source_prefix: str | None = option(
        None, 'Put before every source, such as "summarize: " (default: what the model\'s config.json says).'
    )
    source_suffix: str | None = option(
        None, "Put between source and target, for models without an encoder (default: a separator that is said)."
    )
    max_target_length: int = option(LONGEST_TARGET, "Longest target in tokens; what is longer is cut.")
    max_new_tokens: int | None = option(
        None, "Longest text that is written, in tokens (default: a fifth longer than 99 % of the training targets)."
    )
    num_beams: int = option(1, "Beams searched when writing: 4 is usual in papers and takes about four times as long.")
    length_penalty: float = option(1.0, "With beams: above 1 prefers longer texts, below shorter ones.")
    no_repeat_ngram_size: int = option(0, "No run of so many tokens is written twice (0: it may).")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        for name, least in (("max_target_length", 2), ("num_beams", 1), ("no_repeat_ngram_size", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; expected 1 or more")
        if self.num_beams > 64:
            raise ValueError(f"num_beams is {self.num_beams}; more than 64 beams only cost time and memory")


@dataclass(frozen=True, kw_only=True)
class Seq2Seq(Task):
    """A source text in, a target text out."""

    auto_model: str = "AutoModelForSeq2SeqLM"  # type: ignore[misc]  # known when the model is: see for_model
    targets: ClassVar[tuple[str, ...]] = ("target", "references")
    new_head: ClassVar[bool] = False
    prefix_key: ClassVar[str] = ""
    """Start of the keys of task_specific_params that are this task's."""

    source_prefix: str | None = None
    source_suffix: str | None = None
    max_target_length: int = LONGEST_TARGET
    max_new_tokens: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    source_code: str | None = None
    """The source language as the tokenizer writes it; None for models without language codes."""
    target_code: str | None = None
    end: int | None = None
    """The token that ends every target."""
    padding: int | None = None
    first: int | None = None
    """The token that every text written begins with: a language, for models that are told so."""
    start: int | None = None
    """The token that the decoder starts from, where it depends on the language."""
    opening: str = ""
    """Without an encoder: the token that the tokenizer begins every text with, as it is written."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "Seq2Seq":
        """The settings of the run."""
        return cls(**settings_of(cls, run))

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """Rows whose sides are equal or out of proportion. Raises UsageError when there is no target to learn."""
        return audit_pairs(data, languages=False)

    # --- the model

    def for_model(self, run: Run, config: Any, processor: Any, data: Mapping[str, Any]) -> "Seq2Seq":
        """The task for a model with an encoder or without, with its prefix, its language codes and a sane length.

        What was chosen is said. Raises UsageError for models that cannot write and languages they do not know.
        """
        writes_alone = not getattr(config, "is_encoder_decoder", False)
        _require_writer(config, run)
        auto = "AutoModelForCausalLM" if writes_alone else "AutoModelForSeq2SeqLM"
        prefix, why = self._prefix(config, writes_alone)
        if self.source_suffix is not None and not writes_alone:
            raise UsageError("--source-suffix is for models without an encoder; this one reads the source by itself")
        suffix = (self.source_suffix or self._separator()) if writes_alone else None
        task = replace(self, auto_model=auto, source_prefix=prefix, source_suffix=suffix)
        task = task._with_languages(processor)._with_ends(processor, config)
        kind = (
            "no encoder: source and target as one text, loss on the target" if writes_alone else "encoder and decoder"
        )
        shown = f"{kind}; before the source {why}" + (f", after it {suffix!r}" if suffix else "")
        say(f"{'model':<9} {shown}")
        return task._with_length(processor, config, data["train"])

    def _prefix(self, config: Any, writes_alone: bool) -> tuple[str, str]:
        """What is put before every source, and how that is said."""
        if self.source_prefix is not None:
            return self.source_prefix, f"{self.source_prefix!r} (--source-prefix)" if self.source_prefix else "nothing"
        known = getattr(config, "task_specific_params", None)
        for key, params in (known if isinstance(known, dict) else {}).items():
            if key == self.prefix_key and isinstance(params, dict) and isinstance(params.get("prefix"), str):
                return params["prefix"], f"{params['prefix']!r} (as the model's config.json says)"
        made = self._own_prefix(config, writes_alone)
        return (
            made,
            f"{made!r} (--source-prefix changes it)" if made else "nothing (--source-prefix puts something there)",
        )

    def _own_prefix(self, config: Any, writes_alone: bool) -> str:
        """What is put before the source when neither the user nor the model's files say."""
        return ""

    def _separator(self) -> str:
        """What stands between source and target for models without an encoder."""
        raise NotImplementedError

    def _with_languages(self, processor: Any) -> "Seq2Seq":
        """The task with the model's codes for its languages."""
        return self

    def _with_ends(self, processor: Any, config: Any) -> "Seq2Seq":
        """The task with the tokens that end, pad and begin a target."""
        end = processor.eos_token_id if processor.eos_token_id is not None else processor.sep_token_id
        if end is None:
            raise UsageError("this tokenizer has no token that ends a text (eos_token): nothing written would ever end")
        first, start = None, None
        if self.target_code is not None:
            from hf_tuner.tasks._languages import code_id

            language = code_id(processor, self.target_code)
            self.reading().set_languages(processor)
            begins = processor(text_target="a")["input_ids"][0] == language
            first, start = (language, None) if begins else (None, language)
        opens = self.alone and processor("a")["input_ids"][:1] == [processor.bos_token_id]
        return replace(self, end=end, padding=processor.pad_token_id, first=first, start=start,
                       opening=processor.bos_token if opens else "")  # fmt: skip

    def _with_length(self, processor: Any, config: Any, rows: Any) -> "Seq2Seq":
        """The task with how long a written text may become, from the targets there are; what is cut is said."""
        import math

        import numpy as np

        few = rows.select(range(0, len(rows), max(1, math.ceil(len(rows) / SAMPLE))))
        positions = _positions(config)
        longest = min(self.max_target_length, positions)
        if longest < self.max_target_length:
            say(
                f"  note      --max-target-length {self.max_target_length} is more than the model's {positions} positions"
            )
        if "target" not in few.column_names:
            return replace(self, max_target_length=longest, max_new_tokens=self.max_new_tokens or longest)
        read = replace(self.reading(), longest_target=10**6)
        lengths = np.array([len(ids) for ids in read.targets(processor, few["target"][:])])
        cut = int((lengths > longest).sum())
        usual = max(SHORTEST, math.ceil(ROOM * float(np.percentile(lengths, 99))))
        new = min(self.max_new_tokens or min(usual, longest), positions)
        line = f"half up to {int(np.median(lengths))} tokens, longest {lengths.max()}, read up to {longest}; "
        beams = f"{self.num_beams} beams" if self.num_beams > 1 else "greedy"
        say(f"{'targets':<9} {line}written up to {new} ({beams})")
        if cut:
            warn(f"train: {count(cut)} of {count(len(lengths))} targets looked at have over {longest} tokens and are cut; "
                 "--max-target-length keeps more")  # fmt: skip
        return replace(self, max_target_length=longest, max_new_tokens=new)

    @property
    def alone(self) -> bool:
        """Whether the model has no encoder: source and target are one text."""
        return self.auto_model == "AutoModelForCausalLM"

    # --- rows to tensors

    def reading(self) -> Reading:
        """How texts become ids."""
        return how_to_read(self)

    def encode(self, processor: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to `input_ids` of the source (without an encoder: the prompt), `attention_mask`,
        `length`, and `labels`: the ids of the target with the token that ends it."""
        return self.reading().encoder(processor, max_length)

    def collate(self, processor: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from encoded rows to one padded batch: ids and mask of the sources [rows, tokens] (on the left
        without an encoder), labels; without an encoder also `whole_ids`, `whole_mask` of source and target."""
        return self.reading().collator(processor)

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """The loss covers every token of the target, and every target ends."""
        labels = ready.with_format(None)["labels"][:]
        whole = [row for row in labels if row and -100 not in row]
        ended = sum(self.end in row[-2:] for row in labels)  # mBART writes the language after the end
        tokens = sum(map(len, labels))
        return [
            ("the loss covers the targets", len(whole) == len(labels), f"{count(tokens)} tokens of {count(len(labels))} targets"),
            ("every target ends", ended == len(labels), f"{count(ended)} of {count(len(labels))}"),
        ]  # fmt: skip

    def example(self, processor: Any, ready: Any) -> str:
        """The first training row: what is read, and what is to be written."""
        row = ready.with_format(None)[0]
        read, written = (processor.decode(row[name], skip_special_tokens=False) for name in ("input_ids", "labels"))
        read = read if len(read) <= 300 else f"{read[:200]} … {read[-90:]}"
        return f"{read!r}\n            loss on  {written[:300]!r}"

    # --- training

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Sum over the target's tokens of the plug's loss (the cross-entropy)."""
        from torch.nn import functional

        logits, labels = self._taught(model, batch)
        kept = labels != -100
        logits, labels = logits[kept].float(), labels[kept]
        each = plug(logits, labels) if plug else functional.cross_entropy(logits, labels, reduction="none")
        return each.sum()

    def _taught(self, model: Any, batch: Mapping[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Logits [rows, tokens, vocabulary] and labels [rows, tokens] of targets that are known word by word."""
        labels = batch["labels"]
        if self.alone:
            output = model(input_ids=batch["whole_ids"], attention_mask=batch["whole_mask"], use_cache=False)
            # Virtual tokens of prompt methods stand before the text.
            return output["logits"][:, -labels.shape[1] : -1], labels[:, 1:]
        shift = getattr(bare_model(model), "prepare_decoder_input_ids_from_labels", None)
        given = {"decoder_input_ids": shift(labels=labels)} if shift else {"labels": labels}
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return model(**source, **given, use_cache=False)["logits"], labels

    # --- measuring

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Ids written for each row [tokens], without what starts, ends and pads them."""
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        width = source["input_ids"].shape[1]
        limit = min(self.max_new_tokens or LONGEST_TARGET, max(1, _positions(bare_model(model).config) - width)) if self.alone \
            else self.max_new_tokens or LONGEST_TARGET  # fmt: skip
        ids = model.generate(**source, **{**self.search(), "max_new_tokens": limit}).cpu().numpy()
        return [self._trimmed(row[width if self.alone else 1 :]) for row in ids]

    def search(self) -> dict[str, Any]:
        """Arguments of `generate`: the same for evaluating, predicting, and in the card's code."""
        chosen: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams, "do_sample": False,
                                  "no_repeat_ngram_size": self.no_repeat_ngram_size, "min_length": 0}  # fmt: skip
        beams = {"length_penalty": self.length_penalty, "early_stopping": True}
        alone = {"length_penalty": 1.0, "early_stopping": False}
        tokens = {"eos_token_id": self.end, "pad_token_id": self.padding, "forced_bos_token_id": self.first,
                  "decoder_start_token_id": self.start}  # fmt: skip
        chosen |= beams if self.num_beams > 1 else alone
        return chosen | {name: value for name, value in tokens.items() if value is not None}

    def _trimmed(self, ids: "np.ndarray") -> "np.ndarray":
        import numpy as np

        ends = np.flatnonzero(ids == self.end)
        ids = ids[: ends[0]] if len(ends) else ids
        ids = ids[(ids != self.first) & (ids >= 0)] if self.first is not None else ids[ids >= 0]
        return ids[ids != self.padding].astype(np.int32)

    def quick_outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Loss summed, tokens, and tokens that are the likeliest, [3] for each row, with the targets given word by word."""
        made: list[np.ndarray] = []
        for part in few_rows(model, batch):
            logits, labels = self._taught(model, part)
            kept = labels != -100
            right = (logits.argmax(dim=-1) == labels) & kept
            made += sums(token_losses(logits, labels), kept, right)
        return made

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """Loss and accuracy per token; no text is written while training."""
        return by_token(kept)

    def readable(self, kept: "list[np.ndarray]", processor: Any) -> "list[np.ndarray]":
        """Texts, each as its bytes in UTF-8."""
        return decoded_bytes(kept, processor)

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """Scores of the texts beside the references."""
        return self._scores([text_of(one) for one in kept], references_of(rows))

    def _scores(self, texts: list[str], references: list[list[str]]) -> Measures:
        raise NotImplementedError

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction": text} for each row."""
        return [{"prediction": text_of(one)} for one in self.readable(kept, processor)]

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """The texts furthest from their references, by chrF of the row."""
        from sacrebleu.metrics import CHRF

        texts, references, metric = [text_of(one) for one in kept], references_of(rows), CHRF()
        scores = [metric.sentence_score(text, known).score for text, known in zip(texts, references, strict=True)]
        order = sorted(range(len(texts)), key=lambda i: scores[i])[:10]
        return [{"text": rows[i]["text"], "expected": references[i][0], "predicted": texts[i], "score": scores[i]}
                for i in order]  # fmt: skip

    def samples(self) -> list[dict[str, Any]]:
        """Texts to compare two models on where the run's own data is not at hand."""
        return [{"text": text} for text in SAMPLES]


def references_of(rows: Any) -> list[list[str]]:
    """The texts that each row allows as its target."""
    return rows["references"][:] if "references" in rows.column_names else [[one] for one in rows["target"][:]]


def _positions(config: Any) -> int:
    """How many tokens the decoder can write at most."""
    names = ("max_decoder_position_embeddings", "max_target_positions", "max_position_embeddings", "n_positions")
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    relative = getattr(config, "model_type", "").endswith("t5")  # n_positions of T5 limits nothing
    found = [getattr(text, name, None) for name in names] if not relative else []
    return int(next((value for value in found if value), 10**6))


def _require_writer(config: Any, run: Run) -> None:
    """Raise UsageError for a model that reads only, such as BERT."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind, both = config.model_type, getattr(config, "is_encoder_decoder", False)
    if getattr(config, "auto_map", None):
        return  # code of its own says what it can
    can = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if both else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if kind not in can or sees_both_ways(config):
        raise UsageError(f"--model {run.model}: {kind} reads texts but does not write any; take a model with a decoder "
                         "(T5, BART, Marian, NLLB …) or one that writes on (Llama, Qwen, GPT …)")  # fmt: skip
