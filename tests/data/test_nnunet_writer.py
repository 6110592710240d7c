"""What is written in nnU-Net's layout reads back as it was, bit for bit, and looks from outside as nnU-Net wants it."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from somite.data.dataset import Data
from somite.data.images import write_png
from somite.data.nnunet_writer import write_raw
from somite.data.phantoms import write_phantoms
from somite.data.record import Case, read
from somite.data.sources import find
from somite.errors import InputError

SPLITS = ("train", "val", "test")


def splits(root, **options):
    data = Data(str(root), **options)
    return {name: data.cases(name) for name in SPLITS}


def same(root, out, labels=None, again=None, mask_threshold=None):
    """Every record of both, compared; returns how many."""
    theirs = {case.id: case for case in find(out).all}
    ours = find(root).all
    assert sorted(theirs) == [case.id for case in ours]
    for case in ours:
        a, b = read(case, labels, mask_threshold), read(theirs[case.id], again)
        assert a.image.dtype == b.image.dtype
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.labels, b.labels)
        assert a.labels.any()
        assert a.spacing == b.spacing
        if a.geometry is not None:
            assert np.array_equal(a.geometry.affine, b.geometry.affine)
            assert a.geometry.source["sform_code"] == b.geometry.source["sform_code"]
    return len(ours)


@pytest.mark.parametrize(("size", "channels"), [((24, 20), 3), ((24, 20), 1), ((14, 12, 10), 1), ((14, 12, 10), 2)], ids=str)
def test_records_come_back_bit_for_bit(tmp_path, size, channels):
    root = write_phantoms(tmp_path / "data", 14, size, channels)
    out = write_raw(splits(root), tmp_path / "raw")
    assert same(root, out) == 14
    before, after = splits(root), splits(out)
    assert [c.id for c in after["test"]] == [c.id for c in before["test"]]
    assert sorted(c.id for n in SPLITS[:2] for c in after[n]) == sorted(c.id for n in SPLITS[:2] for c in before[n])
    ending = ".png" if len(size) == 2 else ".nii.gz"
    content = json.loads((out / "dataset.json").read_text())
    assert content["file_ending"] == ending
    assert content["labels"] == {"background": 0, "foreground": 1}
    assert list(content["channel_names"]) == [str(index) for index in range(channels)]
    assert content["numTraining"] == len(list((out / "labelsTr").iterdir())) == len(list((out / "imagesTr").iterdir())) // channels


def test_files_are_the_channels_as_other_programs_read_them(tmp_path):
    root = write_phantoms(tmp_path / "data", 14, (24, 20), 3)
    out = write_raw(splits(root), tmp_path / "raw")
    for path in sorted((out / "imagesTr").glob("*_0001.png")):
        name = path.name.removesuffix("_0001.png")
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(root / "images" / f"{name}.png"))[..., 1])
        mask = np.asarray(Image.open(out / "labelsTr" / f"{name}.png"))
        assert np.array_equal(mask, np.asarray(Image.open(root / "masks" / f"{name}.png")) // 255)
    root = write_phantoms(tmp_path / "volumes", 14, (14, 12, 10), 2)
    out = write_raw(splits(root), tmp_path / "rawv", channels=["CT", "PET"])
    for path in sorted((out / "imagesTr").glob("*_0001.nii.gz")):
        stored, origin = nib.load(path), nib.load(root / "images" / path.name.replace("_0001", ""))
        assert np.array_equal(stored.get_fdata(), origin.get_fdata()[..., 1])
        assert np.array_equal(stored.affine, origin.affine)
    assert json.loads((out / "dataset.json").read_text())["channel_names"] == {"0": "CT", "1": "PET"}


def test_folds_are_a_partition_by_patient(tmp_path):
    root = write_phantoms(tmp_path / "data", 20, (16, 16), 1)
    found = splits(root)
    listed = json.loads((write_raw(found, tmp_path / "raw") / "splits_final.json").read_text())
    group = {case.id: case.group for case in (*found["train"], *found["val"])}
    assert sorted(i for fold in listed for i in fold["val"]) == sorted(group)
    for fold in listed:
        assert {group[i] for i in fold["train"]}.isdisjoint(group[i] for i in fold["val"])
        assert set(fold["train"]) | set(fold["val"]) == set(group)


def test_labels_are_renumbered_and_sixteen_bits_kept(tmp_path):
    random = np.random.default_rng(0)
    root = tmp_path / "data"
    for index in range(10):
        write_png(root / "images" / f"a_{index:04d}.png", random.integers(0, 65536, (12, 14), dtype=np.uint16))
        write_png(root / "masks" / f"a_{index:04d}.png", random.choice(np.array([0, 63, 255], np.uint8), (12, 14)))
    out = write_raw(splits(root, labels=[0, 63, 255]), tmp_path / "raw", labels=[0, 63, 255])
    assert same(root, out, [0, 63, 255], [0, 1, 2]) == 10
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "label 63": 1, "label 255": 2}


def test_thresholded_masks_become_clean(tmp_path):
    root, random = tmp_path / "data", np.random.default_rng(0)
    for index in range(10):
        write_png(root / "images" / f"{index}.png", random.integers(0, 256, (12, 14, 3), dtype=np.uint8))
        write_png(root / "masks" / f"{index}.png", random.integers(0, 256, (12, 14), dtype=np.uint8))
    out = write_raw(splits(root, mask_threshold=128), tmp_path / "raw", mask_threshold=128)
    assert same(root, out, mask_threshold=128) == 10


def test_what_cannot_be_written_is_refused(tmp_path):
    root = write_phantoms(tmp_path / "data", 14, (16, 16), 1)
    found = splits(root)
    with pytest.raises(InputError, match="not empty"):
        write_raw(found, root)
    with pytest.raises(InputError, match="no training cases"):
        write_raw({"test": found["test"]}, tmp_path / "a")
    with pytest.raises(InputError, match="1 channels"):
        write_raw(found, tmp_path / "b", channels=["R", "G"])
    with pytest.raises(InputError, match="no mask"):
        write_raw({**found, "test": [Case("x", found["test"][0].images, None, "x")]}, tmp_path / "c")
    Image.fromarray(np.random.default_rng(0).random((16, 16), dtype=np.float32)).save(tmp_path / "f.tif")
    odd = Case("f", (tmp_path / "f.tif",), found["test"][0].mask, "f")
    with pytest.raises(InputError, match="floating-point"):
        write_raw({**found, "test": [odd]}, tmp_path / "d")
    colour = write_phantoms(tmp_path / "colour", 14, (16, 16), 3)
    with pytest.raises(InputError, match="all cases alike"):
        write_raw({**found, "test": find(colour).split("test")}, tmp_path / "e")
