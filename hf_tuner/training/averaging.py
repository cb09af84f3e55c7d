"""The average of the weights over the updates, which is measured and saved in place of where the last update left them.

A small step from here to there at every update (Polyak and Juditsky 1992) takes the noise of the last steps out of a model:
detectors are rarely trained without. Training itself goes on from the weights as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from hf_tuner.console import say
from hf_tuner.errors import ArtifactError, UsageError

FILE = "average.safetensors"


class Average(TrainerCallback):
    """The exponential moving average of every tensor that training moves, statistics of batch norms included.

    After update n the average keeps the share min(decay, (1 + n) / (10 + n)) of itself, so that the start of a run is soon
    forgotten, as in TensorFlow and timm.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.model, self.decay = model, decay
        self.values: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start where the weights start, unless a checkpoint has brought an average."""
        if not self.values:
            self.values = {name: tensor.detach().clone() for name, tensor in self._moving().items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the weights of this update in."""
        keep = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, tensor in self._moving().items():
                if name in self.values:
                    self.values[name].lerp_(tensor, 1 - keep)
                else:  # it begins to train now (gradual)
                    self.values[name] = tensor.detach().clone()

    @contextmanager
    def instead(self) -> Iterator[None]:
        """The average in the model, and the weights back in it afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def settle(self, updates: int) -> None:
        """Leave the average in the model for good."""
        self._exchange()
        say(f"  average   of the weights over {updates} updates, decay {self.decay:g}: what is measured and saved")

    def save(self, folder: Path) -> None:
        """Write the average beside a checkpoint's weights."""
        save_file({name: value.cpu().contiguous() for name, value in self.values.items()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote. Raises ArtifactError when it is not there, or another model's."""
        here = self._every()
        try:
            saved = load_file(folder / FILE)
        except OSError as error:
            raise ArtifactError(f"{folder} holds no average of the weights (--ema); start anew: --overwrite") from error
        if other := [name for name, value in saved.items() if name not in here or here[name].shape != value.shape]:
            raise ArtifactError(f"{folder / FILE} belongs to another model: {other[0]} is not in this one, or larger")
        self.values = {name: value.to(here[name].device) for name, value in saved.items()}

    def _moving(self) -> dict[str, torch.Tensor]:
        """Tensors by name that updates change: trainable weights, and buffers with numbers in them."""
        return {name: tensor for name, tensor in self._every().items()
                if tensor.is_floating_point() and (tensor.requires_grad or not isinstance(tensor, torch.nn.Parameter))}  # fmt: skip

    def _every(self) -> dict[str, torch.Tensor]:
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def _exchange(self) -> None:
        here = self._every()
        with torch.no_grad():
            for name, value in self.values.items():
                weights = here[name].detach().clone()
                here[name].copy_(value)
                self.values[name] = weights


def require_decay(decay: float | None) -> None:
    """Raise UsageError for a decay that is none."""
    if decay is not None and not 0 < decay < 1:
        raise UsageError(f"--ema {decay:g}: expected a share above 0 and below 1, such as 0.999")
