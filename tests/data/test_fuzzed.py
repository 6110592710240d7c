"""What broken files once did other than be refused in a sentence (`make fuzz` found them)."""

import io
import json
import zipfile

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from somite.data import images, itk, labelled, nifti, published, sources
from somite.errors import InputError


def test_a_nifti_2_file_that_ends_within_its_header(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nib.Nifti2Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()[:400])
    for read in (nifti.read_volume, nifti.read_labels, nifti.read_header):
        with pytest.raises(InputError, match="truncated or damaged"):
            read(path)


def npz(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def array(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


HEADER = b"\x93NUMPY\x01\x00\x08\x00{'a': (1"  # a header that never closes its bracket, which Python's tokenizer complains of


@pytest.mark.parametrize(
    "labels", [b"no array", HEADER, array(np.array("x")), array(np.array(["a", "b"]))], ids=["bytes", "header", "scalar", "text"]
)
def test_an_npz_with_something_else_for_labels(tmp_path, labels):
    path = npz(tmp_path / "a.npz", train_images=array(np.zeros((2, 4, 4), np.uint8)), train_labels=labels)
    with pytest.raises(InputError, match=r"a\.npz"):
        labelled.find(path)


@pytest.mark.parametrize(
    ("train", "val"),
    [((2, 0), (2, 0)), ((2, 1), (2, 2)), ((0, 1), (0, 1)), ((2, 1), (0,))],
    ids=["none", "unlike", "empty", "an empty split"],
)
def test_an_npz_whose_labels_do_not_fit_together(tmp_path, train, val):
    zeros = {name: array(np.zeros(shape, np.uint8)) for name, shape in (("train_labels", train), ("val_labels", val))}
    pictures = {f"{split}_images": array(np.zeros((shape[0], 4, 4), np.uint8)) for split, shape in (("train", train), ("val", val))}
    with pytest.raises(InputError, match=r"a\.npz"):
        labelled.find(npz(tmp_path / "a.npz", **zeros, **pictures))


@pytest.mark.parametrize("groups", [["a"], "a", 3, [["a"]]])
def test_a_list_of_splits_whose_groups_are_none(tmp_path, groups):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / part / "a.png")
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"train": ["a"], "groups": groups}))
    with pytest.raises(InputError, match="groups"):
        published.resplit(sources.find(tmp_path), str(path))


def test_an_id_that_would_break_the_line(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text('id,kind\n"b\nc",x\na,y\n')
    with pytest.raises(InputError) as told:
        labelled.find(tmp_path)
    assert "b\\nc" in str(told.value) and len(str(told.value).splitlines()) == 1


def test_a_table_with_cells_beyond_the_last_column(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("id,kind\na,x,1\nb,y\n")
    assert labelled.find(tmp_path).classes == ("x", "y")


def test_an_orientation_that_is_no_number(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    tag = b"\x12\x01\x03\x00" if exif.tobytes()[6:8] == b"II" else b"\x01\x12\x00\x03"
    assert tag in exif.tobytes()
    spoilt = exif.tobytes().replace(tag, tag.replace(b"\x03", b"\x07"))  # "undefined" bytes in place of a short
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", exif=spoilt)
    assert images.read_header(tmp_path / "a.jpg").shape == images.read_image(tmp_path / "a.jpg").shape[1:] == (3, 4)


@pytest.mark.parametrize("axes", ["77", "11", "0", "-3", "3e1", "9" * 5000], ids=["77", "11", "0", "negative", "3e1", "long"])
def test_a_metaimage_of_more_axes_than_metaio_has_room_for(tmp_path, axes):
    """MetaIO writes beyond its arrays, which ended the process."""
    path = tmp_path / "a.mha"
    rest = "BinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\nDimSize = 2 2 2\nElementType = MET_UCHAR"
    path.write_bytes(f"ObjectType = Image\nNDims = {axes}\n{rest}\nElementDataFile = LOCAL\n".encode() + bytes(8))
    for read in (itk.read_header, itk.read_volume, itk.read_labels):
        with pytest.raises(InputError, match="impossible number of axes"):
            read(path)


def test_memory_that_gives_out_after_a_file_was_read(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_opaque", full)
    for read in (images.read_image, images.read_labels):
        with pytest.raises(InputError, match="more memory"):
            read(tmp_path / "a.png")


def test_a_metaimage_without_voxels(tmp_path):
    path = tmp_path / "a.mha"
    rest = "BinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\nDimSize = 2 2 0\nElementType = MET_UCHAR"
    path.write_bytes(f"ObjectType = Image\nNDims = 3\n{rest}\nElementDataFile = LOCAL\n".encode())
    for read in (itk.read_header, itk.read_volume, itk.read_labels):
        with pytest.raises(InputError, match=r"a\.mha"):
            read(path)
