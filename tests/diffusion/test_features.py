"""Features at timesteps, against the backbone asked one timestep at a time."""

import pytest
import torch

from somite.diffusion.features import features, field
from somite.diffusion.schedule import linear
from somite.errors import InputError
from somite.networks.ctpretrain import CTPretrain

TIMES = [10, 30, 60]
ABAR = [0.997806572507846, 0.9877104203823749, 0.9583214064229061]  # by diffusers' and MONAI's schedules


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return CTPretrain(base=8, levels=2, patch=(8, 8, 8)).eval().requires_grad_(False)


def test_timesteps_lie_beside_each_other_or_are_averaged(backbone):
    x0, cond = torch.rand(2, 1, 6, 5, 4), {"coordinates": torch.rand(2, 3, 6, 5, 4)}
    noise = [torch.randn_like(x0) for _ in TIMES]
    alone = []
    for t, abar, eps in zip(TIMES, ABAR, noise, strict=True):
        alone.append(backbone.pyramid(abar**0.5 * x0 + (1 - abar) ** 0.5 * eps, torch.tensor([t, t]), cond))
    beside = features(backbone, x0, cond, linear(), TIMES, noise)
    mean = features(backbone, x0, cond, linear(), TIMES, noise, together="mean")
    for level, maps in enumerate(zip(*alone, strict=True)):
        torch.testing.assert_close(beside[level], torch.cat(maps, 1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mean[level], torch.stack(maps).mean(0), rtol=1e-4, atol=1e-4)
    assert not any(cells.requires_grad for cells in beside)


def test_without_noise_the_picture_is_what_the_schedule_leaves_of_it(backbone):
    x0 = torch.rand(1, 1, 4, 4, 4)
    found = features(backbone, x0, {}, linear(), [60], side="both")
    wanted = backbone.pyramid(ABAR[2] ** 0.5 * x0, torch.tensor([60]), {}, "both")
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_fact_9_the_same_seed_gives_the_same_features(backbone):
    x0 = torch.rand(1, 1, 4, 4, 4)

    def found(seed):
        return features(backbone, x0, {}, linear(), TIMES, [field((1, 4, 4, 4), seed, t) for t in TIMES])

    one, again, other = found(1), found(1), found(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_field_is_of_its_seed_timestep_and_volume():
    first = field((1, 6, 5, 4), 1, 10)
    assert first.shape == (1, 1, 6, 5, 4)
    assert torch.equal(field((1, 6, 5, 4), 1, 10), first)
    for other in (field((1, 6, 5, 4), 2, 10), field((1, 6, 5, 4), 1, 30), field((1, 6, 5, 4), 1, 10, "scan")):
        assert not torch.equal(other, first)


@pytest.mark.parametrize(
    ("times", "noise", "word"), [([], None, "one timestep at least"), ([1000], None, "0 .. 999"), ([1, 2], [1], "a field each")]
)
def test_what_does_not_fit_is_refused(backbone, times, noise, word):
    with pytest.raises(InputError, match=word):
        features(backbone, torch.rand(1, 1, 4, 4, 4), {}, linear(), times, noise)
