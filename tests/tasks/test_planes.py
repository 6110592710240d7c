"""How volumes look: a box of which the sides are known lies where it should in each plane, whatever the file's order of axes."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from somite.data.geometry import Geometry, Series
from somite.data.record import Case, Record
from somite.predict.ensemble import Result
from somite.tasks.segmentation import brightness as shades
from somite.tasks.segmentation.pictures import CLASSES, CONTOUR, pictures
from somite.tasks.segmentation.planes import most, planes, round_length, sliced

SPACING = (1.0, 2.0, 4.0)  # mm, along x (to the right), y (to the front), z (to the head)
SHAPE = (40, 30, 10)  # 40 x 60 x 40 mm
BOX = (slice(30, 36), slice(20, 26), slice(6, 8))  # right, in front and above
ROWS = [[{"case": "a", "label": 1, "dice": 1.0, "tercile": "small"}]]
CODES = ["RAS", "LPS", "LPI", "PIR", "SLA", "ASR"]


def record(codes="RAS", image=None, box=BOX, spacing=SPACING, turn=0.0, source=None):
    """A volume with a box, its axes in the order of `codes`, the patient turned by some degrees about the axis through the head."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[box] = 1
    image = truth + 0.5 if image is None else image
    affine, angle = np.diag([*spacing, 1.0]), np.radians(turn)
    affine[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ affine[:2, :2]
    order = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))
    truth, image = (nib.Nifti1Image(array, affine).as_reoriented(order) for array in (truth, image.astype(np.float32)))
    where = Geometry(image.affine, image.shape, source)
    labels = np.asarray(truth.dataobj).astype(np.uint8)
    return Record(Case("a", (), None, "a"), "a", np.asarray(image.dataobj)[None], labels, None, where.spacing_mm, where)


def result(of, probability=None, count=1):
    truth = of.truth.astype(np.float32)
    p = truth if probability is None else probability
    return Result(of, (p >= 0.5).astype(np.uint8), p[None], 0.25 * truth[None], None, count)


@pytest.mark.parametrize("turn", [0, 20])
@pytest.mark.parametrize("codes", CODES)
def test_a_box_lies_where_radiologists_look_for_it(codes, turn):
    """Right of the patient at the left of the picture, the front at the top or the left, the head at the top."""
    of = record(codes, turn=turn)
    axial, coronal, sagittal = planes(of, of.truth > 0)
    assert [(p.name, p.left, p.depth) for p in (axial, coronal, sagittal)] == [
        ("axial", "R", 10),
        ("coronal", "R", 30),
        ("sagittal", "A", 40),
    ]
    right, front, head = slice(40 - 36, 40 - 30), slice(30 - 26, 30 - 20), slice(10 - 8, 10 - 6)
    for plane, shape, rows, columns in (
        (axial, (30, 40), front, right),
        (coronal, (10, 40), head, right),
        (sagittal, (10, 30), head, front),
    ):
        expected = np.zeros(shape, bool)
        expected[rows, columns] = True
        assert np.array_equal(plane(of.truth) > 0, expected), plane.name


@pytest.mark.parametrize("codes", CODES)
def test_a_millimetre_is_as_long_in_every_direction_and_plane(codes):
    """40 x 60 x 40 mm: the longest side gets 256 pixels."""
    of = record(codes)
    scale = 256 / 60
    axial, coronal, sagittal = planes(of, of.truth > 0)
    assert axial.size == (round(40 * scale), 256)
    assert coronal.size == (round(40 * scale), round(40 * scale))
    assert sagittal.size == (256, round(40 * scale))
    assert {plane.canvas[0] for plane in (axial, coronal, sagittal)} == {256}  # the page draws all as wide
    assert axial.bar == (10, round(10 * scale))


def test_the_pictures_show_the_box_at_its_size_in_mm():
    """6 x 12 x 8 mm, from the class map and from the outline in the image."""
    of = record()
    made, scale = pictures([result(of)], ROWS), 256 / 60
    assert made.columns == 4
    assert [panel.name for panel in made.panels[0]] == [
        f"{plane}: {what}"
        for plane in ("axial", "coronal", "sagittal")
        for what in ("image, truth outlined", "truth", "mask", "probability")
    ]
    assert {panel.image.width for panel in made.panels[0]} == {256}
    for at, (wide, high) in zip((0, 4, 8), ((6, 12), (6, 8), (12, 8)), strict=True):
        photograph, truth = (np.asarray(made.panels[0][i].image.convert("RGB")).astype(int) for i in (at, at + 1))
        for found in (np.abs(truth - CLASSES[1]).sum(2) == 0, np.abs(photograph - CONTOUR).sum(2) == 0):
            rows, columns = found.any(1).nonzero()[0], found.any(0).nonzero()[0]
            assert columns.max() - columns.min() + 1 == pytest.approx(wide * scale, abs=1.5)
            assert rows.max() - rows.min() + 1 == pytest.approx(high * scale, abs=1.5)
    left = (256 - 40 * scale) / 2 + 4 * scale  # the box's right side, 4 mm from the volume's, in the middle of the canvas
    columns = (np.abs(np.asarray(made.panels[0][1].image.convert("RGB")).astype(int) - CLASSES[1]).sum(2) == 0).any(0).nonzero()[0]
    assert columns.min() == pytest.approx(left, abs=1.5)


@pytest.mark.parametrize(("codes", "slices"), [("RAS", (7, 23, 33)), ("LPI", (4, 8, 8)), ("SLA", (7, 23, 8))])
def test_several_members_have_a_spread_and_slices_are_counted_as_in_the_file(codes, slices):
    """The box's slices are 7 and 8 of 10, 21 to 26 of 30, 31 to 36 of 40 in RAS; the middle one is shown, of an even number either."""
    made = pictures([result(record(codes), count=3)], ROWS)
    assert made.columns == 5
    assert len(made.panels[0]) == 15
    found = [int(word) for word in made.facts[0][-1].replace(",", "").split() if word.isdigit()][::2]
    assert [*found] == pytest.approx(slices, abs=1)
    text = " ".join(key.text for key in made.keys)
    assert "R: the patient's right" in text
    assert "percentiles of the volume" in text


def test_the_slice_with_most_and_of_equals_the_middle_one():
    truth = np.zeros((12, 3, 3))
    truth[2:7, 1, 1] = 1
    assert most(truth, 0) == 4
    truth[9] = 1
    assert most(truth, 0) == 9
    assert most(np.zeros((12, 3, 3)), 0) == 6


@pytest.mark.parametrize("codes", CODES)
def test_a_slice_of_the_file_is_turned_the_same_way(codes):
    of = record(codes)
    for plane in planes(of, of.truth > 0):
        voxels = (
            np.linalg.inv(of.geometry.affine)[:3, :3]
            @ [(0, 0, 1), (0, 1, 0), (1, 0, 0)][["axial", "coronal", "sagittal"].index(plane.name)]
        )
        axis = int(np.abs(voxels).argmax())
        single = sliced(of, axis, plane.number - 1)
        assert np.array_equal(single(of.truth), plane(of.truth))
        assert single.size[0] / single.size[1] == pytest.approx(plane.size[0] / plane.size[1], rel=0.02)


def test_without_truth_the_mask_is_looked_for_and_without_both_the_probability():
    of = record(box=(slice(0), slice(0), slice(0)))
    p = np.zeros(SHAPE, np.float32)
    p[5:8, 4:7, 1:2] = 0.9
    shown = pictures([result(of, p)], ROWS)
    assert "axial 2 of 10" in shown.facts[0][-1]
    assert "axial 2 of 10" in pictures([result(of, p / 3)], ROWS).facts[0][-1]


@pytest.mark.parametrize(("most_mm", "length"), [(0.3, 1), (1, 1), (4.9, 2), (5, 5), (19.9, 10), (88, 50), (130, 100)])
def test_lengths_of_scales_are_round(most_mm, length):
    assert round_length(most_mm) == length


WINDOWS = [("soft tissue", 40, 400), ("lung", -600, 1500), ("bone", 400, 1800), ("brain", 40, 80)]


@pytest.mark.parametrize(("name", "level", "width"), WINDOWS)
def test_a_window_is_linear_about_its_level(name, level, width):
    low, high = shades.ends(name)
    one = shades.Brightness(name, low, high)
    at = level + width * np.array([-2, -0.5, -0.25, 0, 0.25, 0.5, 2])
    assert np.allclose(one(at), [0, 0, 0.25, 0.5, 0.75, 1, 1])


TISSUES = {"liver": (110, 20), "lung": (-850, 60), "rib": (500, 250), "grey matter": (35, 6), "bladder": (5, 15), "fat": (-100, 15)}
FITTING = ["soft tissue", "lung", "bone", "brain", "soft tissue", "soft tissue"]


def scan(mean, std, around=35.0, spacing=SPACING):
    """A box of a tissue in a body that fills the volume."""
    image = np.full(SHAPE, around)
    image[0, 0, 0] = -1000
    image[BOX] = np.random.default_rng(0).normal(mean, std, image[BOX].shape)
    return record("LPS", image, spacing=spacing)


@pytest.mark.parametrize(("tissue", "name"), zip(TISSUES, FITTING, strict=True))
def test_ct_is_drawn_in_the_window_that_fits_what_is_marked(tissue, name):
    of = scan(*TISSUES[tissue])
    found = shades.brightness(of, of.truth > 0)
    level, width = next(rest for known, *rest in WINDOWS if known == name)
    assert found.name == f"{name} window (level {level}, width {width} HU)"
    assert (found.low, found.high) == (level - width / 2, level + width / 2)
    made = pictures([result(of)], ROWS)
    assert made.facts[0][-1] == found.name
    assert found.name in " ".join(key.text for key in made.keys)
    assert "nine tenths" in made.note


@pytest.mark.parametrize(
    ("around", "wide_mm", "name"),
    [
        (35, 200, "brain"),
        (-10, 200, "brain"),
        (600, 200, "brain"),
        (-100, 200, "soft tissue"),
        (-850, 200, "soft tissue"),
        (35, 210, "soft tissue"),
    ],
)
def test_the_brain_window_is_for_heads(around, wide_mm, name):
    """An organ without contrast medium is as grey as the brain: beside it is fat, or lung, and the body is wider than a head."""
    of = scan(35, 6, around, (wide_mm / SHAPE[0], 2.0, 4.0))
    if around < -300:  # the line through the box ends where the lung begins
        assert shades.in_a_head(of, of.truth > 0) is False
    assert shades.brightness(of, of.truth > 0).name.startswith(name)


def test_what_nothing_marks_is_soft_tissue_and_what_fits_none_the_best():
    of = record(image=np.full(SHAPE, -1000.0), box=(slice(0),) * 3)
    assert shades.brightness(of, of.truth > 0).name.startswith("soft tissue")
    assert shades.fitting(np.array([2000.0, 2000, 2000, 1200])) == "bone"


@pytest.mark.parametrize(
    ("lowest", "source", "ct"),
    [(-900, None, True), (-899, None, False), (0, Series((), "CT"), True), (-1024, Series((), "MR"), False), (-1024, Series(()), True)],
)
def test_hounsfield_units_are_told_by_the_series_or_by_air(lowest, source, ct):
    of = record(image=np.linspace(lowest, 1000, np.prod(SHAPE)).reshape(SHAPE), source=source)
    found = shades.brightness(of, of.truth > 0)
    assert shades.hounsfield(of) == ct
    assert ("HU" in found.name) == ct
    if not ct:
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(of.image, (0.5, 99.5))))


def test_flat_images_are_shown_as_ever():
    flat = Record(
        Case("a", (), None, "a"),
        "a",
        np.random.default_rng(0).random((3, 20, 40), np.float32),
        np.eye(20, 40, dtype=np.uint8),
        None,
        None,
        None,
    )
    made = pictures([result(flat)], ROWS)
    assert made.columns is None
    assert [panel.name for panel in made.panels[0]] == ["image, truth outlined", "truth", "mask", "probability"]
    assert {panel.image.size for panel in made.panels[0]} == {(256, 128)}
    assert made.note == "Images are stretched between their 0.5th and 99.5th percentiles."
