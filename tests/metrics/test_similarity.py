import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from somite.metrics.similarity import MS_SSIM_SIDE, SSIM_SIDE, ms_ssim, psnr, ssim


def pair(side=40, noise=0.1, seed=0):
    """A smooth map in [0, 1] and a disturbed one."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.random((side, side + 3)), 4)
    reference = (smooth - smooth.min()) / np.ptp(smooth)
    return (reference + noise * rng.standard_normal(reference.shape)).clip(0, 1), reference


def wang(a, b, data_range):
    """SSIM by SciPy, after Wang et al. 2004: means and moments under a Gaussian of sigma 1.5 that is cut at 5 pixels."""

    def blurred(x):
        return gaussian_filter(x, 1.5, truncate=3.5, mode="mirror")

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    va, vb, cov = blurred(a * a) - blurred(a) ** 2, blurred(b * b) - blurred(b) ** 2, blurred(a * b) - blurred(a) * blurred(b)
    luminance = (2 * blurred(a) * blurred(b) + c1) / (blurred(a) ** 2 + blurred(b) ** 2 + c1)
    return (luminance * (2 * cov + c2) / (va + vb + c2)).mean()


def test_psnr_in_closed_form():
    reference = pair()[1]
    assert psnr(reference + 0.01, reference) == pytest.approx(40, abs=1e-4)  # 20 log10(1 / 0.01)
    assert psnr(255 * reference + 2.55, 255 * reference, 255) == pytest.approx(40, abs=1e-4)
    assert psnr(reference, reference) == float("inf")


def test_psnr_without_a_range_takes_the_references_own():
    reference = 0.2 * pair()[1] + 0.5
    assert psnr(reference + 0.01, reference, None) == pytest.approx(20 * np.log10(0.2 / 0.01), abs=1e-4)
    assert np.isnan(psnr(reference, np.ones_like(reference), None))


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_agrees_with_scipy(data_range):
    a, b = pair()
    assert ssim(a, b, data_range) == pytest.approx(wang(a, b, data_range), abs=1e-6)
    assert ssim(b, b, data_range) == 1


def test_ssim_without_a_range_takes_the_larger_one_of_the_two():
    a, b = pair()
    faint = 255 * 0.1 * b
    assert ssim(255 * a, faint, None) == pytest.approx(wang(255 * a, faint, 255 * np.ptp(a)), abs=1e-6)
    assert ssim(faint, 255 * a, None) == pytest.approx(ssim(255 * a, faint, None))
    assert np.isnan(ssim(np.zeros((9, 9)), np.ones((9, 9)), None))
    assert ssim(np.ones((9, 9)), np.ones((9, 9)), None) == 1


def test_ms_ssim_agrees_with_monai():
    monai = MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0, kernel_size=11, kernel_sigma=1.5)
    found = []
    for noise in (0.05, 0.2, 0.5):
        a, b = pair(200, noise)
        (expected,) = monai(*(torch.from_numpy(x)[None, None].float() for x in (a, b))).flatten().tolist()
        found.append(ms_ssim(a, b))
        assert found[-1] == pytest.approx(expected, abs=0.01)  # MONAI leaves the border out, which torchmetrics reflects
        assert ms_ssim(255 * a, 255 * b, 255) == pytest.approx(found[-1])
    assert 1 > found[0] > found[1] > found[2] > 0
    assert ms_ssim(b, b) == 1


def test_sides_are_the_least_that_torchmetrics_takes():
    for side, small in ((SSIM_SIDE, ssim), (MS_SSIM_SIDE, ms_ssim)):
        a, b = pair(side)
        assert 0 < small(a, b) < 1
        with pytest.raises(ValueError, match="pixels a side"):
            small(a[1:], b[1:])
    less = torch.rand(1, 1, MS_SSIM_SIDE - 1, 200)
    with pytest.raises(ValueError, match="larger than"):
        multiscale_structural_similarity_index_measure(less, less, data_range=1.0)


@pytest.mark.parametrize("measure", [psnr, ssim, ms_ssim])
def test_refuses_other_shapes(measure):
    for other in (np.zeros((9, 8)), np.zeros((9, 9, 9))):
        with pytest.raises(ValueError, match="one shape"):
            measure(other, np.zeros((9, 9)))
