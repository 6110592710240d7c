import numpy as np

from somite.predict.fusion import MeanSquared
from somite.predict.staple import Staple

rng = np.random.default_rng(0)


def raters(truth, rates):
    """Masks by raters that miss and invent pixels at their own rates."""
    return np.stack([np.where(rng.random(truth.shape) < rate, ~truth, truth) for rate in rates])[:, None].astype(np.float32)


def em(masks, iterations=200):
    """Warfield's equations, written from the paper: fixed prior, sensitivities p and specificities q by EM."""
    d = masks.reshape(len(masks), -1)
    prior, p, q = d.mean(), np.full(len(d), 0.9999), np.full(len(d), 0.9999)
    for _ in range(iterations):
        a = prior * np.prod(np.where(d > 0, p[:, None], 1 - p[:, None]), 0)
        b = (1 - prior) * np.prod(np.where(d > 0, 1 - q[:, None], q[:, None]), 0)
        w = a / (a + b)
        p, q = (d * w).sum(1) / w.sum(), ((1 - d) * (1 - w)).sum(1) / (1 - w).sum()
    return w.reshape(masks.shape[1:])


def disc():
    y, x = np.mgrid[:48, :48] - 24
    return x**2 + y**2 < 200


def test_it_is_expectation_maximisation():
    members = raters(disc(), (0.02, 0.05, 0.1, 0.2))
    np.testing.assert_allclose(Staple(200)(members)[0], em(members[:, 0]), atol=1e-3)


def test_it_trusts_the_good_raters_and_is_not_the_square_of_the_mean():
    truth = disc()
    members = raters(truth, (0.02, 0.03, 0.45, 0.45, 0.45))
    staple = Staple()(members)[0]
    assert ((staple >= 0.5) != truth).mean() < ((members.mean(0)[0] >= 0.5) != truth).mean() * 0.6
    assert np.abs(staple - MeanSquared()(members)[0]).max() > 0.3


def test_unanimous_empty_and_single_members():
    truth = disc()
    for masks in (np.stack([truth] * 3), np.zeros((3, 8, 8), bool), truth[None]):
        assert (Staple()(masks[:, None].astype(np.float32))[0] == masks[0]).all()


def test_volumes_and_classes():
    volume = rng.random((3, 1, 6, 7, 8)).astype(np.float32)
    assert Staple()(volume).shape == (1, 6, 7, 8)
    classes = rng.random((4, 3, 10, 10)).astype(np.float32)
    np.testing.assert_allclose(Staple()(classes).sum(0), 1, atol=1e-5)
