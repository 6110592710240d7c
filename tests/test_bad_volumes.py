"""Volumes that cannot be answered: one line on stderr that names the file and the mend, exit code 2, nothing written."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import somite
from dicoms import head, write_series
from runs import tiny
from somite.cli import main
from somite.data.phantoms import write_phantoms

HEAD = head((16, 16, 4))
ONE = ("--data.preprocess.channels=1", "--method.network.image_channels=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 3, (16, 16, 8), channels=1)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    zscore = "--data.preprocess.normalise=somite.data.normalise.ZScore"
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2", *ONE, zscore)


def with_nan(folder):
    values = HEAD.astype(np.float32)
    values[0, 0, :2] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "nan.nii.gz")
    return folder / "nan.nii.gz", "2 voxels that are NaN", "replace them"


def in_colour(folder):
    pixels = np.zeros((8, 8, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), folder / "rgb.nii.gz")
    return folder / "rgb.nii.gz", "colour", "save it as numbers"


def two_series(folder):
    write_series(folder / "two", HEAD)
    for path in write_series(folder / "other", HEAD[..., :2]).iterdir():
        shutil.copy(path, folder / "two" / f"other{path.name}")
    return folder / "two", "2 DICOM series", "folder of its own"


def gap(folder):
    (write_series(folder / "gap", HEAD) / "0002.dcm").unlink()
    return folder / "gap", "lacks 1 slice(s)", "copy the series again"


def cut_short(folder):
    path = write_series(folder / "cut", HEAD) / "0002.dcm"
    path.write_bytes(path.read_bytes()[:700])
    return folder / "cut", path, "truncated or damaged"


@pytest.mark.parametrize("spoil", [with_nan, in_colour, two_series, gap, cut_short], ids=lambda one: one.__name__)
def test_what_cannot_be_predicted(run, tmp_path, refused, spoil):
    scan, *words = spoil(tmp_path)
    refused(["predict", run, scan, "--out", tmp_path / "out"], scan, *words)
    assert not (tmp_path / "out").exists()


def test_a_label_volume_on_another_grid(root, tmp_path, refused):
    data = shutil.copytree(root, tmp_path / "data")
    path = data / "masks/case000.nii.gz"
    mask = nib.load(path)
    moved = mask.affine.copy()
    moved[2, 3] += 1
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), moved), path)
    line = ["train", "medsegdiffnca/demo", f"--data.root={data}", "--out", tmp_path / "run", *ONE]
    refused(line, path, data / "images/case000.nii.gz", "different places", "resample")


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
@pytest.mark.parametrize("degrees", [0, 30])
def test_any_order_and_direction_of_axes_comes_back_as_it_was(run, tmp_path, codes, degrees):
    angle = np.radians(degrees)
    affine = np.array([[np.cos(angle), -np.sin(angle), 0, -31], [np.sin(angle), np.cos(angle), 0, 17], [0, 0, 2.5, 3], [0, 0, 0, 1]])
    image = nib.Nifti1Image(head((12, 10, 8)).astype(np.int16), affine)
    nib.save(image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes))), tmp_path / "scan.nii.gz")
    assert (
        main(["predict", str(run), str(tmp_path / "scan.nii.gz"), "--out", str(tmp_path / "out"), "--members", "1", "--save", "mask"]) == 0
    )
    before, after = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "out/scan_mask.nii.gz")
    assert after.shape == before.shape
    assert after.affine.tobytes() == before.affine.tobytes()
    assert nib.aff2axcodes(after.affine) == tuple(codes)
    answer = somite.load(run, device="cpu").predict(tmp_path / "scan.nii.gz", members=1)
    assert np.array_equal(np.asarray(after.dataobj), answer.mask)
