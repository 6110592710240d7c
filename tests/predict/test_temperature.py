import numpy as np
import pytest
import torch
from scipy.special import logit
from torch.nn import functional as F

from somite.predict.fusion import Majority, Mean, decide
from somite.predict.temperature import Tempered, fit, scaled

rng = np.random.default_rng(0)


def test_binary_and_softmax_scaling_against_torch():
    p = rng.random((1, 9, 9))
    expected = torch.sigmoid(torch.logit(torch.tensor(p)) / 1.7)
    np.testing.assert_allclose(scaled(p, 1.7), expected, atol=1e-5)
    logits = torch.randn(4, 9, 9, dtype=torch.float64)
    np.testing.assert_allclose(scaled(logits.softmax(0).numpy(), 0.6), (logits / 0.6).softmax(0), atol=1e-5)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_that_made_the_labels(true):
    logits = 3 * rng.standard_normal((1, 300, 300))
    labels = (rng.random((300, 300)) < 1 / (1 + np.exp(-logits[0] / true))).astype(np.uint8)
    assert fit([(1 / (1 + np.exp(-logits)), labels)]) == pytest.approx(true, rel=0.03)


def test_fitting_classes_agrees_with_gradient_descent():
    logits = torch.randn(3, 60, 60, dtype=torch.float64) * 4
    labels = torch.distributions.Categorical(logits=(logits / 2).movedim(0, -1)).sample()
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy((logits / log_t.exp())[None], labels[None])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit([(logits.softmax(0).numpy(), labels.numpy())]) == pytest.approx(float(log_t.exp().detach()), rel=0.01)


def test_masks_do_not_change_and_fusions_compose():
    members = rng.random((5, 1, 20, 20)).astype(np.float32)
    for inner in (Mean(), Majority()):
        assert (decide(Tempered(3.0, inner)(members)) == decide(inner(members))).all()
    np.testing.assert_allclose(Tempered(1.0)(members), Mean()(members), atol=1e-6)
    softened = Tempered(2.0)(members)
    np.testing.assert_allclose(logit(softened), logit(Mean()(members)) / 2, atol=1e-4)
