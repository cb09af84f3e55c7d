"""Masks as runs of pixels, as COCO writes them (RLE): coding, its text, polygons and overlaps.

Runs count the pixels of a mask column by column, of background and of the thing by turns, background first. They equal
those of pycocotools bit for bit, polygons included.
"""

from collections.abc import Sequence
from typing import Any

FINER = 5
"""Polygons are drawn on a grid so many times finer, as pycocotools does."""


def runs_of(mask: Any) -> Any:
    """Runs int64 [runs] of a mask [height, width]."""
    import numpy as np

    flat = np.asarray(mask, bool).ravel(order="F")
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], turns, [flat.size]]))
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def mask_of(runs: Any, height: int, width: int) -> Any:
    """The mask bool [height, width] of runs. Raises ValueError when they do not cover the picture exactly."""
    import numpy as np

    counts = np.asarray(runs, np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"runs cover {int(counts.sum()):,} pixels; expected {height} × {width} = {height * width:,}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def written(runs: Any) -> str:
    """Runs as COCO's compressed text."""
    counts, made = [int(n) for n in runs], []
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            part = number & 31
            number >>= 5
            more = number != -1 if part & 16 else number != 0
            made.append(chr((part | 32 if more else part) + 48))
    return "".join(made)


def read(text: str) -> list[int]:
    """The runs of COCO's compressed text. Raises ValueError for other text."""
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        part = ord(letter) - 48
        if not 0 <= part < 64:
            raise ValueError(f"{letter!r} is no letter of compressed runs")
        number |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        number -= (1 << shift) if part & 16 else 0
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("compressed runs end within a number")
    return counts


def polygon_mask(corners: Sequence[float], height: int, width: int) -> Any:
    """The mask bool [height, width] of a polygon x, y, x, y … in pixels (`rleFrPoly` of pycocotools)."""
    import numpy as np

    points = np.trunc(FINER * np.asarray(corners, np.float64).reshape(-1, 2) + 0.5).astype(np.int64)
    ends = np.roll(points, -1, axis=0)
    drawn = np.concatenate([_line(*start, *end) for start, end in zip(points, ends, strict=True)])
    before, after = drawn[:-1], drawn[1:]
    steps = after[:, 0] != before[:, 0]
    x = np.where(after[:, 0] < before[:, 0], after[:, 0], after[:, 0] - 1)[steps]
    y = np.minimum(after[:, 1], before[:, 1])[steps]
    x, y = (x + 0.5) / FINER - 0.5, np.ceil(np.clip((y + 0.5) / FINER - 0.5, 0, height))
    inside = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    places = (x[inside] * height + y[inside]).astype(np.int64)
    turns = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(turns) % 2 == 1).reshape(width, height).T


def covered(masks: Any) -> Any:
    """Masks bool [n, …] as bits uint8 [n, bytes], which is what `overlap` reads."""
    import numpy as np

    flat = np.asarray(masks, bool)
    return np.packbits(flat.reshape(len(flat), int(np.prod(flat.shape[1:]))), axis=1)


def shared(first: Any, second: Any) -> Any:
    """Pixels float64 [first, second] that masks as bits have in common."""
    import numpy as np

    made = np.zeros((len(first), len(second)))
    for row, bits in enumerate(first):
        made[row] = np.bitwise_count(bits & second).sum(axis=1)
    return made


def overlap(first: Any, second: Any, crowd: Any = False) -> Any:
    """Intersection over union float64 [first, second] of masks as bits; 0 where both are empty.

    With those of the second that are a `crowd` [second], it is the share of the first that lies in it.
    """
    import numpy as np

    both = shared(first, second)
    union = pixels(first)[:, None] + np.where(crowd, 0, pixels(second)[None] - both)
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def pixels(bits: Any) -> Any:
    """Pixels float64 [n] of masks as bits."""
    import numpy as np

    return np.bitwise_count(bits).sum(axis=1).astype(np.float64)


def _line(x: int, y: int, to_x: int, to_y: int) -> Any:
    """Places int64 [places, 2] on a line, from its start to its end."""
    import numpy as np

    wide, high = abs(to_x - x), abs(to_y - y)
    flat = wide >= high
    turned = x > to_x if flat else y > to_y
    if turned:
        x, y, to_x, to_y = to_x, to_y, x, y
    steps = np.arange(max(wide, high) + 1)
    slope = ((to_y - y) / max(1, wide)) if flat else ((to_x - x) / max(1, high))
    along = steps + (x if flat else y)
    across = np.trunc((y if flat else x) + slope * steps + 0.5).astype(np.int64)
    line = np.stack([along, across] if flat else [across, along], axis=1)
    return line[::-1] if turned else line
