"""crop: a random part of the picture in the model's size, mirrored half of the time."""

from collections.abc import Callable
from typing import Any

SMALLEST, WIDEST = 0.35, 4 / 3
"""The least share of the picture's area that is kept, and how far its shape may be stretched."""


def transform(size: tuple[int, int]) -> Callable[[Any], Any]:
    """A function from a PIL image to another of `size` (height, width).

    Source: Szegedy et al. 2015 (arXiv 1409.4842), as `RandomResizedCrop` of torchvision; the least area is larger
    than its 0.08, because pretrained models need few updates.
    """
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, scale=(SMALLEST, 1.0), ratio=(1 / WIDEST, WIDEST), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip()])
