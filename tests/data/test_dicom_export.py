"""What a PACS gives: pydicom writes exports and knows the classes of objects."""

import shutil
from pathlib import Path

import pytest

from dicoms import head, pydicom, write_series
from somite.cli import main
from somite.data.dicom import read_series
from somite.data.dicom_class import kind_of
from somite.data.sources import find, find_inputs
from somite.errors import InputError

from pydicom.dataset import Dataset, FileMetaDataset  # isort: skip
from pydicom.fileset import FileSet  # isort: skip
from pydicom.uid import UID_dictionary, ExplicitVRLittleEndian, generate_uid  # isort: skip

HEAD = head((8, 6, 4))
SR, SEG, RTSTRUCT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("88.11", "66.4", "481.3"))


def scout(dataset, _):
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def colour(dataset, _):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(3 * 8 * 6)


def dose_sheet(dataset, _):
    dataset.Modality = "DOC"
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient


def write_object(path, sop_class):
    """A DICOM file without an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = sop_class, generate_uid(entropy_srcs=[str(path)])
    made.StudyInstanceUID = made.SeriesInstanceUID = made.SOPInstanceUID
    made.PatientID, made.Modality = "P1", "SR"
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def export(tmp_path):
    """Two patients, whose series have the same folder names; a scout, a report and a screenshot among them."""
    root = tmp_path / "export"
    study = root / "Müller, Jürgen/CT Körper 08.12.2022"
    write_series(study / "1 Topogramm", HEAD[..., :1], change=scout, names="IM{:06d}".format)
    write_series(study / "2 thin", HEAD, names="IM{:06d}".format)
    write_series(study / "3 thick", HEAD[..., ::2], step=(0, 0, 5), names="IM{:06d}".format)
    write_series(study / "9 picture", HEAD[..., :1], change=colour, names="IM{:06d}".format)
    write_series(study / "99 dose", HEAD[..., :1], change=dose_sheet, names="IM{:06d}".format)
    write_object(study / "5 report/IM000001", SR)
    write_series(root / "Özdemir, Ayşe/MR/2 thin", HEAD, modality="MR", names="IM{:06d}".format)
    (root / "README.TXT").write_text("made by a PACS")
    return root


def test_scans_are_found_however_deep_and_what_is_none_is_told(export):
    told = []
    cases = find_inputs([export], hear=told.append)
    assert [case.id for case in cases] == [
        "Müller, Jürgen_CT Körper 08.12.2022_2 thin",
        "Müller, Jürgen_CT Körper 08.12.2022_3 thick",
        "Özdemir, Ayşe_MR_2 thin",
    ]
    (line,) = told
    for part in (
        "1 Topogramm (a localiser)",
        "5 report (a structured report (SR))",
        "9 picture (a picture in colour (RGB))",
        "99 dose (a picture without a place in space (DOC))",
    ):
        assert part in line
    for given, count in (
        (export / "Müller, Jürgen", 2),
        (export / "Müller, Jürgen/CT Körper 08.12.2022", 2),
        (export / "Özdemir, Ayşe", 1),
    ):
        assert len(find_inputs([given])) == count


def test_a_dicomdir_stands_for_its_folder(export, tmp_path):
    index = FileSet()
    for path in sorted(export.rglob("IM*")):
        dataset = pydicom.dcmread(path)
        if dataset.Modality in ("CT", "MR") and dataset.get("ImageType") is None and dataset.PhotometricInterpretation != "RGB":
            dataset.StudyID, dataset.PatientID = "1", path.relative_to(export).parts[0][:1].upper()
            index.add(dataset)
    index.write(tmp_path / "cd")
    series = {one.SeriesInstanceUID: one.path for one in FileSet(tmp_path / "cd/DICOMDIR")}
    cases = find_inputs([tmp_path / "cd/DICOMDIR"])
    assert {case.images[0] for case in cases} == {Path(path).parent for path in series.values()}
    assert len(cases) == 3


def test_two_patients_series_of_one_name_want_the_folder_above(export):
    thin = [export / "Müller, Jürgen/CT Körper 08.12.2022/2 thin", export / "Özdemir, Ayşe/MR/2 thin"]
    with pytest.raises(InputError, match=r"the same name.*the folder above both"):
        find_inputs(thin)


def test_names_stay_short_enough_for_files_and_apart(tmp_path):
    for last in ("a", "b"):
        write_series(tmp_path.joinpath("x", *["ä" * 40] * 3, last, "s"), HEAD)
    names = [case.id for case in find_inputs([tmp_path / "x"])]
    assert len(set(names)) == 2
    assert max(len(f"{name}_dicom-fractional.dcm".encode()) for name in names) <= 255


def test_paths_that_read_the_same_are_two_cases(tmp_path):
    paths = {tmp_path / "x" / "a_b" / "c", tmp_path / "x" / "a" / "b_c"}
    for path in paths:
        write_series(path, HEAD)
    cases = find_inputs([tmp_path / "x"])
    assert {case.images[0] for case in cases} == paths
    assert len({case.id for case in cases}) == 2
    assert all(case.id.endswith("_a_b_c") for case in cases)


def test_links_and_other_images_in_an_export_are_told(export, tmp_path):
    write_series(tmp_path / "elsewhere", HEAD)
    (export / "Özdemir, Ayşe/linked").symlink_to(tmp_path / "elsewhere")
    (export / "circle").symlink_to(export)
    for name in ("head.nii.gz", "photo.JPG"):
        (export / "Özdemir, Ayşe" / name).write_bytes(b"not looked at")
    told = []
    assert len(find_inputs([export], hear=told.append)) == 3
    assert "Özdemir, Ayşe/linked (a link to a folder: name what it leads to)" in told[0]
    assert "circle (a link" in told[0]
    assert "head.nii.gz (no DICOM, and 1 more: name the folder)" in told[0]


def test_a_localiser_gets_no_mask(export):
    with pytest.raises(InputError, match=r"Topogramm is a localiser .* give the folder of a series"):
        read_series(export / "Müller, Jürgen/CT Körper 08.12.2022/1 Topogramm")


def test_a_flat_export_is_told_by_its_series_not_by_its_report(export, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted((export / "Müller, Jürgen").rglob("IM*"))):
        shutil.copy(path, flat / f"{9 - index:02d}.dcm")
    with pytest.raises(InputError, match=r"flat holds 3 DICOM series \(.*; and 3 more files\): move"):
        read_series(flat)
    (case,) = find_inputs([flat])  # not left out as a report, though one lies in it
    assert case.id == "flat"


def test_a_slice_without_ending_names_its_folder(export):
    path = export / "Özdemir, Ayşe/MR/2 thin"
    with pytest.raises(InputError, match=r"IM000001 is a DICOM file.* give the folder of its slices, .*2 thin$"):
        find_inputs([path / "IM000001"])


def test_what_is_no_image_is_called_by_its_class(export, tmp_path):
    words = {"SR Storage": "report", "Presentation State Storage": "presentation", "Segmentation Storage": "", "Image Storage": ""}
    told = {SEG: "DICOM-SEG", RTSTRUCT: "RTSTRUCT"}
    path = tmp_path / "one"
    checked = 0
    for uid, (name, kind, *_) in UID_dictionary.items():
        end = next((end for end in words if name.endswith(end)), None)
        if kind == "SOP Class" and uid.startswith("1.2.840.10008.5.1.4.1.1.") and (end or uid in told):
            write_object(path, uid)
            wanted = told.get(uid) or words[end]
            assert (wanted in kind_of(path)) if wanted else kind_of(path) == "" or "SEG" in kind_of(path), name
            checked += 1
    assert checked > 50
    (tmp_path / "text").write_text("no DICOM")
    assert kind_of(tmp_path / "text") == ""


# ---- as data to train on


@pytest.mark.parametrize("sop_class", [SEG, RTSTRUCT], ids=["seg", "rtstruct"])
def test_masks_in_dicom_are_refused_by_what_they_are(tmp_path, sop_class, capsys):
    write_series(tmp_path / "images/anna", HEAD)
    path = write_object(tmp_path / "masks/anna.dcm", sop_class)
    word = "DICOM-SEG" if sop_class == SEG else "RTSTRUCT"
    with pytest.raises(InputError, match=rf"anna.dcm is .*\({word}\).* no mask that somite reads: save the mask as a volume"):
        find(tmp_path)
    assert main(["doctor", str(tmp_path)]) == 1
    assert f"({word})" in " ".join(capsys.readouterr().out.split())
    path.rename(tmp_path / "one.dcm")
    (tmp_path / "masks/anna").mkdir()
    (tmp_path / "one.dcm").rename(tmp_path / "masks/anna/IM000001")
    assert main(["doctor", str(tmp_path)]) == 1
    assert f"({word})" in " ".join(capsys.readouterr().out.split())


def test_an_export_is_no_data_set_and_says_what_would_be(export):
    with pytest.raises(InputError, match=r"holds DICOM without masks: somite predict takes it as it is.*export/images/CASE"):
        find(export)
    shutil.move(export, export.with_name("images"))
    (export.parent / "masks").mkdir()
    with pytest.raises(InputError, match=r"holds DICOM too deep, in Müller, Jürgen.*images/CASE"):
        find(export.parent)
