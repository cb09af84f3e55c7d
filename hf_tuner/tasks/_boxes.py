"""Boxes: the ways they are written, which of them some rows use and how sure that is, and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_tuner.errors import UsageError

FORMATS = {
    "coco": "left, top, width, height in pixels",
    "xyxy": "left, top, right, bottom in pixels",
    "yolo": "centre x, centre y, width, height as shares of the picture",
    "normalised": "left, top, right, bottom as shares of the picture",
}
SLACK = 1.0
"""Pixels a box may stand over the edge: writers round, and some count from 1. Such boxes are cut without ado."""
SHARE_SLACK = 0.005
FITS = 0.95
"""Share of the boxes that must lie in their pictures for a format to be possible; faulty boxes are told apart after."""


@dataclass(frozen=True)
class Format:
    """A format, and why it is this one."""

    name: str
    proof: str


def infer(boxes: Sequence[Any], sizes: Sequence[tuple[int, int]], asked: str) -> Format:
    """The format of boxes [boxes, 4] of each picture, whose sizes are (width, height) in pixels.

    `asked` is a format, or auto: then the one that keeps the boxes inside their pictures, over all boxes. Raises UsageError
    when none does, or when two do so equally well, with the numbers.
    """
    if asked != "auto":
        return Format(asked, f"{asked} ({FORMATS[asked]}), as told")
    if not any(len(one) for one in boxes):
        raise UsageError("no picture has a box; there is nothing to learn")
    shares = {name: inside(boxes, sizes, name) for name in FORMATS}
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    top = max(shares.values())
    best = [name for name, share in shares.items() if share == top]
    if top < FITS:
        raise UsageError(
            f"the boxes fit no format: of all boxes there lie inside their pictures, with width and height, {told}; "
            f"{_spread(boxes)}\nexpected one of: {_listed(FORMATS)}; say which it is: --box-format coco"
        )
    if len(best) > 1:
        raise UsageError(
            f"the boxes could be {' or '.join(best)}: read either way, {top:.1%} of them lie inside their pictures; "
            f"say which it is: --box-format {best[0]} ({FORMATS[best[0]]}) or {best[1]} ({FORMATS[best[1]]})"
        )
    return Format(best[0], f"{best[0]} ({FORMATS[best[0]]}): boxes inside their pictures as {told}")


def inside(boxes: Sequence[Any], sizes: Sequence[tuple[int, int]], name: str) -> float:
    """Share of all boxes that, read in a format, have an area and lie in their pictures."""
    import numpy as np

    good = total = 0
    for one, (width, height) in zip(boxes, sizes, strict=True):
        if not len(one):
            continue
        given = np.asarray(one, float).reshape(-1, 4)
        total += len(given)
        if name in ("yolo", "normalised") and (given > 1 + SHARE_SLACK).any():
            continue
        good += int((~_faulty(to_corners(given, name, width, height), width, height)).sum())
    return good / max(1, total)


def to_corners(boxes: Any, name: str, width: int, height: int) -> Any:
    """Boxes [boxes, 4] of a format as corners (left, top, right, bottom) in pixels [boxes, 4]."""
    import numpy as np

    given = np.asarray(boxes, np.float64).reshape(-1, 4)
    if name in ("yolo", "normalised"):
        given = given * np.array([width, height, width, height])
    if name == "yolo":
        given = np.concatenate([given[:, :2] - given[:, 2:] / 2, given[:, 2:]], axis=1)
    if name in ("coco", "yolo"):
        return np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    return given


def faults(boxes: Any, name: str, width: int, height: int) -> list[str]:
    """What is wrong with the boxes of one picture, in words with the numbers."""
    corners = to_corners(boxes, name, width, height)
    found = []
    for index in _faulty(corners, width, height).nonzero()[0]:
        left, top, right, bottom = corners[index]
        what = "is not finite" if not abs(corners[index]).sum() < float("inf") else (
            "has no area" if right <= left or bottom <= top else f"is outside of the picture of {width} × {height}")  # fmt: skip
        found.append(f"box {index + 1} [{', '.join(f'{float(n):g}' for n in boxes[index])}] {what}")
    return found


def clipped(boxes: Any, name: str, width: int, height: int) -> tuple[Any, Any]:
    """Corners in pixels [kept, 4] cut to the picture, and which boxes [boxes] still have an area."""
    import numpy as np

    corners = np.nan_to_num(to_corners(boxes, name, width, height), nan=0.0, posinf=0.0, neginf=0.0)
    corners = np.clip(corners, 0, np.array([width, height, width, height]))
    kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    return corners[kept], kept


def _faulty(corners: Any, width: int, height: int) -> Any:
    import numpy as np

    slack = max(SLACK, SHARE_SLACK * max(width, height)) if width > 200 else SLACK
    outside = (corners[:, :2] < -slack).any(axis=1) | (corners[:, 2:] > np.array([width, height]) + slack).any(axis=1)
    empty = (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    tiny = ((corners[:, 2:] - corners[:, :2]) < 0.5).any(axis=1)  # a share of a picture, read as pixels
    return outside | empty | tiny | ~np.isfinite(corners).all(axis=1)


def _spread(boxes: Sequence[Any]) -> str:
    """The range of each of the four numbers."""
    import numpy as np

    every = np.concatenate([np.asarray(one, float).reshape(-1, 4) for one in boxes if len(one)])
    return "the four numbers go from " + ", ".join(
        f"{a:g} to {b:g}" for a, b in zip(every.min(0), every.max(0), strict=True)
    )


def _listed(known: dict[str, str]) -> str:
    return "; ".join(f"{name} ({text})" for name, text in known.items())
