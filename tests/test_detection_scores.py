"""Average precision by row weights is COCO's: equal to COCOeval at weights of one, and to repeated pictures at others."""

from typing import Any

import numpy as np
import pytest

from hf_tuner.metrics import _detection as detection
from hf_tuner.metrics._detection import compared, scores
from hf_tuner.tasks._task import Measures, at_one

coco = pytest.importorskip("faster_coco_eval")
NAMES = ("a", "b", "c")
ORDER = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


def crowded(expected: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """The same boxes, a third of them around crowds and twice as large."""
    random = np.random.default_rng(seed)
    made = []
    for boxes in expected:
        crowd = random.random(len(boxes)) < 1 / 3
        larger = boxes[:, 2:4] + crowd[:, None] * (boxes[:, 2:4] - boxes[:, :2])
        made.append(np.concatenate([boxes[:, :2], larger, boxes[:, 4:], crowd[:, None]], axis=1))
    return made


def pictures(seed: int, number: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Boxes of all sizes on pictures of all shapes, and detections near them, beside them and of other classes."""
    random = np.random.default_rng(seed)
    found, expected = [], []
    for _ in range(number):
        width, height = random.integers(60, 500, 2)
        count = int(random.integers(0, 7))
        corner = random.random((count, 2)) * [width, height] * 0.6
        size = np.exp(random.uniform(1.5, 5.5, (count, 2)))
        boxes = np.concatenate([corner, corner + size, random.integers(0, 3, (count, 1))], axis=1).round(1)
        expected.append(boxes)
        near = boxes[random.integers(0, count, 10)] if count else np.zeros((0, 5))
        moved = near[:, :4] + random.normal(0, 1, (len(near), 4)) * 0.12 * np.tile(near[:, 2:4] - near[:, :2], 2)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        label = np.where(random.random(len(near)) < 0.8, near[:, 4], random.integers(0, 3, len(near)))
        found.append(np.concatenate([moved, random.random((len(near), 1)).round(3), label[:, None]], axis=1))
    return found, expected


def coco_scores(found: list[np.ndarray], expected: list[np.ndarray]) -> dict[str, float]:
    """The same by COCOeval of faster-coco-eval; -1 where there is nothing to find."""

    def plain(box: Any) -> list[float]:
        left, top, right, bottom = map(float, box[:4])
        return [left, top, right - left, bottom - top]

    truth: dict[str, Any] = {"images": [{"id": i + 1} for i in range(len(expected))],
             "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)], "annotations": []}  # fmt: skip
    for i, boxes in enumerate(expected):
        for box in boxes:
            four, crowd = plain(box), int(box[5]) if len(box) > 5 else 0
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, "image_id": i + 1, "category_id": int(box[4]),
                                         "bbox": four, "area": four[2] * four[3], "iscrowd": crowd})  # fmt: skip
    said = [{"image_id": i + 1, "category_id": int(box[5]), "bbox": plain(box), "score": float(box[4])}
            for i, boxes in enumerate(found) for box in boxes]  # fmt: skip
    known = coco.COCO(truth)
    run = coco.COCOeval_faster(known, known.loadRes(said), "bbox", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return {**dict(zip(ORDER, run.stats[:6], strict=True)), "mar_100": run.stats[8]}


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_cocoeval(seed: int, crowds: bool) -> None:
    found, expected = pictures(seed)
    if crowds:
        plain, expected = coco_scores(found, expected), crowded(expected, seed)
        assert coco_scores(found, expected) != plain
    ours = {
        name: float(score(np.ones((1, len(found))))[0])
        for name, score in scores(compared(found, expected), NAMES).items()
    }
    for name, value in coco_scores(found, expected).items():
        assert ours.get(name, np.nan) == pytest.approx(value if value >= 0 else np.nan, abs=1e-9, nan_ok=True), name


def test_a_weight_is_how_often_a_picture_counts() -> None:
    found, expected = pictures(9)
    random = np.random.default_rng(1)
    weights = random.multinomial(len(found), np.full(len(found), 1 / len(found)), 3).astype(float)
    weighted = scores(compared(found, expected), NAMES)
    for sample, drawn in enumerate(weights.astype(int)):
        index = np.repeat(np.arange(len(found)), drawn)
        again = scores(compared([found[i] for i in index], [expected[i] for i in index]), NAMES)
        for name in weighted:
            value = weighted[name](weights)[sample]
            other = again[name](np.ones((1, len(index))))[0] if name in again else np.nan
            assert value == pytest.approx(other, abs=1e-9, nan_ok=True), name


def test_what_is_expected_given_as_found_is_perfect_and_nothing_found_is_zero() -> None:
    _, expected = pictures(3)
    perfect = [np.concatenate([boxes[:, :4], np.ones((len(boxes), 1)), boxes[:, 4:]], axis=1) for boxes in expected]
    nothing = [np.zeros((0, 6)) for _ in expected]
    one = np.ones((1, len(expected)))
    for name, score in scores(compared(perfect, expected), NAMES).items():
        assert score(one)[0] == pytest.approx(1.0), name
    assert scores(compared(nothing, expected), NAMES)["map"](one)[0] == 0.0


def test_a_class_is_looked_for_where_it_is_and_sizes_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = pictures(4)
    for number, (said, known) in enumerate(zip(found, expected, strict=True)):
        said[:, 5] = known[:, 4] = number
    match, calls = detection._match, []
    monkeypatch.setattr(detection, "_match", lambda *given: calls.append(1) or match(*given))
    measures = Measures(scores(compared(found, expected), [str(number) for number in range(12)]), 12)
    some = sum(len(said) + len(known) > 0 for said, known in zip(found, expected, strict=True))
    assert list(at_one(measures, ("map", "map_50"))) == ["map", "map_50"] and len(calls) == some <= 12
    assert "map_small" in at_one(measures) and len(calls) > some


def test_precision_at_one_overlap_is_that_among_all() -> None:
    classes, weights = list(detection.matched(compared(*pictures(2))).values()), np.ones((1, 12))
    every = detection.precisions(classes, weights)
    assert np.array_equal(detection.precisions(classes, weights, (0.75,)), every[:, :, 5:6], equal_nan=True)
