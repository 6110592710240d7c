"""The task: what is target and condition, what a glimpse sees, what one case's rows say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice

from somite.contracts import TaskContract, alive
from somite.data.dataset import Data
from somite.data.phantoms import phantom, write_phantoms
from somite.data.preprocess import Preprocess
from somite.data.record import Case, Record
from somite.diffusion.methods import Diffusion, Method
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.errors import InputError
from somite.networks.medsegdiffnca import MedSegDiffNCA
from somite.predict.ensemble import fused
from somite.predict.fusion import Majority, Mean
from somite.tasks.segmentation import Segmentation, middle


class Told(Method):
    """A method that answers with given maps."""

    def __init__(self, maps):
        super().__init__()
        self.maps = torch.nn.Parameter(maps)

    def loss(self, target, cond):
        raise NotImplementedError

    def sample(self, cond, shape, of=None):
        return self.maps.detach()[: shape[0]]

    @property
    def steps(self):
        return 1


def result(members, labels, values=None, spacing=None, fusion=None):
    image = np.zeros((1, *labels.shape), np.float32)
    case = Record(Case("c7", (Path("c7.png"),), None, "p3"), "p3", image, labels, values, spacing, None)
    return fused(case, members, fusion or Mean(), keep=True)


def noisy(labels, classes, count=4):
    """Members that are the truth, shifted and noisy."""
    random = np.random.default_rng(0)
    hot = np.stack([labels == k for k in (range(classes) if classes > 1 else (1,))]).astype(np.float32)
    members = np.stack([np.clip(0.8 * np.roll(hot, 2, -1) + 0.3 * random.random(hot.shape), 0, 1) for _ in range(count)]).astype(np.float32)
    return members if classes == 1 else members / members.sum(1, keepdims=True)


def test_the_mask_is_the_target_and_the_image_the_condition():
    image, mask = torch.rand(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    target, cond = Segmentation().split({"image": image, "mask": mask})
    assert target is mask
    assert cond == {"image": image}


@pytest.mark.parametrize(("size", "spacing"), [((40, 44), None), ((16, 18, 10), (0.7, 0.7, 2.5))])
@pytest.mark.parametrize("classes", [1, 3])
def test_rows_agree_with_monai(size, spacing, classes):
    _, labels = phantom(1, size, 1, max(classes - 1, 1))
    found = result(noisy(labels, classes), labels, (0, 4, 9) if classes == 3 else None, spacing)
    rows = Segmentation(tolerance=1.5).score(found).rows
    assert [row["label"] for row in rows] == ([1] if classes == 1 else [4, 9])
    for label, row in enumerate(rows, 1):
        ours, truth = (torch.from_numpy(a == label)[None, None] for a in (found.mask, labels))
        step = list(spacing or (1.0,) * len(size))
        assert row["case"] == "c7"
        assert row["group"] == "p3"
        assert row["size"] == int(truth.sum())
        assert row["dice"] == pytest.approx(float(compute_dice(ours, truth)), abs=1e-6)
        assert row["iou"] == pytest.approx(float(compute_iou(ours, truth)), abs=1e-6)
        distance = compute_hausdorff_distance(ours, truth, include_background=True, percentile=95, spacing=step)
        assert row["hd95"] == pytest.approx(float(distance), abs=1e-4)
        nsd = compute_surface_dice(ours, truth, [1.5], include_background=True, spacing=step)
        assert row["nsd"] == pytest.approx(float(nsd), abs=1e-4)
        p, y = found.probability[0 if classes == 1 else label].astype(np.float64), (labels == label).astype(np.float64)
        assert row["brier"] == pytest.approx(np.mean((p - y) ** 2), abs=1e-6)
        own = found.members[:, 0 if classes == 1 else label].astype(np.float64)
        assert row["nqm"] == pytest.approx(own.std(0).sum() / own.mean(0).sum(), rel=1e-5)
        q = p.clip(1e-6, 1 - 1e-6)
        assert row["nll"] == pytest.approx(-np.mean(y * np.log(q) + (1 - y) * np.log(1 - q)), abs=1e-5)


def test_the_curve_over_members_is_the_dice_of_the_first_ones():
    _, labels = phantom(2, (40, 44), 1)
    found = result(noisy(labels, 1, 7), labels, fusion=Majority())
    curve = Segmentation(fusion=Majority()).score(found).tables["curves"]
    assert [row["at"] for row in curve] == [1, 2, 3, 5, 7]
    for row in curve:
        mask = (found.members[: row["at"], 0] >= 0.5).mean(0) >= 0.5
        assert row["dice"] == pytest.approx(
            float(compute_dice(torch.from_numpy(mask)[None, None], torch.from_numpy(labels)[None, None])), abs=1e-6
        )


def test_votes_count_every_pixel():
    _, labels = phantom(2, (40, 44), 1)
    found = result(noisy(labels, 1, 3), labels)
    votes = Segmentation().score(found).tables["votes"]
    expected = np.bincount((found.members[:, 0] >= 0.5).sum(0).ravel(), minlength=4)
    assert [row["pixels"] for row in votes] == expected.tolist()
    share = (found.members[:, 0] >= 0.5).mean(0)
    assert [row["positives"] for row in votes] == [int(labels[np.isclose(share, k / 3)].sum()) for k in range(4)]
    assert not Segmentation().score(result(found.members[:1], labels)).tables["votes"]


@pytest.mark.parametrize("truth", ["empty", "full"])
@pytest.mark.parametrize("answer", ["empty", "full"])
def test_empty_masks_follow_the_rule_and_nothing_is_nan(truth, answer):
    labels = np.full((12, 16), truth == "full", np.uint8)
    found = result(np.full((2, 1, 12, 16), float(answer == "full"), np.float32), labels)
    (row,) = Segmentation().score(found).rows
    if truth == "empty":
        assert row["dice"] == row["nsd"] == row["recall"] == (answer == "empty")
        assert row["hd95"] == (0 if answer == "empty" else pytest.approx(20))  # the diagonal of 12 x 16
    else:
        assert row["dice"] == (answer == "full")
    assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))


def test_a_glimpse_scores_the_whole_case_and_shows_its_fullest_slice():
    truth = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    truth[1, 0, 2:6, 2:6] = 1
    truth[2, 0, 0, :4] = 1
    maps = truth.float() * 0.8
    maps[2, 0] = 0  # a slice that is missed: 4 of 20 pixels
    glimpse = Segmentation().glimpse(Told(maps), {"image": torch.rand(3, 3, 8, 8), "mask": truth}, "x")
    assert glimpse.score == pytest.approx(2 * 16 / (16 + 20))
    assert torch.equal(glimpse.panels["truth"], truth[1, 0] > 0)
    assert torch.equal(glimpse.panels["mask"], truth[1, 0] > 0)
    assert glimpse.panels["image"].shape == (3, 8, 8)


def test_a_glimpse_of_classes_is_their_mean():
    labels = torch.zeros(1, 1, 6, 6, dtype=torch.uint8)
    labels[0, 0, :2], labels[0, 0, 2:4] = 1, 2
    maps = torch.stack([labels[0, 0] == 0, labels[0, 0] == 1, labels[0, 0] == 2]).float()[None]
    maps[0, :, 2, :3] = torch.tensor([1.0, 0, 0])[:, None]  # 3 of class 2's 12 pixels are missed
    glimpse = Segmentation().glimpse(Told(maps), {"image": torch.rand(1, 3, 6, 6), "mask": labels}, "x")
    assert glimpse.score == pytest.approx((1 + 2 * 9 / 21) / 2)


def test_a_glimpse_of_a_volume_is_flat():
    truth = torch.zeros(1, 1, 6, 7, 8, dtype=torch.uint8)
    truth[..., 2:4] = 1
    glimpse = Segmentation().glimpse(Told(truth.float()), {"image": torch.rand(1, 1, 6, 7, 8), "mask": truth}, "x")
    assert glimpse.score == 1
    assert glimpse.panels["image"].shape == (1, 6, 7)
    assert all(glimpse.panels[name].shape == (6, 7) for name in ("mask", "truth", "probability"))
    assert np.array_equal(middle(np.arange(24).reshape(2, 3, 4)), np.arange(24).reshape(2, 3, 4)[..., 2])


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_tolerance_that_is_no_distance_is_refused_before_training(tolerance):
    with pytest.raises(InputError, match=f"--task.tolerance {tolerance}"):
        Segmentation(tolerance=tolerance)


class TestContract(TaskContract):
    def make(self):
        return Segmentation(members=2, steps=[1, 2])

    def data(self, folder):
        return Data(str(write_phantoms(folder / "data", 6, (20, 24))))

    def method(self):
        torch.manual_seed(0)
        network = alive(MedSegDiffNCA(channels=14, hidden=8, updates=2, levels=1, cbam=False))
        return Diffusion(network, linear(50), {}, DDIM(2), predicts="logits")


class TestVolumes(TestContract):
    """Slice by slice."""

    def data(self, folder):
        return Data(str(write_phantoms(folder / "data", 6, (12, 14, 8), channels=1)), Preprocess(channels=3))
