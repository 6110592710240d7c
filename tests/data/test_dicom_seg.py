"""DICOM-SEG: highdicom and pydicom read back what was written; SimpleITK's reader of the series says where the voxels are."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import somite
from dicoms import head, pydicom, write_series
from runs import tiny
from somite.cli import main
from somite.data.dicom import read_series
from somite.data.dicom_seg import write_segmentation
from somite.data.geometry import Geometry
from somite.data.itk import place
from somite.data.nifti import write_volume
from somite.errors import InputError

hd = pytest.importorskip("highdicom")

HEAD = head()
MASK = np.zeros(HEAD.shape, int)
MASK[2:9, 3:8, 1:4] = 1
MASK[5:12, 6:11, 2:4] = 2
PROBABILITY = np.random.default_rng(0).random((2, *HEAD.shape)).astype(np.float32) * 0.5
TURN, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
TURN *= np.sign(np.linalg.det(TURN))
STACKS = {
    "axial": {},
    "downwards": {"step": (0, 0, -2.5)},
    "oblique": {"axes": (TURN[:, 0], TURN[:, 1]), "step": TURN[:, 2] * 2.5},
}
NAMES = ["label 3", "label 200"]


def by_source(found, folder, **options) -> np.ndarray:
    """(x, y, z[, segments]) as the object refers to the files, in the order in which SimpleITK's reader of series puts them."""
    ordered = sitk.ImageSeriesReader().GetGDCMSeriesFileNames(str(folder))
    ids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in ordered]
    pixels = found.get_pixels_by_source_instance(ids, assert_missing_frames_are_empty=True, **options)
    return pixels.swapaxes(0, 2)


def where_voxels_lie(found) -> dict[tuple[float, ...], np.ndarray]:
    """The place of the first pixel of each frame, and its pixels, as plain pydicom reads them."""
    positions = [tuple(map(float, f.PlanePositionSequence[0].ImagePositionPatient)) for f in found.PerFrameFunctionalGroupsSequence]
    return dict(zip(positions, np.atleast_3d(found.pixel_array).reshape(-1, found.Rows, found.Columns), strict=True))


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_what_is_read_back_is_what_was_written_on_the_same_voxels(tmp_path, stack, kind):
    folder = write_series(tmp_path / "s", HEAD, **STACKS[stack])
    segments = PROBABILITY if kind == "FRACTIONAL" else MASK
    volume = read_series(folder)
    write_segmentation(tmp_path / "o.dcm", segments, NAMES, volume.geometry, kind)
    found = hd.seg.segread(tmp_path / "o.dcm")
    assert found.SegmentationType == kind
    assert [part.SegmentLabel for part in found.SegmentSequence if part.SegmentNumber] == NAMES
    if kind == "FRACTIONAL":
        assert found.SegmentationFractionalType == "PROBABILITY"
        assert np.abs(np.moveaxis(by_source(found, folder), -1, 0) - PROBABILITY).max() <= 0.5 / 255 + 1e-6
    else:
        assert np.array_equal(by_source(found, folder, combine_segments=True), MASK)
    # Where highdicom puts a voxel is where SimpleITK puts that of the scan.
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    scan = reader.Execute()
    back = found.get_volume(combine_segments=kind != "FRACTIONAL")
    values = back.array > 0 if kind != "FRACTIONAL" else back.array.max(-1) > 0.01
    for index in np.argwhere(values)[:: max(1, int(values.sum()) // 20)]:
        x, y, z = scan.TransformPhysicalPointToIndex((back.affine @ [*index, 1])[:3].tolist())
        assert MASK[x, y, z] if kind != "FRACTIONAL" else PROBABILITY[:, x, y, z].max() > 0.005, index
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [*map(float, measures.PixelSpacing), float(measures.SpacingBetweenSlices)] == pytest.approx([0.7, 1.3, 2.5], abs=1e-4)


def test_it_refers_to_its_series_and_patient(tmp_path):
    folder = write_series(tmp_path / "s", HEAD)
    write_segmentation(tmp_path / "o.dcm", MASK, NAMES, read_series(folder).geometry)
    found, source = pydicom.dcmread(tmp_path / "o.dcm"), pydicom.dcmread(folder / "0001.dcm")
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDate"):
        assert found[name].value == source[name].value, name
    assert found.Modality == "SEG"
    (reference,) = found.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == source.SeriesInstanceUID
    every = {pydicom.dcmread(path).SOPInstanceUID for path in folder.iterdir()}
    assert {one.ReferencedSOPInstanceUID for one in reference.ReferencedInstanceSequence} == every
    assert {found.SOPInstanceUID, found.SeriesInstanceUID}.isdisjoint({*every, source.SeriesInstanceUID})


def test_ids_follow_from_the_answer(tmp_path):
    where = read_series(write_series(tmp_path / "s", HEAD)).geometry
    answers = {"a": (MASK, "BINARY"), "b": (MASK, "BINARY"), "c": (MASK > 0, "BINARY"), "d": (MASK, "LABELMAP")}
    ids = {}
    for name, (mask, kind) in answers.items():
        write_segmentation(tmp_path / name, mask.astype(int), NAMES, where, kind)
        ids[name] = pydicom.dcmread(tmp_path / name).SOPInstanceUID
    assert ids["a"] == ids["b"]
    assert len(set(ids.values())) == 3
    assert all(one.is_valid for one in ids.values())


def test_a_mask_without_any_foreground(tmp_path):
    folder = write_series(tmp_path / "s", HEAD)
    for kind in ("BINARY", "LABELMAP"):
        write_segmentation(tmp_path / "o.dcm", 0 * MASK, NAMES, read_series(folder).geometry, kind)
        assert not by_source(hd.seg.segread(tmp_path / "o.dcm"), folder, combine_segments=True).any()


def test_a_series_whose_ids_were_blanked(tmp_path):
    """As ct_totalseg_example, in which an anonymiser left no id but the frame of reference."""

    def blanked(dataset, index):
        for name in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName"):
            dataset[name].value = ""

    folder = write_series(tmp_path / "s", HEAD)
    for path in folder.iterdir():  # after writing: pydicom writes no file without ids
        dataset = pydicom.dcmread(path)
        blanked(dataset, 0)
        dataset.save_as(path)
    where = read_series(folder).geometry
    write_segmentation(tmp_path / "o.dcm", MASK, NAMES, where)
    found = hd.seg.segread(tmp_path / "o.dcm")
    assert np.array_equal(found.get_volume(combine_segments=True).array.transpose(2, 1, 0)[..., ::-1], MASK[..., 1:4])  # from the head down
    assert found.StudyInstanceUID.is_valid
    assert found.FrameOfReferenceUID == pydicom.dcmread(path).FrameOfReferenceUID


def test_what_an_anonymiser_took_out_is_left_empty(tmp_path):
    names = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")

    def bared(dataset, index):
        for name in (*names, "SliceThickness", "ReferringPhysicianName"):
            delattr(dataset, name)

    folder = write_series(tmp_path / "s", HEAD, change=bared)
    write_segmentation(tmp_path / "o.dcm", MASK, NAMES, read_series(folder).geometry)
    found = hd.seg.segread(tmp_path / "o.dcm")
    assert np.array_equal(by_source(found, folder, combine_segments=True), MASK)
    assert not any(found[name].value for name in names)
    assert float(found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == pytest.approx(2.5)


def test_what_highdicom_cannot_repeat_is_said(tmp_path):
    def spoilt(dataset, index):
        dataset.StudyInstanceUID = pydicom.uid.generate_uid()

    folder = write_series(tmp_path / "s", HEAD, change=spoilt)
    where = read_series(folder).geometry
    with pytest.raises(InputError, match=f"{folder} says things that a DICOM-SEG cannot repeat"):
        write_segmentation(tmp_path / "o.dcm", MASK, NAMES, where)
    assert not (tmp_path / "o.dcm").exists()
    for odd, place_ in ((MASK[1:], where), (MASK, Geometry(where.affine, where.shape))):
        with pytest.raises(ValueError, match="segments of"):
            write_segmentation(tmp_path / "o.dcm", odd, NAMES, place_)


# ---- through the commands


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("scans")
    for index, name in enumerate(("anna", "ben", "carl")):
        array = head((16, 16, 3), index)
        folder = write_series(root / "images" / name, array)
        write_volume(root / "masks" / f"{name}.nii.gz", array > -500, read_series(folder).geometry)
    (root / "splits.json").write_text('{"train": ["anna"], "val": ["ben"], "test": ["carl"]}')
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    options = (
        "--data.preprocess.channels=1",
        "--method.network.image_channels=1",
        "--data.preprocess.normalise=somite.data.normalise.ZScore",
    )
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2", *options)


def test_a_series_goes_in_and_a_segmentation_comes_out(root, run, tmp_path):
    folder, out = root / "images/anna", tmp_path / "out"
    line = [
        "predict",
        str(run),
        str(folder),
        "--out",
        str(out),
        "--members",
        "2",
        "--save",
        "mask,dicom-seg,dicom-fractional,dicom-labelmap",
    ]
    assert main(line) == 0
    names = {path.name for path in out.iterdir()}
    assert {"anna_mask.nii.gz", "anna_dicom-seg.dcm", "anna_dicom-fractional.dcm", "anna_dicom-labelmap.dcm"} <= names
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "anna_mask.nii.gz"))).transpose()
    answer = somite.load(run, device="cpu").predict(folder, members=2)
    assert np.array_equal(mask, answer.mask)
    for kind in ("dicom-seg", "dicom-labelmap"):
        assert np.array_equal(by_source(hd.seg.segread(out / f"anna_{kind}.dcm"), folder, combine_segments=True), mask)
    probability = by_source(hd.seg.segread(out / "anna_dicom-fractional.dcm"), folder)[..., 0]
    assert np.abs(probability - answer.probability[0]).max() <= 0.5 / 255 + 1e-6
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main(line) == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_the_same_scan_as_nifti_nrrd_and_mha_gives_the_same_mask(root, run, tmp_path):
    folder = root / "images/ben"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image, opened = reader.Execute(), somite.load(run, device="cpu")
    expected = opened.predict(folder, members=2)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"ben{suffix}"))
        found = opened.predict(tmp_path / f"ben{suffix}", members=2)
        assert np.array_equal(found.probability, expected.probability), suffix
        assert np.abs(found.record.geometry.affine - place(image).affine).max() < 1e-5


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-fractional", "dicom-labelmap"])
def test_a_segmentation_of_what_is_no_series_is_refused_before_anything_is_done(root, run, tmp_path, kind, capsys):
    scan = root / "masks/anna.nii.gz"
    line = ["predict", run, root / "images/ben", scan, "--out", tmp_path / "out", "--save", f"mask,{kind}"]
    assert main(list(map(str, line))) == 2
    told = capsys.readouterr().err
    assert f"--save {kind}: {scan} is no folder of a DICOM series" in told
    assert len(told.splitlines()) == 1
    assert not Path(tmp_path / "out").exists()
