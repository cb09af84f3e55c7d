"""Which models can do a task on pictures, told by their class before any weight is read."""

import inspect
from typing import Any

from hf_tuner.errors import UsageError

UNTRAINED = "not support training"
"""What models that were published for prediction alone say when they get labels."""


def require_plain_pixels(config: Any, auto: str, model: str) -> None:
    """Raise UsageError for a classifier that reads something else than pixels [rows, channels, height, width]."""
    kind = class_of(config, auto)
    if kind is None:
        return
    takes = inspect.signature(kind.forward).parameters
    if "input_ids" in takes or "pixel_values" not in takes:
        reads = "pictures with a text" if "pixel_values" in takes else "colours as words"
    elif "spatial_shapes" in takes:
        reads = "patches of pictures in their own shape"
    else:
        return
    raise UsageError(f"--model {model}: {config.model_type} reads {reads}, which this task does not make; take one that reads "
                     "pixels, such as a ViT, ConvNeXt or SigLIP")  # fmt: skip


def require_own_loss(config: Any, auto: str, model: str) -> None:
    """Raise UsageError for a model that was made for prediction alone, without a loss."""
    kind = class_of(config, auto)
    if kind is None:
        return
    if "labels" not in inspect.signature(kind.forward).parameters or UNTRAINED in inspect.getsource(kind):
        raise UsageError(f"--model {model}: {config.model_type} is made for prediction alone: transformers has no loss for it. "
                         "Take a detector that trains, such as DETR, RT-DETR, D-FINE or YOLOS")  # fmt: skip


def class_of(config: Any, auto: str) -> Any:
    """The class that an auto class takes for a configuration; None where code of its own gives it, or nothing does."""
    import transformers

    if getattr(config, "auto_map", None):
        return None
    found = getattr(transformers, auto)._model_mapping.get(type(config), None)
    return found[0] if isinstance(found, list | tuple) else found
