"""What convolutional networks need: batch norms whose statistics are looked after, and settings that mean what they say."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from hf_tuner.console import say
from hf_tuner.errors import UsageError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
KEPT = 0.5
"""Above this a dropout or a momentum was meant as the share that is kept: MobileNetV1 and V2 were converted so."""
MOMENTUM = 0.1
KERNEL = 4
"""Dimensions of a two-dimensional convolution's weight."""


def sane_config(config: Any) -> Any:
    """The configuration with a dropout that leaves something over.

    transformers gives MobileNetV1 and V2 a classifier dropout of 0.999 and 0.8, which TensorFlow meant as the share that
    is kept.
    """
    dropout = getattr(config, "classifier_dropout_prob", None)
    if dropout is not None and dropout > KEPT:
        config.classifier_dropout_prob = round(1 - dropout, 6)
    return config


def channels_last(model: Any) -> None:
    """Lay the kernels of a network with batch norms out with their channels last, in place.

    Convolutions are faster so and give their output the same layout (PyTorch's channels-last guide). Forward and backward
    on a CPU, float32: MobileNetV2 1.5, MobileNetV1 1.4, DeepLabV3 1.3, EfficientNet and SegFormer 1.15 times as fast.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return
    for parameter in model.parameters():
        if parameter.ndim == KERNEL:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def settle_norms(model: Any, policy: str, usual: str, saves: str, trainable: bool) -> str:
    """Make the batch norms of a bare model follow a policy, and return it; "none" when there are none.

    train: statistics follow the batches; eval: they stay, weight and bias train; frozen: nothing of them changes. auto
    is the task's `usual`, never train: a head that starts from frozen features knows what they are with the old statistics
    (Fashion-MNIST, MobileNetV1 0.25: with "train" the loss leaps from 0.4 to 45). With auto, norms that have never seen a
    batch follow them all the same where the whole model trains: there is nothing to keep. A momentum that would
    forget all but the last batch is set to 0.1 (torch weighs the new batch with it). Raises UsageError for adapters
    with "train".
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    if not norms:
        return "none"
    for norm in norms:
        if norm.momentum is not None and norm.momentum > KEPT:
            norm.momentum = MOMENTUM
    chosen = usual if policy == "auto" else policy
    if chosen == "train" and saves == "adapter":
        raise UsageError(
            "--batch-norm train: an adapter's files hold no running statistics; use eval, or --method full"
        )
    whole = saves == "model" and trainable
    new = [norm for norm in norms if whole and policy == "auto" and _is_new(norm)]
    still = [norm for norm in norms if norm not in new]
    if not still:
        chosen = "train"
    if chosen == "frozen":
        for norm in still:
            norm.requires_grad_(False)
    if chosen in ("eval", "frozen"):
        model.register_forward_pre_hook(lambda module, inputs: _still(still))
    kept = "" if chosen == "train" else ", statistics stay"
    more = f"; {len(new)} that never saw a batch train" if new and still else ""
    say(f"batchnorm {chosen}: {len(still) or len(new)} layers{kept}{more}")
    return chosen


def meet(model: Any, batches: Iterable[Any], forward: Callable[[Any, Any], Any]) -> None:
    """Give batch norms the statistics of these batches, which `forward` runs through the model.

    Without it a head that is fitted to frozen features, and whatever else is pretrained, meets other features at the
    first step of training. (AdaBN; Li et al. 2016, arXiv 1603.04779)
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for batch in batches:
            forward(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


def _is_new(norm: Any) -> bool:
    """Whether a norm has the statistics that it was born with."""
    return bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())


def _still(norms: list[Any]) -> None:
    """Before every forward pass: the Trainer switches the whole model to training at every step."""
    for norm in norms:
        norm.eval()
