"""Frozen features: one pass over the rows, cached by content.

Made once for the probe (the baseline every report shows) and for fitting the head before anything else moves, which
is why `head-only` trains in seconds.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Image
from torch import nn

from hf_tuner.console import Progress, warn
from hf_tuner.data.fingerprint import picture_digest
from hf_tuner.data.places import own_cache
from hf_tuner.data.seals import remove, seal, whole
from hf_tuner.evaluation.loop import batches, to_device
from hf_tuner.models.load import bare_model


@dataclass(frozen=True)
class Features:
    """States of the frozen model: float32 arrays [rows, hidden]."""

    mean: np.ndarray
    """Mean over the tokens, patches or pixels of each row of the body's last states: what the probe reads."""
    entry: np.ndarray
    """What the head's last linear layer reads."""


class Reader:
    """Reads both kinds of states in one forward pass, with the adapter switched off."""

    def __init__(self, model: Any, head: tuple[str, ...]) -> None:
        self.model = model
        self.bare = bare_model(model)
        self.body = getattr(self.bare, self.bare.base_model_prefix, None)
        self.last, self.copy = last_linears(self.bare, head)
        self.seen: dict[str, Any] = {}

    @property
    def possible(self) -> bool:
        """Whether this architecture has a body and a last linear layer that can be watched."""
        return self.body is not None and self.last is not None

    def read(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and entry states [rows, hidden] of one batch; None when the head does not read one state a row."""
        hooks = [
            self.body.register_forward_hook(self._see),  # type: ignore[union-attr]
            *(
                m.register_forward_pre_hook(lambda m, a: self.seen.update(entry=a[0]))
                for m in (self.last, self.copy)
                if m
            ),
        ]
        try:
            logits = self.bare(**batch).logits
        finally:
            for hook in hooks:
                hook.remove()
        states, entry = self.seen.pop("states"), self.seen.pop("entry").float()
        states = entry[:, None] if states is None and entry.dim() == 2 else states
        if states is None:
            return None
        states = states.float()
        if entry.dim() == 3:
            entry = _chosen(entry, logits, self.last)
        if states.dim() == 4:  # channels of an image: [rows, channels, height, width]
            states = states.flatten(2).transpose(1, 2)
        if entry is None or entry.dim() != 2 or states.dim() != 3:
            return None
        mask = batch.get("attention_mask", torch.ones(states.shape[:2], device=states.device))[..., None]
        if mask.shape[1] != states.shape[1]:
            return None
        return (states * mask).sum(1) / mask.sum(1), entry

    def _see(self, module: Any, inputs: Any, outputs: Any) -> None:
        """Keep the body's states; a model of timm holds its head and gives logits: what its head reads stands for them."""
        self.seen["states"] = None if isinstance(outputs, torch.Tensor) else outputs[0]

    def features(self, rows: Any, collate: Callable, batch_size: int = 64) -> Features | None:
        """States of every row, in row order; None when they cannot be read."""
        parts: list[tuple[np.ndarray, torch.Tensor, torch.Tensor]] = []
        progress = Progress("reading features", -(-len(rows) // batch_size))
        self.model.eval()
        with torch.inference_mode(), _without_adapter(self.model):
            for index, made in batches(rows, collate, batch_size):
                progress.step()
                batch = to_device(made or {}, self.bare.device)
                batch.pop("labels", None)
                read = self.read(batch)
                if read is None:
                    return None
                parts.append((index, read[0].cpu(), read[1].cpu()))
        progress.end()
        return Features(_ordered(parts, 1, len(rows)), _ordered(parts, 2, len(rows)))


@contextmanager
def _without_adapter(model: Any) -> Iterator[None]:
    """Switch an adapter off. peft makes every saved module trainable on the way back, so what trains is kept."""
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    # pissa and olora took their start out of the base: base and adapter together are the model as it was.
    off = hasattr(model, "disable_adapter") and getattr(model, "tuner_start", None) is None
    # Prompts live in the wrapper, which the reader goes round; peft cannot switch them off under a classifier.
    off = off and not model.active_peft_config.is_prompt_learning
    with model.disable_adapter() if off else nullcontext():
        yield
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains[name])


def last_linears(bare: Any, head: tuple[str, ...], maps: bool = False) -> tuple[Any, Any]:
    """The head's linear layer that gives one output per label: the model's own, and the copy peft trains, if any.

    With `maps`, convolutions that do so for every place of a picture count too.
    """
    width = bare.config.num_labels

    def gives_labels(module: nn.Module) -> bool:
        if isinstance(module, nn.Conv2d):
            return maps and module.out_channels == width
        return isinstance(module, nn.Linear) and module.out_features == width

    found = [
        (name, module)
        for name, module in bare.named_modules()
        if gives_labels(module) and any(f".{h}." in f".{name}." for h in head)
    ]
    own = [module for name, module in found if ".modules_to_save." not in f".{name}."]
    copies = [module for name, module in found if ".modules_to_save." in f".{name}."]
    return (own[-1] if own else None), (copies[-1] if copies else None)


def cached(reader: Reader, rows: Any, collate: Callable, key: Sequence[str]) -> tuple[Features | None, bool]:
    """Features from the cache when the same model and rows were seen before, and whether they were.

    The key is content: what `key` says of the model and its processor, and the token ids or pictures.
    """
    digest = hashlib.sha256("\n".join(key).encode())
    for ids in rows.with_format(None)["input_ids"] if "input_ids" in rows.column_names else ():
        digest.update(np.asarray(ids, np.int32).tobytes() + b"|")
    for name in (name for name in rows.column_names if isinstance(rows.features[name], Image)):
        digest.update(picture_digest(rows.select_columns(name)))
    path = cache_folder() / f"{digest.hexdigest()[:32]}.npz"
    state = whole(path)
    if state:
        with np.load(path, allow_pickle=False) as saved:
            return Features(saved["mean"], saved["entry"]), True
    if state is False and path.is_file():
        warn(f"the cached features {path.name} are damaged; they are made anew")
    remove(path)
    features = reader.features(rows, collate)
    if features is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as handle:
            np.savez(handle, mean=features.mean, entry=features.entry)
        Path(handle.name).replace(path)
        seal(path)
    return features, False


def cache_folder() -> Path:
    """Where features are kept: `hf-tuner/features` under HF_HOME."""
    return own_cache() / "features"


def _chosen(entry: torch.Tensor, logits: torch.Tensor, last: Any) -> torch.Tensor | None:
    """The state [rows, hidden] among [rows, tokens, hidden] that the logits were taken from."""
    distance = (last(entry) - logits[:, None]).abs().amax(-1)
    best, token = distance.min(dim=1)
    return entry[torch.arange(len(entry)), token] if bool((best < 1e-3).all()) else None


def _ordered(parts: list[tuple], which: int, count: int) -> np.ndarray:
    result = np.zeros((count, parts[0][which].shape[1]), np.float32)
    for part in parts:
        result[part[0]] = part[which].numpy()
    return result
