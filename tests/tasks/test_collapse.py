import numpy as np
import pytest
import torch
from scipy import ndimage

from somite.tasks.segmentation.collapse import diagnose, roughness
from somite.tasks.task import Glimpse
from somite.trainer.pictures import glimpse_sheet


def glimpse(mask, truth):
    mask, truth = torch.as_tensor(mask).long(), torch.as_tensor(truth).long()
    return Glimpse("case", 0.0, {"image": torch.rand(3, *mask.shape), "truth": truth, "mask": mask, "probability": mask.float()})


def disc(radius, side=64):
    y, x = np.mgrid[:side, :side] - side / 2
    return (x**2 + y**2 < radius**2).astype(int)


rng = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (np.zeros((64, 64)), "empty"),
        (np.ones((64, 64)), "full"),
        (rng.random((64, 64)) < 0.3, "noise"),
        (rng.random((64, 64)) < 0.7, "noise"),
    ],
)
def test_collapse_is_named(mask, word):
    assert word in diagnose([glimpse(mask, disc(15))] * 4)


@pytest.mark.parametrize("mask", [disc(14), disc(25), disc(15) | (rng.random((64, 64)) < 0.02)])
def test_honest_masks_pass_even_poor_ones(mask):
    assert diagnose([glimpse(mask, disc(15))] * 4) is None


def test_cases_whose_truth_is_empty_or_full_do_not_count():
    assert diagnose([glimpse(np.zeros((64, 64)), np.zeros((64, 64)))] * 4) is None
    assert diagnose([glimpse(np.ones((64, 64)), np.ones((64, 64)))] * 4) is None


def test_roughness_is_one_for_independent_pixels_and_small_for_smooth_masks():
    noise = torch.as_tensor(rng.random((400, 400)) < 0.3)
    assert roughness(noise) == pytest.approx(1, abs=0.02)
    smooth = torch.as_tensor(ndimage.gaussian_filter(rng.standard_normal((400, 400)), 8) > 0.02)
    assert roughness(smooth) < 0.15


def test_the_sheet_has_four_panels_a_case():
    sheet = glimpse_sheet([glimpse(disc(10), disc(15))] * 3)
    assert sheet.size == (4 * 128 + 3 * 4, 14 + 3 * 132 - 4)
    pixels = np.asarray(sheet)[14:]  # below the columns' names
    assert pixels[64, 132 + 64].tolist() == [255, 255, 255]  # the truth's centre
    assert pixels[5, 132 + 5].tolist() == [0, 0, 0]
