"""Segments drawn on pictures, and as plain values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_tuner.tasks._drawn import Drawn, beside, drawable, sized
from hf_tuner.tasks._masks import colours
from hf_tuner.tasks._pictured import Sample, place_of, tally
from hf_tuner.tasks._runs import written
from hf_tuner.tasks._segments import Known, Segments, known_of
from hf_tuner.tasks._vision import decoded

EDGE = 480


def listed(found: Segments, names: Sequence[str], threshold: float) -> list[dict[str, Any]]:
    """Segments with a score of `threshold` as plain values, surest first."""
    import numpy as np

    order = [i for i in np.argsort(-found.score, kind="stable") if found.score[i] >= threshold]
    masks = found.masks()
    return [{"label": names[int(found.label[i])], "score": float(found.score[i]), "box": box_of(masks[i]),
             "segmentation": {"size": [found.height, found.width], "counts": written(found.runs[i])}}
            for i in order]  # fmt: skip


def box_of(mask: Any) -> list[int]:
    """Left, top, right, bottom in pixels of a mask that has a pixel; right and bottom lie just outside."""
    import numpy as np

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def side_by_side(pairs: Sequence[tuple[Segments, Known]], ready: Any, names: Sequence[str], threshold: float,
                 ) -> list[Drawn]:  # fmt: skip
    """A picture for each row: what was expected on the left, what was found with a score of `threshold` on the right."""
    made = []
    for number, (found, known) in enumerate(pairs):
        picture = decoded(ready[number]["image"])
        sure = found.score >= threshold
        masks, labels = found.masks()[sure], found.label[sure]
        left = _painted(picture, known.masks, [names[i] for i in known.label])
        said = [f"{names[label]} {score:.2f}" for label, score in zip(labels, found.score[sure], strict=True)]
        right = _painted(picture, masks, said)
        text = f"{len(known.masks)} segments expected (left), {int(sure.sum())} found (right)"
        made.append(Drawn(f"segments-{number + 1}", f"Picture {number + 1}", beside(left, right), text))
    return made


def pictured(
    rows: Iterable[tuple[int, Mapping[str, Any]]], names: Sequence[str], ids: Mapping[int, int], stuff: bool
) -> list[Sample]:
    """A sample for each (number, encoded row) with its segments laid over it; `ids` and `stuff` as in `known_of`."""
    made = []
    for number, row in rows:
        picture = decoded(row["image"])
        known = known_of(row, picture.height, picture.width, ids, stuff)
        said = [names[label] + (" (crowd)" if crowd else "")
                for label, crowd in zip(known.label, known.crowd, strict=True)]  # fmt: skip
        image = _painted(picture, known.masks, said)
        made.append(Sample(image, (tally(said, "no segments"),), place_of(row["image"], number)))
    return made


def _painted(picture: Any, masks: Any, words: Sequence[str]) -> Any:
    """A copy, `EDGE` pixels long, with masks laid over it and words where they are."""
    import numpy as np
    from PIL import Image, ImageDraw

    values = np.asarray(picture, np.float32).copy()
    palette = colours(max(1, len(masks)))
    for mask, colour in zip(masks, palette, strict=False):
        values[mask] = 0.45 * values[mask] + 0.55 * colour
    scale = EDGE / max(picture.size)
    copy = sized(Image.fromarray(values.clip(0, 255).astype(np.uint8)), EDGE)
    pen = ImageDraw.Draw(copy)
    for mask, text in zip(masks, words, strict=True):
        left, top, *_ = box_of(mask)
        pen.text((left * scale + 3, top * scale + 1), drawable(text), fill="white", stroke_width=1, stroke_fill="black")
    return copy
