"""How well pictures and captions find each other: recall by sorting, chance, ties, and the worst of them."""

import io
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from hf_tuner.metrics import _retrieval as retrieval
from hf_tuner.tasks._worst_retrievals import drawn, listed, worst_pairs


def plain_recalls(kept: list[np.ndarray], k: int) -> tuple[float, float]:
    """Recall@k in both directions of rows with different pictures and captions, by sorting."""
    captions = [(row, vector) for row, one in enumerate(kept) for vector in one[1:]]
    images = np.array([one[0] / np.linalg.norm(one[0]) for one in kept])
    texts = np.array([vector / np.linalg.norm(vector) for _, vector in captions])
    owners = np.array([row for row, _ in captions])
    to_text = [row in owners[np.argsort(-(texts @ image))[:k]] for row, image in enumerate(images)]
    to_image = [owner in np.argsort(-(images @ text))[:k] for owner, text in zip(owners, texts, strict=True)]
    return float(np.mean(to_text)), float(np.mean(to_image))


def test_recalls_are_those_of_the_protocol() -> None:
    random = np.random.default_rng(0)
    sizes = [1, 5, 3, 2] * 6
    base = random.normal(size=(24, 6))
    kept = [
        np.vstack([one, one + 1.2 * random.normal(size=(n, 6))]).astype(np.float32)
        for one, n in zip(base, sizes, strict=True)
    ]
    texts = [[f"{row} {i}" for i in range(n)] for row, n in enumerate(sizes)]
    scores, units, notes = retrieval.measures(retrieval.search_of(kept, texts, [str(row) for row in range(24)]))
    values = {name: float(score(np.ones((1, units)))[0]) for name, score in scores.items()}
    for k in retrieval.DEPTHS:
        expected = plain_recalls(kept, k)
        assert (values[f"image_to_text_recall_at_{k}"], values[f"text_to_image_recall_at_{k}"]) == pytest.approx(
            expected
        )
    recalls = [value for name, value in values.items() if "recall_at" in name]
    assert len(recalls) == 6 and values["mean_recall"] == pytest.approx(np.mean(recalls)) and not notes
    assert next(iter(scores)) == "mean_recall" and 0 < values["image_to_text_mrr"] < 1


def test_equal_pictures_are_one_picture_and_equal_captions_one_text() -> None:
    far, near = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32) * 2
    apart = [np.stack([far[0], near[0]]), np.stack([far[0], near[1]]), np.stack([far[1], near[1]])]
    search = retrieval.search_of(apart, [["a"], ["b"], ["b"]], ["p", "p", "q"])
    assert len(search.pictures) == 2 and search.texts == ["a", "b"] and search.rows.tolist() == [0, 2]
    assert sorted(map(tuple, search.pairs.tolist())) == [(0, 0), (0, 1), (1, 1)]
    scores, units, _ = retrieval.measures(search)
    assert units == 2 and scores["text_to_image_recall_at_1"](np.ones((1, 2)))[0] == 1.0, "b is right for both"


def test_the_bootstrap_draws_pictures_with_their_captions() -> None:
    axes = np.eye(4, dtype=np.float32)
    kept = [np.stack([axes[0], axes[0], axes[1]]), np.stack([axes[1], axes[1]])]
    scores, units, _ = retrieval.measures(retrieval.search_of(kept, [["a", "b"], ["c"]], ["p", "q"]))
    both = scores["text_to_image_recall_at_1"](np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0]]))
    assert units == 2 and both.tolist() == [2 / 3, 1 / 2, 1.0]


def test_equally_near_ones_stand_in_any_order() -> None:
    wanted, all_alike, above = 2, 5, 3
    orders = list(permutations(range(all_alike)))
    first = [above + 1 + min(order.index(i) for i in range(wanted)) for order in orders]
    found = retrieval._expected(above, all_alike, wanted)
    expected = [np.mean([place <= k for place in first]) for k in retrieval.DEPTHS]
    assert found == pytest.approx([*expected, np.mean([1 / place for place in first])])


def test_pairs_are_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped, calls = retrieval._grouped, []
    monkeypatch.setattr(retrieval, "_grouped", lambda *given: calls.append(1) or grouped(*given))
    kept = [np.ones((3, 4), np.float32)] * 20
    search = retrieval.search_of(kept, [[f"{i} a", f"{i} b"] for i in range(20)], [str(i) for i in range(20)])
    retrieval.measures(search)
    worst_pairs(search)
    assert len(calls) == 2, "for pictures and for captions, whatever their number"


def test_chance_is_what_a_random_order_reaches() -> None:
    nothing = [np.zeros((2, 0), np.float32)] * 50
    search = retrieval.search_of(nothing, [[str(i)] for i in range(50)], [str(i) for i in range(50)])
    scores, units, _ = retrieval.measures(search)
    values = {name: float(score(np.ones((1, units)))[0]) for name, score in scores.items()}
    assert values["image_to_text_recall_at_1"] == pytest.approx(1 / 50)
    assert values["text_to_image_recall_at_10"] == pytest.approx(10 / 50)
    assert values["text_to_image_mrr"] == pytest.approx(np.mean(1 / np.arange(1, 51)))


def test_worst_captions_are_listed_and_drawn_with_what_was_found() -> None:
    axes = np.eye(3, dtype=np.float32)
    kept = [np.stack([axes[0], axes[0]]), np.stack([axes[1], axes[0] + 0.1 * axes[2]]), np.stack([axes[2], axes[2]])]
    search = retrieval.search_of(kept, [["a"], ["b"], ["c"]], ["p", "q", "r"])
    stored = []
    for number in range(3):
        stream = io.BytesIO()
        Image.new("RGB", (20, 10), (80 * number, 0, 0)).save(stream, "PNG")
        stored.append({"bytes": stream.getvalue(), "path": f"x/{number}.png"})
    (only,) = listed(search, stored, 20)
    assert (only["text"], only["expected"], only["predicted"]) == ("b", "x/1.png", "x/0.png")
    (nameless,) = listed(search, [{**one, "path": None} for one in stored], 20)
    assert (nameless["expected"], nameless["predicted"]) == ("picture 2", "picture 1"), "as the sheet counts them"
    (shown,) = drawn(search, stored)
    assert shown.text.startswith("1 of 1 captions") and shown.image.getpixel((94, 92))[0] == 80
    assert shown.image.getpixel((94 + 184, 92))[0] == 0
    right = retrieval.search_of([np.stack([one, one]) for one in axes], [["a"], ["b"], ["c"]], ["p", "q", "r"])
    assert listed(right, stored, 20) == [] and drawn(right, stored) == []
