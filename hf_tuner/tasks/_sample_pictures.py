"""Pictures made from numbers: to compare two models on where no data is at hand."""

import io
from typing import Any


def sample_pictures() -> list[dict[str, Any]]:
    """Eight pictures as PNG bytes: noise, stripes and plain colours of different sizes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    made = []
    for number in range(8):
        height, width = 48 + 24 * number, 160 - 12 * number
        noise = random.integers(0, 256, (height, width, 3))
        stripes = (np.arange(width) // (number + 2) % 2 * 255)[None, :, None]
        plain = random.integers(0, 256, 3)[None, None]
        mixed = noise * (number % 3 == 0) + stripes * (number % 3 == 1) + plain * (number % 3 == 2)
        pixels = np.broadcast_to(mixed, (height, width, 3)).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
        made.append({"bytes": stream.getvalue(), "path": None})
    return made
