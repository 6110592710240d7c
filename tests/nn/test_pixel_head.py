"""Equal to the official DDPM-Seg classifier (tests/reference/pretrain/README.md)."""

from pathlib import Path

import pytest
import torch

from hashed import filled, ramp
from somite.nn.pyramid_heads import PixelHead, collected

OFFICIAL = Path(__file__).parents[1] / "reference" / "pretrain" / "H_ddpmseg.pt"


@pytest.fixture(scope="module")
def official():
    return torch.load(OFFICIAL, weights_only=True)


@pytest.mark.parametrize("classes", [13, 30])
def test_the_official_logits(official, classes):
    head = filled(PixelHead([20], classes)).eval()
    given = ramp(6, 20)
    assert torch.equal(given, official["x"])
    found = head([given.T.reshape(1, 20, 6, 1, 1)])
    torch.testing.assert_close(found[0, :, :, 0, 0].T, official[f"y{classes}"], rtol=1e-4, atol=1e-4)


def test_the_official_way_to_collect_maps(official):
    """The second of two pictures; the official code has the coarsest map first."""
    maps = [ramp(2, channels, size, size) for channels, size in ((3, 4), (5, 8), (2, 16))]
    found = collected(maps[::-1])[1]
    wanted = torch.cat([official["collect"][8:], official["collect"][3:8], official["collect"][:3]])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_its_weights_are_counted():
    assert sum(p.numel() for p in PixelHead([8448], 13).parameters()) == 1_086_349


def test_slabs_change_nothing(monkeypatch):
    head, pyramid = PixelHead([3, 5], 4).eval(), [torch.rand(2, 3, 7, 6, 5), torch.rand(2, 5, 4, 3, 3)]
    whole = head(pyramid)
    assert whole.shape == (2, 4, 7, 6, 5)
    monkeypatch.setattr("somite.nn.pyramid_heads.SLAB", 11)
    torch.testing.assert_close(head(pyramid), whole)
