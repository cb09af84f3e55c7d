"""Models of timm, which transformers wraps: read, saved and told apart as every other model is."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_tuner.errors import ArtifactError, EnvironmentFault

SIGN = "pretrained_cfg"
"""The key of config.json that timm's checkpoints have, and no others."""
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")
"""Names of Pillow's resampling filters in the order of their numbers, as far as torchvision knows them."""


def forget_names(config: Any) -> Any:
    """The configuration without the class names of its file, which would be saved in the place of the task's own.

    transformers keeps them beside `id2label`, and writes only them.
    """
    if config.model_type == "timm_wrapper":
        vars(config).pop("label_names", None)
    return config


def plain_processor(processor: Any, source: str) -> Any:
    """An image processor that does what timm's transforms for evaluation do, and can be saved beside an adapter.

    transformers' own for timm reads config.json only, is never saved, and takes no word on what to leave out. Raises
    ArtifactError for pictures that are cut in another way.
    """
    from transformers import CLIPImageProcessor

    known = processor.data_config
    channels, height, width = known["input_size"]
    mode, share, name = known["crop_mode"] or "center", known["crop_pct"], known["interpolation"]
    shaped = mode == "squash" or (mode == "center" and height == width)
    if not shaped or name not in FILTERS or channels != 3:
        raise ArtifactError(f"{source} reads pictures in a way that is not known here: {width} × {height} pixels in {channels} "
                            f"{'channel' if channels == 1 else 'channels'}, {mode}, {name}; expected three channels, a square "
                            f"from the centre or the picture squashed, and {', '.join(FILTERS[:-1])} or {FILTERS[-1]}")  # fmt: skip
    tall, wide = math.floor(height / share), math.floor(width / share)
    return CLIPImageProcessor(
        size={"shortest_edge": tall} if mode == "center" else {"height": tall, "width": wide},
        crop_size={"height": height, "width": width},
        resample=FILTERS.index(name), image_mean=list(known["mean"]), image_std=list(known["std"]),
    )  # fmt: skip


@contextmanager
def needs_timm(source: str) -> Iterator[None]:
    """Say what to install when a model is made of timm's parts and timm is not there."""
    try:
        yield
    except ImportError as error:
        if "timm" not in str(error):
            raise
        reason = "" if "requires the timm" in str(error) else f" ({str(error).splitlines()[0][:200]})"
        raise EnvironmentFault(
            f'{source} is made of parts of timm{reason}: pip install --upgrade "hf-tuner[vision]"'
        ) from error
