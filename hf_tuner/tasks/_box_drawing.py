"""Boxes drawn on pictures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_tuner.tasks._drawn import Drawn, beside, lettered, sized
from hf_tuner.tasks._pictured import Sample, place_of, tally
from hf_tuner.tasks._vision import decoded

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
EDGE = 480


def side_by_side(
    kept: Sequence[Any], ready: Any, expected: Sequence[Any], names: Sequence[str], threshold: float
) -> list[Drawn]:
    """A picture for each row: what was expected on the left, what was found with a score of `threshold` on the right."""
    made = []
    for number, (found, known) in enumerate(zip(kept, expected, strict=True)):
        known = known[known[:, 5] == 0]
        picture = decoded(ready[number]["image"])
        sure = [one for one in found.tolist() if one[4] >= threshold]
        left = _with_boxes(picture, [(one[:4], int(one[4]), "") for one in known.tolist()], names)
        right = _with_boxes(picture, [(one[:4], int(one[5]), f" {one[4]:.2f}") for one in sure], names)
        text = f"{len(known)} boxes expected (left), {len(sure)} found (right)"
        made.append(Drawn(f"boxes-{number + 1}", f"Picture {number + 1}", beside(left, right), text))
    return made


def pictured(rows: Iterable[tuple[int, Mapping[str, Any], Any]], names: Sequence[str]) -> list[Sample]:
    """A sample for each (number, row, its expected boxes), with the boxes drawn, those around crowds too."""
    made = []
    for number, row, known in rows:
        boxes = [(one[:4], int(one[4]), " (crowd)" if one[5] else "") for one in known.tolist()]
        image = _with_boxes(decoded(row["image"]), boxes, names)
        said = tally((f"{names[label]}{more}" for _, label, more in boxes), "no boxes")
        made.append(Sample(image, (said,), place_of(row["image"], number)))
    return made


def _with_boxes(picture: Any, boxes: Sequence[tuple[Sequence[float], int, str]], names: Sequence[str]) -> Any:
    """A copy, at most `EDGE` pixels long, with boxes (corners in pixels) and their labels."""
    from PIL import ImageDraw

    scale = EDGE / max(picture.size)
    copy = sized(picture, EDGE)
    pen = ImageDraw.Draw(copy)
    for corners, label, more in boxes:
        left, top, right, bottom = (n * scale for n in corners)
        colour = COLOURS[label % len(COLOURS)]
        pen.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), outline=colour, width=2)
        lettered(pen, (left + 3, top + 1), f"{names[label]}{more}", colour)
    return copy
