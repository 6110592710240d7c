"""Fits of coordinates, in closed form and against SciPy."""

import pytest
import torch
from scipy.stats import pearsonr

from somite.metrics.positions import fitted


def test_any_affine_map_of_the_places_is_a_perfect_fit():
    """So is what distances alone can teach: a rotation, a reflection, a shift."""
    mm = 100 * torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    fit = fitted(mm @ turn / 50 - 3, mm)
    assert fit.error < 1e-3
    assert fit.r2 == pytest.approx(1, abs=1e-6)
    assert fitted(mm * torch.tensor([1, 1, -2.0]), mm).superior == pytest.approx(-1)
    assert fitted(torch.exp(mm / 100), mm).superior == pytest.approx(1)  # ranks do not mind


def test_a_lost_axis_costs_its_variance():
    """Where one of three equal variances is not told, a third is lost; of one axis alone r2 is the squared correlation."""
    mm = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0))
    assert fitted(mm * torch.tensor([1, 1, 0.0]), mm).r2 == pytest.approx(2 / 3, abs=0.01)
    noisy = mm[:, 2] + torch.randn(20000, generator=torch.Generator().manual_seed(1))
    said = torch.stack([torch.zeros(20000), torch.zeros(20000), noisy], 1)
    line = torch.stack([torch.zeros(20000), torch.zeros(20000), mm[:, 2]], 1)
    assert fitted(said, line).r2 == pytest.approx(pearsonr(noisy, mm[:, 2]).statistic ** 2, abs=1e-4)


def test_one_answer_for_all_explains_nothing():
    fit = fitted(torch.ones(50, 3), torch.rand(50, 3))
    assert fit.r2 == pytest.approx(0, abs=1e-6)
    assert fit.superior == 0
