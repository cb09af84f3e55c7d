"""The sheet of `check`: training pictures with what they are labelled with, on one page, before any model has seen them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tuner.report.frame import embedded, rendered
from hf_tuner.report.report import write_file

if TYPE_CHECKING:
    from hf_tuner.tasks._pictured import Sample

QUALITY = 88
"""Of the JPEGs on the page: what is drawn stays sharp, and the page small."""


def write_sheet(path: Path, samples: "Sequence[Sample]", **about: Any) -> None:
    """Write the page whole or not at all; `about` is its task, dataset, rows (how many there are) and seed.

    Raises EnvironmentFault when the disk is full or not writable.
    """
    shown = [(one, embedded(_jpeg(one.image), "jpeg")) for one in samples]
    width = max(one.image.width for one in samples)
    page = rendered("sheet.html.j2", shown=shown, width=width, **about)
    write_file(path, page.encode("utf-8", "replace"))  # names of files may hold bytes that are no text


def _jpeg(image: Any) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
