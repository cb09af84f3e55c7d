"""trivial: crop and mirror, then one random change of random strength (TrivialAugment)."""

from collections.abc import Callable
from typing import Any

SMALLEST = 0.35


def transform(size: tuple[int, int]) -> Callable[[Any], Any]:
    """A function from a PIL image to another of `size` (height, width).

    Source: Müller and Hutter 2021, TrivialAugment (arXiv 2103.10158), as torchvision's `TrivialAugmentWide`.
    """
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, scale=(SMALLEST, 1.0), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()])
