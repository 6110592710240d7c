"""DICOM series: pydicom writes, SimpleITK's own reader of series and pydicom's pixels judge."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from dicoms import head, pydicom, write_series
from somite.data.dicom import files, is_series, read_series
from somite.data.digest import digest, summary
from somite.data.itk import place
from somite.data.nifti import write_volume
from somite.data.record import Case, read, write_mask
from somite.data.sources import find, find_inputs
from somite.errors import InputError

HEAD = head()
TURN, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
TURN *= np.sign(np.linalg.det(TURN))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))


def refused(folder, *words):
    with pytest.raises(InputError) as error:
        read_series(folder)
    assert "\n" not in str(error.value)
    for word in words:
        assert str(word) in str(error.value), str(error.value)


def judged(folder):
    """SimpleITK's reader of series: (x, y, z), and where it lies."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), place(image).affine


@pytest.mark.parametrize(
    ("axes", "step"),
    [
        (((1, 0, 0), (0, 1, 0)), (0, 0, 2.5)),
        (((1, 0, 0), (0, 1, 0)), (0, 0, -2.5)),
        (CORONAL, (0, 2.5, 0)),
        ((TURN[:, 0], TURN[:, 1]), TURN[:, 2] * 2.5),
    ],
    ids=["feet first", "head first", "coronal", "oblique"],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_series_is_what_simpleitk_reads(tmp_path, axes, step, modality):
    folder = write_series(tmp_path / "s", HEAD, axes, step=step, modality=modality)
    volume = read_series(folder)
    array, affine = judged(folder)
    assert np.array_equal(volume.array[0], array)
    assert np.abs(volume.geometry.affine - affine).max() < 1e-4
    assert np.allclose(volume.geometry.spacing_mm, (1.3, 0.7, 2.5), atol=1e-5)
    assert volume.array.dtype == np.float32
    assert sorted(np.unique(volume.array)) == sorted(np.unique(HEAD))
    for index, path in enumerate(volume.geometry.source.files):  # slices of the volume and files of the source are one
        dataset = pydicom.dcmread(path)
        assert np.array_equal(dataset.pixel_array.T - 1024.0, volume.array[0, ..., index])
        corner = volume.geometry.affine @ [0, 0, index, 1] * [-1, -1, 1, 1]
        assert np.allclose(corner[:3], dataset.ImagePositionPatient, atol=1e-4)


def test_each_slice_has_its_own_rescaling(tmp_path):
    def scaled(dataset, index):
        dataset.RescaleSlope, dataset.RescaleIntercept = [1, 0.5, 2, 0.25, 1][index], [-1024, 10, 0, 3, 1][index]

    volume = read_series(write_series(tmp_path / "s", HEAD, intercept=-1024, change=scaled))
    stored = HEAD + 1024
    for index, (slope, intercept) in enumerate(zip([1, 0.5, 2, 0.25, 1], [-1024, 10, 0, 3, 1], strict=True)):
        assert np.array_equal(volume.array[0, ..., index], stored[..., index] * slope + intercept)


def test_names_and_numbers_say_nothing_of_the_order(tmp_path):
    def numbered(dataset, index):
        dataset.InstanceNumber = [3, 1, 5, 2, 4][index]

    for name, names in (("a", "1.2.840.{}".format), ("b", "IM{}".format), ("c", "{}.IMA".format)):
        folder = write_series(tmp_path / name, HEAD, change=numbered, names=names)
        (folder / "preview.png").write_bytes(b"a thumbnail")
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "notes").write_text("no DICOM")
        assert len(files(folder)) == 5
        assert np.array_equal(read_series(folder).array[0], HEAD)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless"])
def test_packed_pixels(tmp_path, syntax):
    if syntax == "JPEGLSLossless":
        pytest.importorskip("jpeg_ls")
    folder = write_series(tmp_path / "s", HEAD, change=lambda dataset, _: dataset.compress(getattr(pydicom.uid, syntax)))
    assert np.array_equal(read_series(folder).array[0], HEAD)


def test_several_series(tmp_path):
    folder = write_series(tmp_path / "s", HEAD)
    write_series(tmp_path / "t", HEAD[..., :2], modality="MR")
    for path in (tmp_path / "t").iterdir():
        shutil.copy(path, folder / f"t{path.name}")
    refused(folder, folder, "2 DICOM series", "'CT head' of 5 files", "'MR head' of 2 files", "folder of its own")


def test_missing_double_and_uneven_slices(tmp_path):
    folder = write_series(tmp_path / "a", HEAD)
    (folder / "0003.dcm").unlink()
    refused(folder, folder, "lacks 1 slice(s) between 0004.dcm and 0002.dcm", "5 mm apart where others lie 2.5 mm", "copy the series")
    folder = write_series(tmp_path / "b", HEAD)
    shutil.copy(folder / "0002.dcm", folder / "copy.dcm")
    refused(folder, "0002.dcm", "copy.dcm", "the same place", "point in time")

    def uneven(dataset, index):
        dataset.ImagePositionPatient = [0, 0, index**1.5]

    refused(write_series(tmp_path / "c", HEAD, change=uneven), tmp_path / "c", "unevenly, 1 to 2.8", "dcm2niix", "Eq")

    def twice(dataset, index):
        dataset.ImagePositionPatient = [0, 0, index // 2]

    refused(write_series(tmp_path / "d", HEAD[..., :4], change=twice), "the same place")


def test_many_slices_of_which_one_is_missing(tmp_path):
    array = np.zeros((2, 2, 24), int)
    for lost in (2, 12):  # files are numbered from the last slice
        folder = write_series(tmp_path / str(lost), array)
        (folder / f"{lost:04d}.dcm").unlink()
        refused(folder, "lacks 1 slice(s)", "5 mm apart")


def test_rounded_positions_are_an_even_stack(tmp_path):
    def rounded(dataset, index):
        dataset.ImagePositionPatient = [-31.3, 17.5, round(0.625 * index, 1)]

    volume = read_series(write_series(tmp_path / "s", head((8, 8, 9)), step=(0, 0, 0.625), change=rounded))
    assert volume.geometry.spacing_mm[2] == pytest.approx(0.625)


def test_a_tilted_gantry_is_told_with_its_angle(tmp_path):
    tilt = np.radians(12)
    refused(write_series(tmp_path / "s", HEAD, step=(0, 2.5 * np.tan(tilt), 2.5)), tmp_path / "s", "12.0 degrees", "gantry", "Tilt")


@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.99])
def test_a_file_cut_short(tmp_path, keep, capfd):
    folder = write_series(tmp_path / "s", HEAD)
    path = folder / "0002.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(folder, path, "truncated or damaged", "copy it again")
    assert capfd.readouterr().err == ""


def test_what_belongs_to_no_volume(tmp_path):
    def spoilt(name, change):
        return write_series(tmp_path / name, HEAD, change=lambda dataset, index: change(dataset) if index == 2 else None)

    def narrow(dataset):
        dataset.Rows, dataset.PixelData = 7, dataset.PixelData[: 2 * 7 * 16]

    def sagittal(dataset):
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    def colour(dataset):
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = bytes(3 * 14 * 16)

    def many(dataset):
        dataset.NumberOfFrames, dataset.PixelData = 3, 3 * dataset.PixelData

    refused(spoilt("a", narrow), "differ in their size", "localisers")
    refused(spoilt("b", sagittal), "differ in their orientation")
    refused(spoilt("c", lambda dataset: setattr(dataset, "PixelSpacing", [1, 1])), "differ in their pixel spacing")
    refused(spoilt("d", colour), "'RGB'", "MONOCHROME2")
    refused(spoilt("e", many), "3 slices in one file", "dcm2niix")
    for index, tag in enumerate(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")):
        refused(spoilt(f"f{index}", lambda dataset, tag=tag: delattr(dataset, tag)), "does not say where it lies", tag)
    folder = write_series(tmp_path / "g", HEAD)
    report = pydicom.dcmread(folder / "0001.dcm")
    del report.PixelData, report.Rows, report.Columns
    report.save_as(folder / "report.dcm")
    refused(folder, "report.dcm", "no image", "take it out")


def test_one_slice_is_as_thick_as_it_says(tmp_path):
    volume = read_series(write_series(tmp_path / "s", HEAD[..., :1]))
    assert volume.array.shape == (1, 16, 14, 1)
    assert volume.geometry.spacing_mm == pytest.approx((1.3, 0.7, 2.5))
    thin = write_series(tmp_path / "t", HEAD[..., :1], change=lambda dataset, _: delattr(dataset, "SliceThickness"))
    refused(thin, "SliceThickness")


def test_a_series_that_this_machines_memory_cannot_hold(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "s", HEAD)
    monkeypatch.setattr("somite.data.dicom.memory", lambda: HEAD.size * 12 - 1)
    refused(folder, folder, "more memory")


# ---- as cases


@pytest.fixture
def root(tmp_path):
    """Two patients' series, and masks as NIfTI whose rows run the other way, as dcm2niix leaves them."""
    for name in ("anna", "ben.1"):
        folder = write_series(tmp_path / "images" / name, HEAD)
        where = read_series(folder).geometry
        flipped = where.affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 13], [0, 0, 1, 0], [0, 0, 0, 1]])
        write_volume(tmp_path / "masks" / f"{name}.nii.gz", (HEAD > -500)[:, ::-1], type(where)(flipped, where.shape))
    return tmp_path


def test_a_data_set_of_series_and_masks(root):
    cases = find(root).all
    assert [case.id for case in cases] == ["anna", "ben.1"]
    assert is_series(root / "images/anna")
    record = read(cases[1])
    assert np.array_equal(record.labels, HEAD > -500)
    assert record.spacing == pytest.approx((1.3, 0.7, 2.5))
    assert len(record.case.files) == 5
    assert summary(cases) == {
        "cases": 2, "groups": 2, "masks": 2, "files": 12,
        "bytes": sum(path.stat().st_size for path in root.rglob("*") if path.is_file()),
    }  # fmt: skip
    before = digest(cases)
    path = root / "images/anna/0003.dcm"
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(path)
    assert digest(cases) != before


def test_a_table_names_folders(root):
    (root / "t.csv").write_text("image,mask\nimages/anna,masks/anna.nii.gz\n")
    assert np.array_equal(read(find(root / "t.csv").all[0]).labels, HEAD > -500)


def test_what_is_predicted(root, monkeypatch):
    assert [case.id for case in find_inputs([root / "images"])] == ["anna", "ben.1"]
    (case,) = find_inputs([root / "images/anna"])
    assert (case.id, case.images) == ("anna", (root / "images/anna",))
    monkeypatch.chdir(root / "images/anna")
    assert find_inputs(["."])[0].id == "anna"
    with pytest.raises(InputError, match="give the folder of its slices"):
        find_inputs([root / "images/anna/0001.dcm"])
    assert [case.id for case in find_inputs([root])] == ["images_anna", "images_ben.1"]
    (root / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no images in it.*folders of DICOM slices"):
        find_inputs([root / "empty"])


def test_a_series_is_no_mask(root):
    case = Case("a", (root / "images/anna",), root / "images/ben.1", "a")
    with pytest.raises(InputError, match=r"DICOM image, and DICOM is no mask that somite reads"):
        read(case)


def test_masks_are_written_as_nifti_on_the_same_voxels(root):
    record = read(Case("a", (root / "images/anna",), None, "a"))
    path = write_mask(root / "out", (HEAD > -500).astype(int), record)
    written = sitk.ReadImage(str(path))
    array, affine = judged(root / "images/anna")
    assert np.array_equal(sitk.GetArrayFromImage(written).transpose(), array > -500)
    assert np.abs(place(written).affine - affine).max() < 1e-4
