"""Fusion against the formulas written out in loops."""

import numpy as np
import pytest

from somite.predict.fusion import Majority, Mean, MeanSquared, decide, votes


@pytest.fixture(params=[1, 3], ids=["binary", "classes"])
def members(request):
    raw = np.random.default_rng(0).random((5, request.param, 6, 7)).astype(np.float32)
    return raw if request.param == 1 else raw / raw.sum(1, keepdims=True)


def by_pixel(members, rule):
    out = np.zeros(members.shape[1:])
    for place in np.ndindex(*members.shape[2:]):
        out[(slice(None), *place)] = rule(members[(slice(None), slice(None), *place)].astype(np.float64))
    return out


def majority(pixel):
    """(m, k): every member votes once."""
    if pixel.shape[1] == 1:
        return [sum(p >= 0.5 for p in pixel[:, 0]) / len(pixel)]
    cast = [max(range(pixel.shape[1]), key=lambda k: member[k]) for member in pixel]
    return [cast.count(k) / len(pixel) for k in range(pixel.shape[1])]


@pytest.mark.parametrize(
    ("fusion", "rule"),
    [
        (Mean(), lambda p: [sum(p[:, k]) / len(p) for k in range(p.shape[1])]),
        (Majority(), majority),
        (MeanSquared(), lambda p: [(sum(p[:, k]) / len(p)) ** 2 for k in range(p.shape[1])]),
    ],
    ids=["mean", "majority", "mean squared"],
)
def test_fusion(fusion, rule, members):
    fused = fusion(members)
    assert fused.dtype == np.float32
    assert np.allclose(fused, by_pixel(members, rule), atol=1e-6)


def test_one_member_is_its_own_fusion(members):
    assert np.array_equal(Mean()(members[:1]), members[0])
    assert np.array_equal(decide(Majority()(members[:1])), decide(members[0]))


def test_votes_are_cast_once_and_a_tie_is_foreground(members):
    cast = votes(members)
    assert cast.dtype == bool
    assert cast.shape == members.shape
    if members.shape[1] > 1:
        assert (cast.sum(1) == 1).all()
    assert votes(np.full((1, 1, 2), 0.5)).all()
    assert not votes(np.full((1, 1, 2), np.nextafter(0.5, 0))).any()


def test_decide():
    assert decide(np.array([[0.49, 0.5, 1.0]])).tolist() == [0, 1, 1]
    assert decide(np.array([[0.2, 0.5], [0.5, 0.3], [0.3, 0.2]])).tolist() == [1, 0]
    assert decide(np.array([[0.4]])).dtype == np.uint8
