"""The linear probe: how strongly it is fitted depends on what rows that are held out lose."""

import numpy as np
import pytest
import torch

from hf_tuner.training import probe


def rows(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [rows, 60] whose first one tells the class of most rows: with much noise there is little to learn."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 60)).astype(np.float32)
    return features, (features[:, 0] + noise * random.normal(size=count) > 0).astype(np.int64)


def loss(fitted: probe.Linear, features: np.ndarray, targets: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(fitted(features)), torch.from_numpy(targets)))


@pytest.mark.parametrize("count", [400, 2_500])
def test_noisy_rows_are_fitted_less_strongly(count: int) -> None:
    """Both where every row is held out once and where a fifth of them is."""
    features, targets = rows(count, 3.0, 0)
    chosen = probe._logistic(features, targets, "single", 2)
    strongest = probe._fitted(features, targets, "single", 2, probe.STRENGTHS[0])
    fresh = rows(5_000, 3.0, 1)
    assert loss(chosen, *fresh) < loss(strongest, *fresh)


def test_rows_that_are_plain_are_fitted_as_strongly_as_can_be() -> None:
    features, targets = rows(400, 0.0, 0)
    features = probe._unit(features)
    strongest = probe._fitted(features, targets, "single", 2, probe.STRENGTHS[0])
    assert np.array_equal(probe._logistic(features, targets, "single", 2).weight, strongest.weight)


def test_several_labels_are_fitted_by_the_same_rule() -> None:
    features, targets = rows(400, 3.0, 0)
    both = np.stack([targets, 1 - targets], axis=1)
    weight = probe._logistic(features, both, "multi", 2).weight
    assert np.allclose(weight[0], -weight[1], atol=1e-3)
    assert np.abs(weight).max() < np.abs(probe._fitted(features, both, "multi", 2, probe.STRENGTHS[0]).weight).max()
