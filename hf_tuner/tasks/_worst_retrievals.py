"""What searches find in the wrong place: the captions whose own picture is furthest down, as rows and as a picture."""

import textwrap
from typing import TYPE_CHECKING, Any

from hf_tuner.tasks._drawn import Drawn
from hf_tuner.tasks._pictured import place_of
from hf_tuner.tasks._vision import decoded

if TYPE_CHECKING:
    import numpy as np

    from hf_tuner.metrics._retrieval import Search

DRAWN = 6
"""Captions that are drawn, each with two pictures."""


def worst_pairs(search: "Search") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Pairs by how far down their picture is among all pictures, worst first, those that are found at once left out;
    the place of each pair's picture, and the picture that its caption finds first."""
    import numpy as np

    from hf_tuner.metrics import _retrieval as retrieval

    asked = search.captions[search.pairs[:, 1]]
    of_pair = [search.of_caption[caption] for caption in search.pairs[:, 1]]
    places = retrieval.ranks(asked, search.pictures, of_pair)
    first, _ = retrieval.nearest(asked, search.pictures)
    order = np.argsort(-places, kind="stable")
    return order[places[order] > 1], places, first


def listed(search: "Search", pictures: Any, count: int) -> list[dict[str, Any]]:
    """The worst captions as rows of a table; `pictures` are those of the rows."""
    order, _, first = worst_pairs(search)
    found = []
    for pair in order[:count].tolist():
        picture, caption = search.pairs[pair]
        own, other = (
            place_of(pictures[row], row) for row in (int(search.rows[picture]), int(search.rows[first[pair]]))
        )
        found.append({"text": search.texts[caption], "expected": own, "predicted": other,
                      "score": float(search.captions[caption] @ search.pictures[first[pair]])})  # fmt: skip
    return found


def drawn(search: "Search", pictures: Any) -> list[Drawn]:
    """The worst captions, each with its own picture and the one that was found first."""
    from hf_tuner.tasks._picture_grid import LETTERS, grid

    order, places, first = worst_pairs(search)
    cells = []
    for pair in order[:DRAWN].tolist():
        picture, caption = search.pairs[pair]
        words = textwrap.wrap(search.texts[caption], LETTERS, max_lines=2, placeholder=" …")
        cells.append((decoded(pictures[int(search.rows[picture])]), words))
        told = ["is found first;", f"its own is number {places[pair]:,}"]
        cells.append((decoded(pictures[int(search.rows[first[pair]])]), told))
    if not cells:
        return []
    text = f"{min(DRAWN, len(order))} of {len(order):,} captions that do not find their picture first, the worst first"
    return [Drawn("worst-retrievals", "Captions that find another picture", grid(cells), text)]
