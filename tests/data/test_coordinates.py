"""Coordinates of a volume's voxels, and that they stay with these voxels whatever is done to a patch."""

import numpy as np
import pytest
import torch
from monai.transforms import Affine

from scans import Own, located, write
from somite.data.augment import Augment
from somite.data.augment_nnunet import NnUNetAugment, moved
from somite.data.body import Body
from somite.data.coordinates import BodyBox, Coordinates, Scrambled
from somite.data.dataset import Data
from somite.data.preprocess import Preprocess
from somite.data.record import Case, Record
from somite.errors import InputError


def record(name="a", size=(1, 6, 8, 4)):
    return Record(Case(name, (), None, name), name, np.zeros(size, np.float32), None, None, None, None)


def made(by, size=(6, 8, 4), name="a", body=None):
    return by(torch.zeros(1, *size), record(name, (1, *size)), (1.0, 1.0, 1.0), body)


def data_of(folder, codes="LPS", **options):
    case = write(folder, codes)
    preprocess = Preprocess(1, normalise=Own(), dims=3, orientation="RAS", spacing_mm=[1.0, 1.0, 2.0])
    data = Data(str(folder), preprocess, **options)
    data._cases = {"train": [case]}
    return data, case


def test_the_box_of_a_volume_runs_from_face_to_face():
    found = made(BodyBox())
    for axis, size in enumerate((6, 8, 4)):
        line = found[axis].movedim(axis, 0).reshape(size, -1)
        assert torch.equal(line, line[:, :1].expand_as(line))
        assert np.allclose(line[:, 0], np.linspace(-1 + 1 / size, 1 - 1 / size, size))


def test_the_box_is_that_of_the_body():
    body = torch.zeros(1, 6, 8, 4, dtype=torch.uint8)
    body[0, 1:5, 2:4, 3] = 1
    found = made(BodyBox(), body=body)
    assert found[0, :, 0, 0].tolist() == [-1.25, -0.75, -0.25, 0.25, 0.75, 1.25]
    assert found[1, 0, 1:5, 0].tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert found[2, 0, 0].tolist() == [-6, -4, -2, 0]
    assert torch.equal(made(BodyBox(), body=torch.zeros_like(body)), made(BodyBox()))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_coordinates_grow_to_the_right_the_front_and_the_head_of_any_file(tmp_path, codes):
    """Against where each voxel lies by its affine, which the image's channels say."""
    located(tmp_path / "images" / "a.nii.gz", codes)
    data = Data(str(tmp_path), Preprocess(3, normalise=Own(), dims=3, orientation="RAS"), coordinates=BodyBox()).needing({"image"})
    sample = data.sample(data.read(data.source.all[0]), {"image"})
    place, found = sample["image"][0], sample["coordinates"][0]
    for axis in range(3):
        (slope, _), residual, *_ = np.polyfit(place[axis].flatten().double(), found[axis].flatten().double(), 1, full=True)
        assert slope > 0 and residual[0] < 1e-6


def test_scrambled_coordinates_know_seed_case_and_size_alone():
    first = made(Scrambled(3), (20, 24, 16))
    other = Scrambled(3)(torch.rand(2, 20, 24, 16), record("a"), None, torch.ones(1, 20, 24, 16, dtype=torch.uint8))
    assert torch.equal(first, other)
    for another in (made(Scrambled(4), (20, 24, 16)), made(Scrambled(3), (20, 24, 16), "b")):
        assert abs(np.corrcoef(first.flatten(), another.flatten())[0, 1]) < 0.4
    true = made(BodyBox(), (20, 24, 16))
    apart = [
        abs(np.corrcoef(made(Scrambled(seed), (20, 24, 16))[k].flatten(), true[k].flatten())[0, 1]) for seed in range(20) for k in range(3)
    ]
    assert np.mean(apart) < 0.35 and first.abs().max() <= 1
    assert (first[:, 1:] - first[:, :-1]).abs().max() < 0.5  # as smooth as a condition should be


def test_the_control_has_a_name_that_says_so():
    assert "control" in Scrambled(3).name and "3" in Scrambled(3).name and "box" in BodyBox().name


@pytest.mark.parametrize("by", [BodyBox(), Scrambled()], ids=["box", "scrambled"])
def test_a_patch_has_the_volumes_coordinates_to_the_bit(tmp_path, by):
    """Acceptance fact. Where the patch was cut from is found by its image, whose voxels are all different."""
    data, case = data_of(tmp_path, crop=[16, 12, 8], body=Body(), coordinates=by)
    whole = data.sample(data.read(case), {"image"})
    texture = torch.randn(whole["image"].shape, generator=torch.Generator().manual_seed(0))
    loaded = data.loaded(case)
    loaded["image"].copy_(texture)
    for seed in range(10):
        drawn = data.draw(0, seed)
        (corner,) = (texture[0, 0, :-15, :-11, :-7] == drawn["image"][0, 0, 0, 0]).nonzero().tolist()
        x, y, z = corner
        at = (slice(None), slice(x, x + 16), slice(y, y + 12), slice(z, z + 8))
        assert torch.equal(drawn["image"], texture[0][at])
        assert torch.equal(drawn["coordinates"], whole["coordinates"][0][at])
        assert torch.equal(drawn["body"], whole["body"][0][at])


def test_coordinates_are_made_of_the_clean_volume_once(tmp_path):
    class Told(Coordinates):
        name = "told"

        def __init__(self):
            self.calls = []

        def __call__(self, image, record, spacing, body):
            self.calls.append((image.clone(), record.case.id, spacing, body.clone()))
            return image.expand(3, -1, -1, -1)

    told = Told()
    data, case = data_of(tmp_path, crop=16, body=Body(), coordinates=told, augment=Augment(rate=1.0, noise=0.2))
    for seed in range(4):
        data.draw(0, seed)
    ((image, name, spacing, body),) = told.calls
    record = data.read(case)
    assert torch.equal(image, data.preprocess.image(record)[0]) and name == "a"
    assert spacing == data.preprocess.spacing(record) == pytest.approx((1.0, 1.0, 2.0), rel=0.03)
    assert torch.equal(body, data.sample(record, {"image"})["body"][0])
    given = data.sample(record, {"mask"})
    assert set(given) == {"mask", "body", "coordinates"}  # for answers too, whatever else is asked for


@pytest.mark.parametrize("augment", [Augment(rate=1.0, brightness=0, contrast=0, elastic=0.5), NnUNetAugment()], ids=["somite", "nnunet"])
def test_what_turns_the_image_turns_the_map(augment):
    """The coordinates are the image here, moved linearly as it is; the body is 1 or 0 and stays what the mask is."""
    axes = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (16, 16, 12)], indexing="ij"))
    ball = (axes.square().sum(0, keepdim=True) < 0.6).to(torch.uint8)
    moved_some = 0
    for seed in range(8):
        out = augment({"image": axes, "mask": ball, "coordinates": axes, "body": ball}, seed)
        assert torch.equal(out["body"], out["mask"]) and out["body"].dtype == torch.uint8 and out["coordinates"].dtype == torch.float32
        if isinstance(augment, Augment):
            assert torch.equal(out["coordinates"], out["image"])
            moved_some += not torch.equal(out["coordinates"], axes)
    assert moved_some == 8 or isinstance(augment, NnUNetAugment)


def test_nnunets_turn_is_monais_of_the_map():
    axes = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (16, 16, 12)], indexing="ij"))
    turned = moved({"image": axes[:1], "coordinates": axes}, True, True, None, np.random.default_rng(1))
    draws = np.random.default_rng(1)
    angles = [float(draws.uniform(-30, 30)) * np.pi / 180 for _ in range(3)]
    wanted = Affine(rotate_params=angles, scale_params=[float(draws.uniform(0.7, 1.4))] * 3, padding_mode="reflection", image_only=True)(
        axes
    )
    assert torch.allclose(turned["coordinates"], torch.as_tensor(wanted))


@pytest.mark.parametrize("preprocess", [Preprocess(1), Preprocess(1, dims=3), Preprocess(1, orientation="RAS")])
def test_coordinates_need_volumes_whose_axes_are_known(preprocess):
    with pytest.raises(InputError, match=r"--data.coordinates.*--data.preprocess.orientation RAS"):
        Data(preprocess=preprocess, coordinates=BodyBox())


def test_batches_hold_them(tmp_path):
    data, _ = data_of(tmp_path, crop=16, body=Body(), coordinates=Scrambled())
    (batch,) = data.stream(batch=2, total=1, seed=0)
    assert batch["coordinates"].shape == (2, 3, 16, 16, 16) and batch["body"].shape == (2, 1, 16, 16, 16)
