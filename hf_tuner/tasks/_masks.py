"""Masks: which number in them is which class, what they hold, and class maps as pictures."""

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.pictures import looked_through, open_mask
from hf_tuner.tasks._drawn import drawable, sized

IGNORED = -100
"""In class maps: pixels that count for nothing."""
STRANGE = -101
"""In class maps that are being made: pixels of no class."""
WIDEST = 2**16
"""Numbers in masks below this are looked up in a table."""
VOID = 255
"""What most data sets write where nothing was annotated."""
MOST_IDS = 1000
"""More different numbers than this in masks are no class ids."""
NAMES_FILE = "id2label.json"
FOUND = "mask_pixels"
"""Fact of the audit: split → id in the masks → pixels."""


@dataclass(frozen=True)
class Code:
    """What the numbers in masks mean: the one place where ids are ignored, shifted or mapped."""

    ids: tuple[int, ...]
    """The number in a mask of each class, in the order of the model's outputs."""
    names: tuple[str, ...]
    ignored: tuple[int, ...]
    """Numbers that count for nothing."""
    note: str = ""

    def classes(self, ids: Any) -> Any:
        """Class ids of the numbers in a mask, `IGNORED` where nothing counts. Raises UsageError for others."""
        import numpy as np

        known = np.array([*self.ids, *self.ignored], np.int64)
        meant = np.array([*range(len(self.ids)), *[IGNORED] * len(self.ignored)], np.int64)
        largest = known.max()
        if largest < WIDEST and np.min(ids, initial=0) >= 0:  # a look-up takes a fraction of a search's time
            table = np.full(largest + 2, STRANGE, np.int32)
            table[known] = meant
            found = table.take(ids, mode="clip")
        else:
            order = np.argsort(known)
            at = np.searchsorted(known[order], ids).clip(max=len(known) - 1)
            found = np.where(known[order][at] == ids, meant[order][at], STRANGE)
        if (found == STRANGE).any():
            raise UsageError(f"a mask holds {self.strangers(np.unique(ids[found == STRANGE]).tolist())}")
        return found

    def strangers(self, ids: Sequence[int]) -> str:
        """What is wrong with numbers that are no class."""
        shown = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
        aside = f" and {', '.join(map(str, self.ignored))} for what is ignored" if self.ignored else ""
        span = f"{min(self.ids)} to {max(self.ids)}" if len(self.ids) > 5 else ", ".join(map(str, self.ids))
        return (
            f"{shown}, which no class has; expected {span}{aside} (--classes names them, --ignore-index leaves one out)"
        )


def decoded_mask(value: Mapping[str, Any]) -> Any:
    """The numbers int64 [height, width] of a mask's {"bytes", "path"}. Raises UsageError for what is no mask."""
    return open_mask(value["bytes"] if value["bytes"] is not None else Path(value["path"]))


def counted(rows: Any) -> Iterator[tuple[tuple[int, int], dict[int, int]] | UsageError]:
    """Height and width, and pixels of each number, of every row's mask in order; the error of one that cannot be read."""
    return looked_through(rows, "mask", _counted)


def _counted(value: Mapping[str, Any]) -> tuple[tuple[int, int], dict[int, int]] | UsageError:
    import numpy as np

    try:
        mask = decoded_mask(value)
    except UsageError as error:
        return error
    ids, pixels = np.unique(mask, return_counts=True)
    return mask.shape, dict(zip(ids.tolist(), pixels.tolist(), strict=True))


def code_of(found: Mapping[str, Mapping[int, int]], given: Any, dataset: str) -> Code:
    """What numbers mean, from those found in each split, the task's settings and an id2label.json beside the data.

    `given` has the fields of the task's Config. Raises UsageError for names that cannot be read and for masks that hold
    no class ids.
    """
    ids = {one for pixels in found.values() for one in pixels}
    if len(ids) > MOST_IDS:
        raise UsageError(f"the masks hold {len(ids):,} different numbers; expected one number a pixel, its class")
    named, where = _names(given.classes, dataset)
    shift = 1 if given.reduce_labels else 0
    named = {number + shift: name for number, name in named.items()}
    zero = (0,) if shift else ()
    told, none = given.ignore_index, (given.ignore_index or 0) < 0
    chosen = () if told is None or none else (told,)
    if not shift and not none and _is_binary(ids.difference(chosen), named):
        names = tuple(named.values()) or ("background", "foreground")
        return Code((0, VOID), names, chosen, f"2 classes: masks of 0 and {VOID}, {VOID} is read as {names[1]}")
    void = () if none or VOID in named else (VOID,)
    ignored = tuple(dict.fromkeys([*zero, *chosen, *void]))
    kept = [number for number in sorted(named or ids) if number not in ignored]
    if kept == [0, 1] and not named:
        names = ("background", "foreground")
    else:
        names = tuple(named.get(number, f"class {number - shift}") for number in kept)
    seen = [f"{number} ({named[number]})" if number in named else str(number) for number in ignored if number in ids]
    aside = f"; id {' and '.join(seen)} ignored" if seen else ""
    aside += f"; --ignore-index {told} is in no mask" if chosen and told not in ids else ""
    aside += f"; {kept[0]} in the masks is {names[0]}" if shift and named else ""
    return Code(tuple(kept), names, ignored, f"{len(kept)} classes, {where}{aside}")


def _is_binary(ids: set[int], named: Mapping[int, str]) -> bool:
    return ids == {0, VOID} and (not named or sorted(named) == [0, 1])


def _names(setting: str, dataset: str) -> tuple[dict[int, str], str]:
    """Number → name in the order of the numbers, and where they come from."""
    if setting != "auto":
        path = Path(setting).expanduser()
        if path.suffix == ".json" or os.path.isfile(path):  # `is_file` fails for long lists
            return _read(path), f"named by {path.name}"
        names = [name.strip() for name in setting.split(",")]
        if not all(names) or len(set(names)) < len(names):
            raise UsageError(f"--classes {setting}: expected different names as sky,road,car, or a JSON file")
        return dict(enumerate(names)), "named by --classes"
    place = Path(dataset).expanduser()
    place = place if place.exists() else Path(re.sub(r"#\d+$", "", str(place)))  # of a sample
    path = (place if place.is_dir() else place.parent) / NAMES_FILE
    if place.exists() and path.is_file():
        return _read(path), f"named by {NAMES_FILE}"
    return {}, "the numbers found in the masks"


def _read(path: Path) -> dict[int, str]:
    """{"0": "sky"}, {"sky": 0} or ["sky"] of a file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        pairs = list(enumerate(data)) if isinstance(data, list) else list(data.items())
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(value, name) for name, value in pairs]
        found = {int(number): str(name) for number, name in pairs}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f'{path} cannot be read as class names ({error}); expected {{"0": "sky", "1": "road"}}'
        ) from error
    if not found or len(set(found.values())) < len(pairs) or min(found) < 0:
        raise UsageError(f'{path}: expected different numbers from 0 and different names: {{"0": "sky", "1": "road"}}')
    return dict(sorted(found.items()))


def colours(classes: int) -> Any:
    """A colour uint8 [classes, 3] for each class, neighbours far apart."""
    import colorsys

    import numpy as np

    made = [
        colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.9 - 0.35 * (k // 3 % 2), 0.95 - 0.3 * (k // 6 % 2))
        for k in range(classes)
    ]
    return np.rint(np.array(made) * 255).astype(np.uint8)


def as_png(classes: Any, number: int) -> bytes:
    """A class map [height, width] as a PNG whose pixels are class ids, with a palette so that one sees them."""
    import numpy as np
    from PIL import Image

    stream = io.BytesIO()
    if number > 256:
        Image.fromarray(classes.astype(np.uint16)).save(stream, "PNG")
    else:
        image = Image.fromarray(classes.astype(np.uint8)).convert("L")
        image.putpalette(colours(number).tobytes())
        image.save(stream, "PNG")
    return stream.getvalue()


def sheet(shown: Sequence[tuple[Any, ...]], names: Sequence[str], width: int = 240) -> Any:
    """An RGB PIL image: a line for each (picture, expected, predicted) class maps, laid over it, and the classes' colours.

    The longer edge of each is `width`. Without a prediction (picture, expected) it is narrower.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    palette, lines = colours(len(names)), []
    for picture, *maps in shown:
        fitted = sized(picture, width)
        small = np.asarray(fitted, np.float32)
        cells = [small]
        for one in maps:
            near = np.asarray(Image.fromarray(one.astype(np.int32)).resize(fitted.size, Image.Resampling.NEAREST))
            painted = 0.35 * small + 0.65 * palette[near.clip(0)]
            cells.append(np.where((near < 0)[..., None], 0.35 * small, painted))
        beside = ((0, 0), (0, width - fitted.width), (0, 0))
        cells = [np.pad(cell, beside, constant_values=255) for cell in cells]
        lines.append(np.concatenate(cells, axis=1))
    used = sorted({int(k) for _, *maps in shown for one in maps for k in np.unique(one) if k >= 0})
    body = np.concatenate(lines).clip(0, 255).astype(np.uint8)
    columns = body.shape[1] // 180
    above = 18
    whole = Image.new("RGB", (body.shape[1], above + body.shape[0] + 8 + 18 * -(-len(used) // columns)), "white")
    whole.paste(Image.fromarray(body), (0, above))
    draw = ImageDraw.Draw(whole)
    for place, title in enumerate(("picture", "mask", "answer")[: body.shape[1] // width]):
        draw.text((place * width + 4, 3), title, fill="black")
    for place, k in enumerate(used):
        x, y = place % columns * (body.shape[1] // columns) + 4, above + body.shape[0] + 6 + 18 * (place // columns)
        draw.rectangle((x, y, x + 11, y + 11), fill=tuple(palette[k].tolist()))
        draw.text((x + 16, y), drawable(names[k][:28]), fill="black")
    return whole
