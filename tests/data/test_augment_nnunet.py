"""nnU-Net's augmentation: how often, how much, and that image and mask stay together."""

import numpy as np
import pytest
import torch

from somite.data import augment_nnunet as an
from somite.data.augment_nnunet import NnUNetAugment, moved

SHAPES = [(48, 48), (32, 64), (24, 24, 20), (40, 36, 8)]


def disc(shape, radius=0.25):
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return ((grid**2).sum(0) < (2 * radius) ** 2).to(torch.uint8)[None]


def box(shape):
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    mask[(0, *(slice(n // 4, n // 2 + i) for i, n in enumerate(shape)))] = 1
    return mask


def both(image, mask, *how):
    out = moved({"image": image, "mask": mask}, *how)
    return out["image"], out["mask"]


def pair(augment, image, mask, seed):
    out = augment({"image": image, "mask": mask}, seed)
    return out["image"], out["mask"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_image_and_mask_move_together(shape):
    mask, changed = box(shape), 0
    for seed in range(6):
        random = np.random.default_rng(seed)
        image, out = both(mask.float().repeat(2, *[1] * len(shape)), mask, True, True, an.thin_axis(shape), random)
        assert image.shape == (2, *shape)
        assert out.shape == mask.shape
        assert out.dtype == mask.dtype
        assert set(out.unique().tolist()) <= {0, 1}
        assert (image.round() == out).float().mean() > 0.96
        changed += not torch.equal(out, mask)
    assert changed == 6


def test_labels_keep_their_values():
    mask = box((32, 32)) * 7
    assert {v for s in range(8) for v in pair(NnUNetAugment(), mask.float(), mask, s)[1].unique().tolist()} == {0, 7}


def test_scaling_is_from_seven_tenths_to_fourteen():
    mask = disc((96, 96), 0.2)
    areas = [float(both(mask.float(), mask, False, True, None, np.random.default_rng(s))[1].sum() / mask.sum()) for s in range(60)]
    low, high = 1 / 1.4**2, 1 / 0.7**2
    assert low * 0.95 < min(areas) < low * 1.4
    assert high * 0.7 < max(areas) < high * 1.05


def angle(mask):
    """Of the long axis, in degrees, modulo 180."""
    at = mask[0].nonzero().double()
    covariance = np.cov((at - at.mean(0)).T.numpy())
    vector = np.linalg.eigh(covariance)[1][:, -1]
    return np.degrees(np.arctan2(vector[1], vector[0])) % 180


@pytest.mark.parametrize(("shape", "reach"), [((64, 64), 90), ((48, 80), 15)], ids=str)
def test_rotation_is_by_any_angle_of_squares_and_fifteen_degrees_of_strips(shape, reach):
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    mask[0, shape[0] // 2 - 2 : shape[0] // 2 + 2, shape[1] // 2 - 12 : shape[1] // 2 + 12] = 1
    turns = [abs(angle(both(mask.float(), mask, True, False, None, np.random.default_rng(s))[1]) - 90) for s in range(40)]
    assert reach * 0.8 < max(turns) <= reach + 3


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_thin_volumes_stay_in_their_slices(thin):
    shape = [30, 26]
    shape.insert(thin, 6)
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    place = [slice(10, 20), slice(4, 12)]
    place.insert(thin, slice(2, 3))
    mask[(0, *place)] = 1
    assert an.thin_axis(tuple(shape)) == thin
    for seed in range(5):
        out = both(mask.float(), mask, True, True, thin, np.random.default_rng(seed))[1]
        assert set(out[0].nonzero()[:, thin].tolist()) == {2}
        assert not torch.equal(out, mask)


def test_how_often_nothing_happens_is_as_the_probabilities_say():
    image, mask = torch.rand(1, 10, 10), box((10, 10))
    augment, n = NnUNetAugment(mirror=False), 1500
    still = sum(torch.equal(pair(augment, image, mask, seed)[0], image) for seed in range(n))
    # blur and low resolution leave a channel alone in half of the cases
    p = 0.8 * 0.8 * 0.9 * (1 - 0.2 / 2) * 0.85 * 0.85 * (1 - 0.25 / 2) * 0.9 * 0.7
    assert abs(still - n * p) < 4.5 * np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("blurred", 0.2), ("brightened", 0.15), ("contrasted", 0.15), ("coarsened", 0.25), ("inverted_gamma", 0.1), ("plain_gamma", 0.3)],
)
def test_each_change_is_as_frequent_as_nnunets(name, wanted, monkeypatch):
    count, n = [], 1500
    monkeypatch.setattr(an, "moved", lambda maps, *_: maps)
    for change in ("blurred", "brightened", "contrasted", "coarsened", "inverted_gamma", "plain_gamma"):
        keep = (lambda x, *_: (count.append(1), x)[1]) if change == name else (lambda x, *_: x)
        monkeypatch.setattr(an, change, keep)
    for seed in range(n):
        pair(NnUNetAugment(), torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), seed)
    assert abs(len(count) - n * wanted) < 4.5 * np.sqrt(n * wanted * (1 - wanted))


@pytest.mark.parametrize("shape", [(16, 20), (10, 12, 14)], ids=str)
def test_mirroring_is_of_every_axis_half_of_the_time(shape, monkeypatch):
    def still(x, *_):
        return x

    for change in ("blurred", "brightened", "contrasted", "coarsened", "inverted_gamma", "plain_gamma"):
        monkeypatch.setattr(an, change, still)
    monkeypatch.setattr(an, "moved", lambda maps, *_: maps)
    mask = torch.arange(int(np.prod(shape))).view(1, *shape)
    met = {}
    for seed in range(240):
        out = pair(NnUNetAugment(), mask.float(), mask, seed)[1]
        met[tuple(out.flatten().tolist())] = met.get(tuple(out.flatten().tolist()), 0) + 1
    sets = [[a + 1 for a in range(len(shape)) if bits >> a & 1] for bits in range(2 ** len(shape))]
    assert set(met) == {tuple(mask.flip(axes).flatten().tolist()) for axes in sets}
    share = 240 / len(sets)
    assert all(abs(count - share) < 5 * np.sqrt(share) for count in met.values())


def test_colours_are_nnunets_formulas():
    x = torch.randn(1, 20, 24) * 3 + 5
    for seed in range(12):
        ratio = (an.brightened(x, np.random.default_rng(seed)) / x).flatten()
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), atol=1e-5)
        assert 0.75 <= ratio[0] <= 1.25
        out = an.contrasted(x, np.random.default_rng(seed))
        assert out.min() >= x.min() - 1e-5
        assert out.max() <= x.max() + 1e-5
        inside = (out > x.min() + 1e-4) & (out < x.max() - 1e-4)
        slope = np.polyfit(x[inside].numpy(), out[inside].numpy(), 1)[0]
        assert 0.74 <= slope <= 1.26
        for change, sign in ((an.plain_gamma, 1), (an.inverted_gamma, -1)):
            out = change(x, np.random.default_rng(seed))
            assert torch.allclose(out.mean(), x.mean(), atol=1e-3)
            assert torch.allclose(out.std(), x.std(), rtol=1e-3)
            random = np.random.default_rng(seed)
            exponent = random.uniform(0.7, 1) if random.random() < 0.5 else random.uniform(1, 1.5)
            v = sign * x.numpy().astype(np.float64)
            v = ((v - v.min()) / np.ptp(v)) ** exponent
            v = (v - v.mean()) / v.std(ddof=1) * x.numpy().std(ddof=1) + sign * x.numpy().mean()
            assert np.allclose(out.numpy(), sign * v, atol=1e-3)


def test_blur_and_low_resolution_smooth_half_of_the_channels():
    x = torch.randn(1, 40, 40)
    for change in (an.blurred, lambda v, r: an.coarsened(v, None, r)):
        outs = [change(x, np.random.default_rng(seed)) for seed in range(60)]
        left = sum(torch.equal(out, x) for out in outs)
        assert 15 <= left <= 45
        smooth = [out for out in outs if not torch.equal(out, x)]
        assert all(out.shape == x.shape for out in smooth)
        assert np.median([float(out.diff(dim=-1).std()) for out in smooth]) < 0.8 * float(x.diff(dim=-1).std())
    flat = torch.randn(1, 20, 20, 5).cumsum(-1)
    kept = [an.coarsened(torch.arange(5.0).expand(1, 20, 20, 5).contiguous(), 2, np.random.default_rng(seed)) for seed in range(8)]
    assert all(torch.allclose(out, torch.arange(5.0).expand_as(flat), atol=1e-5) for out in kept)  # the thin axis is as it was


@pytest.mark.parametrize("shape", [(32, 32), (16, 16, 12)], ids=str)
def test_a_function_of_the_seed_alone(shape):
    image, mask = torch.randn(3, *shape), box(shape)
    before = image.clone(), mask.clone()
    first = [pair(NnUNetAugment(), image, mask, seed) for seed in range(12)]
    torch.manual_seed(99)
    np.random.seed(99)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = [pair(NnUNetAugment(), image, mask, seed) for seed in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert len({tuple(out[0].flatten().tolist()) for out in first}) > 8
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])
    assert all(out[0].dtype == torch.float32 and out[0].is_contiguous() for out in first)


def test_a_rate_of_zero_changes_nothing():
    image, mask = torch.randn(2, 12, 14), box((12, 14))
    for seed in range(20):
        out = pair(NnUNetAugment(rate=0.0), image, mask, seed)
        assert torch.equal(out[0], image)
        assert torch.equal(out[1], mask)
