"""A case on disk, a record in memory and back: every rule of masks, every disagreement of files."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from somite.data.record import Case, mask_values, read, stem, write_map, write_mask
from somite.errors import InputError

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
AFFINE = np.array([[0, -1.5, 0, 3], [0.7, 0, 0, -2], [0, 0.1, 4, 8], [0, 0, 0, 1.0]])


def png(path: Path, array) -> Path:
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def volume(path: Path, array, affine=AFFINE) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(array), affine), path)
    return path


def flat(tmp_path: Path, mask) -> Case:
    return Case("a", (png(tmp_path / "a.png", GREY),), png(tmp_path / "m.png", mask), "p")


def solid(tmp_path: Path, mask, affine=AFFINE) -> Case:
    image = volume(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.float32))
    return Case("a", (image,), volume(tmp_path / "m.nii.gz", np.asarray(mask, np.uint8), affine), "p")


def refused(words: list[str], case: Case, *rules) -> None:
    with pytest.raises(InputError) as error:
        read(case, *rules)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_names():
    assert [stem(Path(name)) for name in ("a.nii.gz", "a.b.NII", "a.b.PNG", "a.txt")] == ["a", "a.b", "a.b", "a.txt"]


@pytest.mark.parametrize("value", [1, 7, 255])
def test_binary_masks(tmp_path, value):
    record = read(flat(tmp_path, (GREY > 9) * value))
    assert np.array_equal(record.labels, GREY > 9)
    assert record.labels.dtype == np.uint8
    assert (record.shape, record.image.shape, record.spacing, record.geometry) == ((4, 5), (1, 4, 5), None, None)
    assert (record.group, record.values) == ("p", None)


@pytest.mark.parametrize(("values", "found"), [([0], 0), ([1], 1), ([255], 1)])
def test_masks_of_one_value(tmp_path, values, found):
    assert np.array_equal(read(flat(tmp_path, np.full((4, 5), values[0]))).labels, np.full((4, 5), found))


@pytest.mark.parametrize("values", [[0, 1, 255], [0, 1, 2], [1, 2], [7], [0, 254, 255]])
def test_masks_of_more_values_are_no_binary_masks(tmp_path, values):
    case = flat(tmp_path, np.resize(values, (4, 5)))
    classes = ",".join(map(str, sorted({0, *values})))
    words = [", ".join(map(str, values)), "m.png", f"--data.labels [{classes}]", "clean", "mask_threshold"]
    refused(words, case)
    assert mask_values(case) == tuple(values)


def test_many_values_are_abridged(tmp_path):
    refused(["0, 1, 2, 3, 4, 5, 6, 7 ... (20 values)"], flat(tmp_path, GREY))


def test_threshold(tmp_path):
    assert np.array_equal(read(flat(tmp_path, GREY * 12), None, 128).labels, GREY * 12 >= 128)
    refused(["exclude"], flat(tmp_path, GREY), [0, 1], 128)


def test_classes_map_to_their_index(tmp_path):
    mask = np.resize([0, 4, 2], (4, 5))
    record = read(flat(tmp_path, mask), [0, 2, 4])
    assert np.array_equal(record.labels, np.resize([0, 2, 1], (4, 5)))
    assert record.values == (0, 2, 4)
    refused(["values 4 ", "[0, 2]", "m.png"], flat(tmp_path, mask), [0, 2])


@pytest.mark.parametrize("labels", [[0], [0, 1, 1], [-1, 0], list(range(300))])
def test_nonsensical_labels(tmp_path, labels):
    refused(["--data.labels"], flat(tmp_path, GREY), labels)


def test_without_a_mask(tmp_path):
    case = Case("a", (png(tmp_path / "a.png", GREY),), None, "a")
    assert read(case).labels is None
    assert mask_values(case) == ()


def test_sizes_disagree(tmp_path):
    refused(["m.png is 4 x 4", "a.png is 4 x 5", "resample"], flat(tmp_path, GREY[:, :4]))
    refused(["m.nii.gz is 3 x 4 x 4", "3 x 4 x 5"], solid(tmp_path, np.zeros((3, 4, 4))))
    case = Case("a", (png(tmp_path / "0.png", GREY), png(tmp_path / "1.png", GREY[1:])), None, "a")
    refused(["1.png is 3 x 5", "0.png is 4 x 5"], case)


def test_places_disagree(tmp_path):
    mask = np.zeros((3, 4, 5))
    for row, offset in ((0, 0.01), (1, 2.0)):
        moved = AFFINE.copy()
        moved[row, 3] += offset
        refused(["m.nii.gz", "a.nii.gz", "different places", "affines"], solid(tmp_path, mask, moved))
    close = AFFINE.copy()
    close[0, 3] += 5e-4
    assert read(solid(tmp_path, mask, close)).labels.shape == (3, 4, 5)
    zeros = np.zeros((3, 4, 5), np.float32)
    second = volume(tmp_path / "b.nii.gz", zeros, np.eye(4))
    refused(["b.nii.gz", "different places"], Case("a", (volume(tmp_path / "a.nii.gz", zeros), second), None, "a"))


def test_kinds_disagree(tmp_path):
    image = volume(tmp_path / "a.nii", np.zeros((4, 5, 1), np.float32))
    refused(["m.png", "one is a volume and one a flat image"], Case("a", (image,), png(tmp_path / "m.png", GREY), "a"))
    (tmp_path / "a.dcm").write_bytes(b"x")
    refused(["a.dcm", "give the folder of its slices"], Case("a", (tmp_path / "a.dcm",), None, "a"))
    refused(["b.dcm does not exist"], Case("a", (tmp_path / "b.dcm",), None, "a"))


def test_channels_are_joined(tmp_path):
    files = tuple(volume(tmp_path / f"{i}.nii.gz", np.full((3, 4, 5), i, np.float32)) for i in range(3))
    record = read(Case("a", files, None, "a"))
    assert record.image.shape == (3, 3, 4, 5)
    assert record.image[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert np.allclose(record.spacing, np.linalg.norm(AFFINE[:3, :3], axis=0))


def test_masks_come_back_in_their_own_values(tmp_path):
    rng = np.random.default_rng(0)
    for make, size, white in ((flat, (4, 5), 255), (solid, (3, 4, 5), 1)):
        for labels, values in ((None, [0, white]), ([0, 2, 4], [0, 2, 4])):
            mask = rng.choice(values, size=size)
            record = read(make(tmp_path, mask), labels)
            path = write_mask(tmp_path / "out.v1", record.labels, record)
            assert path.name == ("out.v1.png" if white == 255 else "out.v1.nii.gz")
            found = np.asarray(Image.open(path)) if white == 255 else np.asarray(nib.load(path).dataobj)
            assert found.dtype == np.uint8
            assert np.array_equal(found, mask)
            if white == 1:
                assert nib.load(path).affine.tobytes() == nib.load(record.case.images[0]).affine.tobytes()


def test_values_beyond_a_byte(tmp_path):
    for make, where in ((flat, "out.png"), (solid, "out.nii.gz")):
        record = read(make(tmp_path, np.zeros((4, 5) if make is flat else (3, 4, 5))), [0, 1000])
        write_mask(tmp_path / "out", np.ones(record.shape, int), record)
        path = tmp_path / where
        found = np.asarray(Image.open(path)) if make is flat else np.asarray(nib.load(path).dataobj)
        assert found.dtype == np.uint16
        assert (found == 1000).all()


def test_maps(tmp_path):
    for make, size in ((flat, (4, 5)), (solid, (3, 4, 5))):
        record = read(make(tmp_path, np.zeros(size)))
        values = np.random.default_rng(0).random(size).astype(np.float32)
        path = write_map(tmp_path / "p", values, record)
        if make is flat:
            found = np.asarray(Image.open(path))
            assert found.dtype == np.uint16
            assert np.abs(found / 65535 - values).max() <= 0.5 / 65535 + 1e-7
            for wrong in (values + 1, values * np.nan):
                with pytest.raises(ValueError, match=r"\[0, 1\]"):
                    write_map(tmp_path / "p", wrong, record)
        else:
            assert np.array_equal(nib.load(path).get_fdata(dtype=np.float32), values)
            assert nib.load(path).header.get_data_dtype() == np.float32


def test_programming_errors_of_writing(tmp_path):
    record = read(flat(tmp_path, np.zeros((4, 5))))
    with pytest.raises(ValueError, match="has shape"):
        write_mask(tmp_path / "x", np.zeros((3, 3), int), record)
    with pytest.raises(ValueError, match="2 labels"):
        write_mask(tmp_path / "x", np.full((4, 5), 2), record)


@pytest.mark.parametrize("suffix", [".png", ".nii.gz"])
def test_some_values_of_many_can_be_the_foreground(tmp_path, suffix):
    labels = np.arange(14, dtype=np.uint8).reshape(2, 7)
    mask = labels if suffix == ".png" else labels[..., None]
    for name, array in (("i", mask), ("m", mask)):
        if suffix == ".png":
            png(tmp_path / f"{name}.png", array)
        else:
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    case = Case("a", (tmp_path / f"i{suffix}",), tmp_path / f"m{suffix}", "a")
    organs = [1, 2, 3, 4, 6, 7, 8, 11]
    assert np.flatnonzero(read(case, foreground=organs).truth).tolist() == organs
    assert not read(case, foreground=[99]).truth.any()
    with pytest.raises(InputError, match="labels and foreground exclude each other"):
        read(case, labels=[0, 1], foreground=[1])
    with pytest.raises(InputError, match="names no value"):
        read(case, foreground=[])
