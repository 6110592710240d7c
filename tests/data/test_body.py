"""Where the body is: vox2vec's facts, and what a scanner writes around it."""

import numpy as np
import pytest
import torch

from scans import AIR, SHAPE, Own, body, write
from somite.data.body import Body
from somite.data.dataset import Data
from somite.data.preprocess import Preprocess
from somite.data.record import Case, Record, read


def volume(image):
    return Record(Case("a", (), None, "a"), "a", image[None].astype(np.float32), None, None, None, None)


def test_internal_air_is_body_as_in_the_official_program():
    """vox2vec's own function gives 480 voxels for this volume: 16 x 16 x 6 of air, a box at 40 HU, a cavity in it."""
    image = np.full((16, 16, 6), -1000.0)
    image[4:12, 3:13] = 40
    image[6:9, 6:9, 2:4] = -900
    found = Body()(volume(image))
    assert found.sum() == 480 and found[6:9, 6:9, 2:4].all()


def test_air_that_the_scan_cuts_through_is_body_and_air_beside_it_is_not():
    """A lung that reaches the first slice, as in a scan of the abdomen: only from beside does air come in."""
    image = np.full((16, 16, 6), -1000.0)
    image[4:12, 3:13] = 40
    image[6:9, 6:9, :3] = -900
    assert Body()(volume(image)).sum() == 480
    image[6:9, :9, 4] = -900
    assert not Body()(volume(image))[6:9, :9, 4].any()


def test_a_body_that_fills_the_view_is_all_of_it():
    assert Body()(volume(np.full((8, 8, 4), 40.0))).all()
    assert not Body()(volume(np.full((8, 8, 4), -1000.0))).any()


@pytest.mark.parametrize(("codes", "degrees", "padding"), [("RAS", 0, -3024), ("LPS", 0, -2000), ("PIR", 30, AIR), ("SLA", 0, -3024)])
def test_the_body_is_the_same_in_any_order_of_axes_and_whatever_lies_outside_of_the_circle(tmp_path, codes, degrees, padding):
    image, _ = body(AIR)
    record = read(write(tmp_path, codes, degrees, padding, bubble=True))
    turned = Preprocess(channels=1, dims=3, orientation="RAS")
    assert torch.equal(turned.nearest(Body()(record), record)[0, 0], torch.from_numpy(image > -500).long())


def test_body_is_an_entry_for_training_and_for_answers(tmp_path):
    case = write(tmp_path, "LPS", bubble=True)
    preprocess = Preprocess(1, normalise=Own(), dims=3, orientation="RAS", spacing_mm=[1.0, 1.0, 2.0])
    data = Data(str(tmp_path), preprocess, crop=16, body=Body())
    data._cases = {"train": [case]}
    record = data.read(case)
    given = data.sample(record, {"image"})
    assert given["body"].shape == given["image"].shape and given["body"].dtype == torch.uint8
    assert given["body"].float().mean() == pytest.approx(Body()(record).mean(), rel=0.02)
    drawn = data.draw(0, 3)
    assert set(drawn) == {"image", "mask", "body"} and drawn["body"].shape == (1, 16, 16, 16)
    assert set(Data(str(tmp_path), preprocess).sample(record, {"image"})) == {"image"}


def test_slices_have_their_body(tmp_path):
    case = write(tmp_path, "LPS")
    data = Data(str(tmp_path), Preprocess(1, normalise=Own()), body=Body())
    assert data.sample(data.read(case), {"image"})["body"].shape == (SHAPE[2], 1, *SHAPE[:2])
