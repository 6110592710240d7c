"""Predictions as files: values, names, and the geometry of the input bit for bit."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import somite
from runs import tiny
from somite.commands import chosen, written
from somite.data.nifti import read_volume
from somite.data.phantoms import phantom, write_phantoms
from somite.errors import InputError
from somite.tasks.segmentation.outputs import names, write

OBLIQUE = np.array([[0.62, -0.31, 0.5, -41.3], [0.2, 0.93, 0.4, 12.7], [-0.3, -0.2, 2.4, 87.123], [0, 0, 0, 1]])
CLASSES = [
    "--data.labels=[0,3,200]",
    "--method.codec=somite.diffusion.codec.OneHot",
    "--method.codec.classes=3",
    "--method.network.mask_channels=3",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32))
    return somite.load(tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2"), device="cpu")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32), classes=2)
    for path in (root / "masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.array([0, 3, 200], np.uint8)[labels]).save(path)
    out = tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=4", *CLASSES)
    return somite.load(out, device="cpu")


@pytest.fixture
def volume(tmp_path):
    """An oblique volume whose sform and qform differ, with codes, units and a slope."""
    image = nib.Nifti1Image((phantom(0, (16, 14, 9), 1)[0][0] * 1000).astype(np.int16), OBLIQUE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_sform(OBLIQUE, 3)
    image.header.set_qform(np.diag([0.7, 0.9, 2.5, 1]), 2)
    path = tmp_path / "scan.nii.gz"
    nib.save(image, path)
    return path


def test_png_masks_are_black_and_white_and_as_large_as_the_image(run, tmp_path):
    image = (phantom(0, (37, 53))[0] * 255).astype(np.uint8)
    Image.fromarray(np.moveaxis(image, 0, -1)).save(tmp_path / "x.y.png")
    result = run.predict(tmp_path / "x.y.png", members=3)
    paths = write(result, tmp_path / "out", ("members", "spread", "mask", "probability"))
    stems = ["x.y_mask", "x.y_probability", "x.y_spread", "x.y_member-00", "x.y_member-01", "x.y_member-02"]
    assert [path.name for path in paths] == [f"{stem}.png" for stem in stems]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    mask = np.asarray(Image.open(paths[0]))
    assert mask.shape == (37, 53)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, result.mask * 255)
    for path, expected in zip(paths[1:], (result.probability[0], result.spread[0], *result.members[:, 0]), strict=True):
        assert np.abs(np.asarray(Image.open(path)) / 65535 - expected).max() <= 0.5 / 65535 + 1e-7


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_lie_where_the_input_lies_bit_for_bit(run, volume, tmp_path, axis, monkeypatch):
    monkeypatch.setattr(run.recipe.data.preprocess, "axis", axis)
    result = run.predict(volume, members=2)
    paths = write(result, tmp_path / "out", ("mask", "probability", "spread", "members"))
    before = nib.load(volume)
    for path in paths:
        after = nib.load(path)
        assert after.shape == (16, 14, 9)
        assert np.array_equal(after.affine, before.affine)
        for field in ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
                      "srow_x", "srow_y", "srow_z", "xyzt_units"):  # fmt: skip
            assert np.array_equal(after.header[field], before.header[field]), field
    assert np.array_equal(np.asarray(nib.load(paths[0]).dataobj), result.mask)
    assert np.array_equal(np.asarray(nib.load(paths[1]).dataobj), result.probability[0])
    assert np.asarray(nib.load(paths[0]).dataobj).dtype == np.uint8


def test_a_slice_of_a_volume_is_predicted_as_the_slice_alone(run, volume):
    """Through arrays: slice 4 of the volume, with the noise of its name."""
    from somite.predict import ensemble

    def sample(images, name, batch):
        return ensemble.sample(run.method, {"image": images}, (len(images), 1, *images.shape[2:]), name, 1, 0, batch)

    result = run.predict(volume, members=1)
    record = run.record(volume)
    image = run.recipe.data.preprocess.image(record)  # brightness is the whole case's
    alone = np.stack([sample(image[i : i + 1], "other", 1)[0, 0, 0].numpy() for i in range(9)], -1)
    assert alone.shape == result.members[0, 0].shape
    whole = sample(image, "scan", 4)[0, :, 0].numpy()
    assert np.abs(np.moveaxis(whole, 0, -1) - result.members[0, 0]).max() <= 1e-6
    assert np.array_equal(read_volume(volume).array, record.image)


def test_classes_keep_their_values(classes, tmp_path):
    image = (phantom(7, (40, 36), classes=2)[0] * 255).astype(np.uint8)
    Image.fromarray(np.moveaxis(image, 0, -1)).save(tmp_path / "x.png")
    result = classes.predict(tmp_path / "x.png", members=2)
    assert result.probability.shape == (3, 40, 36)
    assert np.allclose(result.probability.sum(0), 1, atol=1e-5)
    result.mask[:2] = 2  # whatever was learned in four steps
    paths = write(result, tmp_path / "out", ("mask", "probability", "members"))
    expected = ["mask", *(f"probability-{v}" for v in (0, 3, 200)), *(f"member-{m:02d}-{v}" for m in (0, 1) for v in (0, 3, 200))]
    assert [path.name for path in paths] == [f"x_{name}.png" for name in expected]
    assert np.array_equal(np.asarray(Image.open(paths[0])), np.array([0, 3, 200])[result.mask])
    assert np.abs(np.asarray(Image.open(paths[3])) / 65535 - result.probability[2]).max() < 1e-5
    assert np.abs(np.asarray(Image.open(paths[8])) / 65535 - result.members[1, 1]).max() < 1e-5


def test_what_was_written_is_known_again(run, tmp_path):
    result = run.predict(np.zeros((16, 16, 3), np.uint8), members=2)
    kinds = ("mask", "members")
    stems = names("array", kinds, 2, 1, None)
    assert not written(tmp_path, stems)
    paths = write(result, tmp_path, kinds)
    assert written(tmp_path, stems)
    assert not written(tmp_path, names("array", kinds, 3, 1, None))
    paths[1].unlink()
    assert not written(tmp_path, stems)


def test_unknown_outputs_are_refused_before_any_is_written(run, tmp_path):
    with pytest.raises(InputError, match="--save masks"):
        chosen("mask,masks", run.recipe.task)
    assert chosen(None, run.recipe.task) == ["mask", "probability", "spread"]
