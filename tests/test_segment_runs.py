"""Masks as runs: equal to pycocotools (as faster-coco-eval carries it) bit for bit, and back again."""

import numpy as np
import pytest

from hf_tuner.tasks._runs import covered, mask_of, overlap, polygon_mask, read, runs_of, written

coco = pytest.importorskip("faster_coco_eval").mask


def blobs(random: np.random.Generator, number: int = 1) -> np.ndarray:
    """Noisy masks [number, 37, 53]."""
    return random.random((number, 37, 53)) < random.uniform(0, 1)


@pytest.mark.parametrize("seed", range(8))
def test_runs_and_their_text_are_those_of_coco(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.kron(blobs(random)[0], np.ones((3, 9))) > 0 if seed % 2 else blobs(random)[0]
    mask = np.ones_like(mask) if seed == 6 else np.zeros_like(mask) if seed == 7 else mask
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = theirs["counts"].decode() if isinstance(theirs["counts"], bytes) else theirs["counts"]
    assert written(runs_of(mask)) == text
    assert read(text) == runs_of(mask).tolist()
    assert (mask_of(read(text), *mask.shape) == mask).all()


@pytest.mark.parametrize("seed", range(12))
def test_polygons_are_those_of_coco(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(n) for n in random.integers(20, 90, 2))
    corners = random.uniform(-8, 1.15, (int(random.integers(3, 9)), 2)) * [width, height]
    if seed % 3:
        corners = random.uniform(0, 1, (int(random.integers(3, 9)), 2)) * [width, height]
    corners = corners.round(seed % 3).ravel().tolist()
    theirs = coco.decode(coco.frPyObjects([corners], height, width))[..., 0]
    assert (polygon_mask(corners, height, width) == theirs.astype(bool)).all()


def test_overlaps_are_counted_in_pixels() -> None:
    random = np.random.default_rng(0)
    first, second = blobs(random, 4), blobs(random, 3)
    found = overlap(covered(first), covered(second))
    for i in range(4):
        for j in range(3):
            assert found[i, j] == (first[i] & second[j]).sum() / (first[i] | second[j]).sum()
    nothing = covered(np.zeros((1, 37, 53), bool))
    assert overlap(nothing, nothing).tolist() == [[0.0]]


@pytest.mark.parametrize("bad", [[3, 4], [-1, 13], [5, 8]])
def test_runs_of_another_size_are_refused(bad: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 3 × 4 = 12"):
        mask_of(bad, 3, 4)


def test_text_that_is_no_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="no letter"):
        read("12 3")
    with pytest.raises(ValueError, match="end within"):
        read("P")
