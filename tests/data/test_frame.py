"""Volumes turned and cropped, and answers that come back. nibabel's reorientation and the affine itself are the judges."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from nibabel.orientations import aff2axcodes

from scans import AIR, SHAPE, Own, body, oblique, write
from somite.data.dataset import Data
from somite.data.frame import frame
from somite.data.nifti import read_volume
from somite.data.preprocess import Preprocess
from somite.data.record import Case, Record, read, write_mask
from somite.diffusion.codec import Signed
from somite.diffusion.methods import FeedForward
from somite.errors import InputError
from somite.predict.ensemble import Model, answer
from somite.predict.fusion import Mean
from somite.types import Network, Output

CASES = [("RAS", 0, AIR), ("LPS", 0, -3024), ("PIR", 0, -2000), ("LPS", 30, AIR), ("ASL", 30, -3024)]


@pytest.mark.parametrize(("codes", "degrees", "padding"), CASES)
def test_the_network_sees_the_same_whatever_the_order_of_the_file(tmp_path, codes, degrees, padding):
    record = read(write(tmp_path, codes, degrees, padding))
    seen = Preprocess(channels=1, dims=3, orientation="RAS", above=-500).seen(record)
    image, labels = body(padding)
    low, high = np.argwhere(image >= -500).min(0), np.argwhere(image >= -500).max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    assert np.array_equal(seen.image[0], image[box]) and np.array_equal(seen.labels, labels[box])
    assert aff2axcodes(seen.geometry.affine) == ("R", "A", "S")
    assert seen.spacing == pytest.approx((1.1, 0.9, 2.5))
    corner, native = apply_affine(oblique(degrees), low), seen.geometry.affine[:3, 3]
    assert native == pytest.approx(corner, abs=1e-3)  # NIfTI stores float32


class Threshold(Network):
    """A segmentation of the label by brightness alone: what comes back is on the right voxels or it is not."""

    def forward(self, x, t, cond, state=None):
        return Output(100 * (cond["image"][:, :1] - 0.5))

    def __init__(self):
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(1))


def answered(preprocess, record):
    method = FeedForward(Threshold(), {}, codec=Signed())
    sample = preprocess.image(record)
    model = Model(method, preprocess, {"image": sample}, (len(sample), 1, *sample.shape[2:]))
    return answer([model], record, 1, Mean())


@pytest.mark.parametrize(("codes", "degrees", "padding"), CASES)
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 2.0]])
def test_predictions_lie_on_the_files_own_voxels(tmp_path, codes, degrees, padding, spacing):
    """Acceptance fact: the affine and the shape are the file's, and the volume in mm^3 is kept within 2 %."""
    case = write(tmp_path, codes, degrees, padding)
    record = read(case)
    bright = Record(**{**vars(record), "image": np.where(record.labels[None] > 0, 1.0, record.image.clip(-1, 0) / 4).astype(np.float32)})
    preprocess = Preprocess(1, normalise=Own(), dims=3, orientation="RAS", above=-0.2, spacing_mm=spacing)
    path = write_mask(tmp_path / "out", answered(preprocess, bright).mask, record)
    written, own = nib.load(path), nib.load(case.mask)
    assert written.shape == own.shape and np.array_equal(written.affine, own.affine)
    found, truth = (np.asarray(one.dataobj) > 0 for one in (written, own))
    mm3 = abs(np.linalg.det(own.affine[:3, :3]))
    if spacing is None:
        assert np.array_equal(found, truth)
    assert found.sum() * mm3 == pytest.approx(truth.sum() * mm3, rel=0.02)
    assert (found & truth).sum() > 0.95 * truth.sum()


@pytest.mark.parametrize(("codes", "degrees", "padding"), CASES)
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 2.0]])
def test_labels_there_and_back_keep_their_volume(tmp_path, codes, degrees, padding, spacing):
    record = read(write(tmp_path, codes, degrees, padding))
    preprocess = Preprocess(channels=1, dims=3, orientation="RAS", above=-500, spacing_mm=spacing)
    back = preprocess.restore(preprocess.mask(record).float(), record)
    assert back.shape == (1, *record.shape)
    assert (back >= 0.5).sum() == pytest.approx(record.labels.sum(), rel=0.02)
    if spacing is None:
        assert np.array_equal(back[0], record.labels)


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_not_looked_at_is_background(tmp_path, count):
    record = read(write(tmp_path, "PIR"))
    preprocess = Preprocess(1, normalise=Own(), dims=3, orientation="RAS", above=-500)
    back = preprocess.restore(torch.full((1, count, *preprocess.image(record).shape[2:]), 0.25), record)
    outside = back[:, record.image[0] < -500]
    assert np.all(back[:, record.image[0] >= -500] == 0.25)
    assert np.array_equal(outside, np.tile(np.eye(count)[0][:, None] * (count > 1), outside.shape[1]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_a_turned_volume_come_back_too(tmp_path, axis):
    """Slab by slab they would not: the network's slices are not the file's."""
    record = read(write(tmp_path, "PIR", 30))
    bright = Record(**{**vars(record), "image": np.where(record.labels[None] > 0, 1.0, record.image.clip(-1, 0) / 4).astype(np.float32)})
    preprocess = Preprocess(1, normalise=Own(), axis=axis, orientation="RAS", above=-0.2)
    assert len(preprocess.image(bright)) == preprocess.seen(bright).shape[axis]
    assert np.array_equal(answered(preprocess, bright).mask, record.labels)


def test_classification_labels_are_of_the_slices_that_are_seen(tmp_path):
    record = read(write(tmp_path, "PIR"))
    labelled = Record(**{**vars(record), "case": Case("a", (), None, "a", (0.0, 1.0))})
    preprocess = Preprocess(1, normalise=Own(), orientation="RAS", above=-500)
    assert len(preprocess.labels(labelled)) == len(preprocess.image(labelled)) < SHAPE[2]


def test_a_volume_smaller_than_the_crop_is_drawn_from_its_body(tmp_path):
    write(tmp_path, "LPS")
    preprocess = Preprocess(1, normalise=Own(), dims=3, orientation="RAS", above=-500)
    data = Data(str(tmp_path), preprocess, crop=[64, 32, 48], rates={"train": 1.0})
    data._cases = {"train": data.source.all}
    drawn = data.draw(0, 1)
    assert drawn["image"].shape == drawn["mask"].shape == (1, 64, 32, 48)
    assert drawn["image"].min() >= AIR


def test_spacing_is_that_of_the_voxels_that_are_seen(tmp_path):
    record = read(write(tmp_path, "PIR", 30))
    assert Preprocess(channels=1, dims=3).spacing(record) == pytest.approx((0.9, 2.5, 1.1))
    turned = Preprocess(channels=1, dims=3, orientation="RAS", above=-500, spacing_mm=[1.0, 1.0, 2.0])
    seen = turned.seen(record)
    extent = np.multiply(seen.shape, seen.spacing)
    assert turned.spacing(record) == pytest.approx(extent / turned.nearest(record.labels, record).shape[2:])
    assert Preprocess(channels=1, axis=1, orientation="RAS").spacing(record) == pytest.approx((1.1, 2.5))


def test_a_volume_without_a_bright_voxel_is_refused(tmp_path):
    record = read(write(tmp_path, "LPS"))
    with pytest.raises(InputError, match=r"a: no voxel is as bright as --data.preprocess.above 3000 \(the brightest is"):
        Preprocess(channels=1, dims=3, above=3000).image(record)


def test_an_array_is_taken_to_run_as_it_should():
    record = Record(
        Case("array", (), None, "array"), "array", np.random.default_rng(0).random((1, 5, 6, 7), np.float32), None, None, None, None
    )
    assert np.array_equal(Preprocess(channels=1, dims=3, orientation="RAS").image(record)[0], record.image)


def test_a_frame_of_everything_changes_nothing(tmp_path):
    case = write(tmp_path, "RAS")
    record = read(case)
    seen = frame(record, True, -1e9).of(record)
    assert np.array_equal(seen.image, record.image) and np.array_equal(seen.geometry.affine, record.geometry.affine)
    assert np.array_equal(read_volume(Path(case.images[0])).array, seen.image)
