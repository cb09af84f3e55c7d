"""Losses per row, against torch's own and the formulas of their papers."""

import dataclasses

import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional

from hf_tuner import catalog

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3], [-4.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 2, 1, 1])
MULTI = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
WEIGHTS = torch.tensor([0.5, 2.0, 1.5])
FOUND = catalog.names("losses")


def of(name, labels, weights=None, logits=LOGITS, **settings):
    """Row losses of a plug."""
    module = catalog.load("losses", name)
    return module.loss(logits, labels, weights, module.Config(**settings))


def test_the_folder_holds_what_is_promised():
    assert set(FOUND) >= {"cross-entropy", "focal"}


@pytest.mark.parametrize("name", FOUND)
def test_every_loss_gives_one_finite_number_per_row_and_a_gradient(name):
    for labels in (LABELS, MULTI):
        for weights in (None, WEIGHTS):
            logits = LOGITS.clone().requires_grad_()
            rows = of(name, labels, weights, logits)
            rows.sum().backward()
            assert rows.shape == (4,)
            assert (rows > 0).all()
            assert torch.isfinite(logits.grad).all()
            assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", FOUND)
def test_a_masked_row_counts_nothing(name):
    for weights in (None, WEIGHTS):
        masked = LABELS.clone()
        masked[1] = -100
        rows = of(name, masked, weights)
        assert rows[1] == 0
        assert torch.equal(rows[[0, 2, 3]], of(name, LABELS, weights)[[0, 2, 3]])
    both = MULTI.clone()
    both[1] = -100
    assert of(name, both)[1] == 0
    assert torch.equal(of(name, both)[[0, 2, 3]], of(name, MULTI)[[0, 2, 3]])


@pytest.mark.parametrize("name", FOUND)
def test_settings_have_help_and_defaults_serve_without_them(name):
    module = catalog.load("losses", name)
    assert all(f.metadata["help"] for f in dataclasses.fields(module.Config))
    assert torch.equal(module.loss(LOGITS, LABELS, None, None), of(name, LABELS))


def test_cross_entropy_is_the_mean_log_loss():
    probabilities = LOGITS.double().softmax(dim=1).numpy()
    assert of("cross-entropy", LABELS).mean().item() == pytest.approx(
        log_loss(LABELS, probabilities, labels=[0, 1, 2]), rel=1e-6
    )


def test_cross_entropy_weights_and_smooths_as_torch_does():
    expected = functional.cross_entropy(LOGITS, LABELS, WEIGHTS, reduction="none", label_smoothing=0.1)
    assert torch.allclose(of("cross-entropy", LABELS, WEIGHTS, smoothing=0.1), expected)


def test_multi_label_cross_entropy_is_the_mean_over_classes():
    p = LOGITS.sigmoid()
    expected = -(MULTI * p.log() + (1 - MULTI) * (1 - p).log())
    assert torch.allclose(of("cross-entropy", MULTI), expected.mean(dim=1), atol=1e-6)
    assert torch.allclose(of("cross-entropy", MULTI, WEIGHTS), (WEIGHTS * expected).mean(dim=1), atol=1e-6)
    target = MULTI * 0.8 + 0.1
    smooth = -(target * p.log() + (1 - target) * (1 - p).log())
    assert torch.allclose(of("cross-entropy", MULTI, smoothing=0.2), smooth.mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, MULTI])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_with_gamma_0_is_the_cross_entropy(labels, weights):
    assert torch.allclose(of("focal", labels, weights, gamma=0.0), of("cross-entropy", labels, weights), atol=1e-6)


def test_focal_follows_the_paper():
    p = LOGITS.softmax(dim=1)[torch.arange(4), LABELS]
    assert torch.allclose(of("focal", LABELS), -((1 - p) ** 2) * p.log(), atol=1e-6)
    q = torch.where(MULTI == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    assert torch.allclose(of("focal", MULTI, gamma=3.0), (-((1 - q) ** 3) * q.log()).mean(dim=1), atol=1e-6)


def test_focal_gradient_stays_finite_on_a_certain_row():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    of("focal", torch.tensor([0]), logits=logits, gamma=0.5).sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name, settings", [("focal", {"gamma": -1.0}), ("cross-entropy", {"smoothing": 1.0})])
def test_settings_that_cannot_work_are_refused(name, settings):
    with pytest.raises(ValueError, match="expected"):
        catalog.load("losses", name).Config(**settings)
