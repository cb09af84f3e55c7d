"""Models that write a text for a picture: which tokens begin and end it, how they are taught and how they write.

Three families, told apart by their configuration: an encoder that sees and a decoder that writes (a ViT with a GPT-2), a
decoder that reads the picture by cross-attention (BLIP), and one whose text stands behind the picture's states (GIT). For all
of them a caption is taught as what follows a first token, and ends with one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    import numpy as np
    import torch

OWN_ENDS = ("blip",)
"""Their `generate` takes the tokens that begin and end a text from the configuration, and bears no others."""
CHATS = "talks about pictures in conversations: --task image-text-to-text trains it"


@dataclass(frozen=True)
class Captioner:
    """Plain values that say how a model writes."""

    crosses: bool
    """An encoder and a decoder: the text is called `decoder_input_ids`."""
    start: int
    """The token that every text begins with; it is read, and never learned."""
    end: int
    """The token that ends every text."""
    padding: int
    own_ends: bool
    """Whether `generate` knows the three tokens by itself."""

    @property
    def reads(self) -> str:
        """What the model calls the text it reads."""
        return "decoder_input_ids" if self.crosses else "input_ids"

    def tokens(self) -> dict[str, int]:
        """Arguments of `generate` that say how a text begins and ends."""
        if self.own_ends:
            return {}
        first = "decoder_start_token_id" if self.crosses else "bos_token_id"
        return {first: self.start, "eos_token_id": self.end, "pad_token_id": self.padding}

    def targets(self, tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Ids of texts, cut, each with the one token that ends it: a text that spells that token does not end there."""
        cut = [text[: longest * CHARACTERS_PER_TOKEN] for text in texts]
        made = tokenizer(cut, add_special_tokens=False)["input_ids"]
        return [[*[one for one in ids if one != self.end][: longest - 1], self.end] for ids in made]

    def padded(self, targets: Sequence[Sequence[int]], learned: Sequence[bool]) -> dict[str, "torch.Tensor"]:
        """What the model reads and `labels` [rows, tokens]: each token is to be said after those before it.

        Rows that are not `learned` (filler) and what pads the others have the label -100.
        """
        import torch

        width = max(map(len, targets))
        read = [[self.start, *ids[:-1]] + [self.padding] * (width - len(ids)) for ids in targets]
        labels = [(list(ids) if learn else [-100] * len(ids)) + [-100] * (width - len(ids))
                  for ids, learn in zip(targets, learned, strict=True)]  # fmt: skip
        return {self.reads: torch.tensor(read), "labels": torch.tensor(labels)}

    def taught(self, model: Any, batch: Mapping[str, Any]) -> "torch.Tensor":
        """Logits [rows, tokens, vocabulary] of texts that are given word by word; those of the picture's own are left out."""
        given = {name: batch[name] for name in ("pixel_values", self.reads)}
        logits: torch.Tensor = model(**given, use_cache=False)["logits"]
        return logits[:, -batch["labels"].shape[1] :]

    def written(self, row: "np.ndarray") -> "np.ndarray":
        """The ids of a text as `generate` gives it, without what begins and ends it and what pads it behind its end."""
        import numpy as np

        ids = row[1:]
        ends = np.flatnonzero(ids == self.end)
        return (ids[: ends[0]] if len(ends) else ids).astype(np.int32)


def captioner_of(config: Any, processor: Any, model: str) -> Captioner:
    """How the model of a configuration writes. Raises UsageError for one that does not, or not without a conversation."""
    _require_captioner(config, processor, model)
    text, tokenizer = config.get_text_config(decoder=True), processor.tokenizer
    crosses, own = bool(getattr(config, "is_encoder_decoder", False)), config.model_type in OWN_ENDS
    end: Any = text.sep_token_id if own else _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
    start: Any
    if own:
        start = text.bos_token_id
    elif crosses:
        starts = (
            getattr(one, name, None) for name in ("decoder_start_token_id", "bos_token_id") for one in (config, text)
        )
        start = _first(*starts, tokenizer.bos_token_id, tokenizer.cls_token_id)
    else:
        start = _first(getattr(text, "bos_token_id", None), tokenizer.bos_token_id, tokenizer.cls_token_id)
    for what, token in (("begins", start), ("ends", end)):
        if not isinstance(token, int) or not 0 <= token < text.vocab_size:
            raise UsageError(f"--model {model}: the token that {what} a text is {token}; expected one of the "
                             f"{text.vocab_size:,} that the model knows (bos_token_id, sep_token_id in its config.json, or the "
                             "tokenizer's)")  # fmt: skip
    return Captioner(crosses, start, end, tokenizer.pad_token_id, own)


def _require_captioner(config: Any, processor: Any, model: str) -> None:
    """Raise UsageError for a model that cannot caption a picture by itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind, tokenizer = config.model_type, getattr(processor, "tokenizer", None)
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise UsageError(f"--model {model}: {kind} does not write about pictures; take a captioner such as BLIP, GIT or a ViT "
                         "with a GPT-2")  # fmt: skip
    if any(getattr(one, "chat_template", None) for one in (processor, tokenizer)):
        raise UsageError(f"--model {model}: {kind} {CHATS}")
    names = getattr(processor.image_processor, "model_input_names", [])
    in_text = any(getattr(config, name, None) is not None for name in ("image_token_id", "image_token_index"))
    if in_text or "pixel_values" not in names:
        reads = "reads pictures between the words of a prompt" if in_text else f"reads pictures as {', '.join(names)}"
        raise UsageError(f"--model {model}: {kind} {reads}, which this task does not make; take a captioner such as BLIP, GIT "
                         "or a ViT with a GPT-2")  # fmt: skip


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
