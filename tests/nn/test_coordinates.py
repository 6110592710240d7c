"""Coordinates at voxels, and the losses of two views: the official program's values, and closed forms."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from somite.nn.coordinates import Displacements, Distances, at_voxels, enlarged, waves

HERE = Path(__file__).parents[1] / "reference" / "pretrain"
MISC = torch.load(HERE / "F_ape_misc.pt", weights_only=True)
WANTED = json.loads((HERE / "summary.json").read_text())["F_ape_loss"]


def test_the_official_lookup_and_waves():
    torch.testing.assert_close(at_voxels(MISC["map"], MISC["idx"][None], 4)[0], MISC["tri_stride4"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(waves(MISC["map"]), MISC["sincos24"], rtol=1e-4, atol=1e-4)


def test_a_whole_volume_is_read_as_its_voxels_are():
    cells = torch.rand(2, 3, 4, 5, 6)
    whole = enlarged(cells, (16, 20, 24), 4)
    torch.testing.assert_close(whole, F.interpolate(cells, scale_factor=4, mode="trilinear", align_corners=False), rtol=1e-5, atol=1e-5)
    some = torch.stack([torch.randint(n, (2, 9)) for n in (18, 20, 23)], 2)
    odd = enlarged(cells, (18, 20, 23), 4)
    wanted = torch.stack([odd[b][:, i, j, k].T for b, (i, j, k) in enumerate(some.transpose(1, 2))])
    torch.testing.assert_close(at_voxels(cells, some, 4), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_official_distance_loss():
    i = torch.arange(15.0).view(5, 3)
    first, second, mm = (0.7 * i).cos().sigmoid(), (0.7 * i + 0.3).cos().sigmoid(), 100 * (0.9 * i).sin()
    found = Distances()(first, second, mm)
    assert float(found["invariance"]) == pytest.approx(WANTED["i_reg"], rel=1e-4)
    assert float(found["distance"]) == pytest.approx(WANTED["pdist_reg"], rel=1e-4)


@torch.no_grad()
def test_distances_know_neither_axes_nor_origin():
    mm = torch.randn(20, 3) * torch.tensor([80.0, 120.0, 300.0])
    standard = (mm - mm.mean(0)) / mm.std(0)
    turned, _ = torch.linalg.qr(torch.randn(3, 3))
    said = standard @ turned - 5
    found = Distances()(said, said, mm)
    assert float(found["distance"]) < 1e-8
    assert float(found["invariance"]) == 0
    scaled = Distances()
    scaled.scale.copy_(torch.tensor([2.0, 4.0, 8.0]))
    assert float(scaled(standard / scaled.scale, standard / scaled.scale, mm)["distance"]) < 1e-8


def test_the_scale_of_distances_is_learned():
    loss = Distances()
    loss(torch.rand(6, 3), torch.rand(6, 3), torch.rand(6, 3))["distance"].backward()
    assert loss.scale.grad.abs().min() > 0


def test_displacements_fix_axes_and_scale_but_not_the_origin():
    mm = torch.randn(15, 3) * 200
    said = mm / 100 + torch.tensor([3.0, -2.0, 7.0])
    loss = Displacements()
    assert all(float(value) < 1e-5 for value in loss(said, said, mm).values())
    turned = said * torch.tensor([1.0, 1.0, -1.0])
    found, apart = loss(turned, turned, mm), (mm[:, None, 2] - mm[None, :, 2]).abs() / 100
    assert float(found["displacement"]) == pytest.approx(float(2 * apart.mean()), rel=1e-4)
    assert float(found["order"]) == pytest.approx(float(apart.mean()), rel=1e-4)
    mirrored = loss(said * torch.tensor([-1.0, 1.0, 1.0]), said * torch.tensor([-1.0, 1.0, 1.0]), mm)
    assert float(mirrored["displacement"]) > 0.1
    assert float(mirrored["order"]) == 0
    constant = loss(torch.zeros(15, 3), torch.zeros(15, 3), mm)
    assert float(constant["displacement"]) == pytest.approx(float((mm[:, None] - mm[None]).abs().sum(2).mean()) / 100, rel=1e-4)
    assert float(loss(said, said + 0.1, mm)["invariance"]) == pytest.approx(0.01, rel=1e-3)


def test_equal_answers_have_a_gradient():
    said = torch.zeros(4, 3, requires_grad=True)
    found = Distances()(said, said, torch.randn(4, 3))
    sum(found.values()).backward()
    assert said.grad.isfinite().all()
