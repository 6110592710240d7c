"""Each defect, planted alone in a clean set, is found under its name; the clean set has none."""

import csv
import json
import shutil
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from deadly import die_of_case_5
from somite.checkup.doctor import doctor
from somite.checkup.finding import KINDS
from somite.data.geometry import Geometry
from somite.data.images import write_png
from somite.data.nifti import write_volume
from somite.data.phantoms import write_phantoms
from somite.data.sources import NUCLEI


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("flat"), 24, (40, 40))


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("deep"), 24, (24, 24, 9), channels=1)


@pytest.fixture
def root(flat, tmp_path):
    return Path(shutil.copytree(flat, tmp_path / "flat"))


@pytest.fixture
def volumes(deep, tmp_path):
    return Path(shutil.copytree(deep, tmp_path / "deep"))


def pixels(path):
    return np.asarray(Image.open(path)).copy()


def image(root, number):
    return root / "images" / f"case{number:03d}.png"


def mask(root, number):
    return root / "masks" / f"case{number:03d}.png"


def volume(root, kind, number):
    return root / kind / f"case{number:03d}.nii.gz"


def edited(path, change):
    write_png(path, change(pixels(path)))


def moved_to(root, name, split):
    """A case into another split, with a patient of its own."""
    path = root / "splits.json"
    splits = {key: [one for one in ids if one != name] for key, ids in json.loads(path.read_text()).items()}
    splits[split].append(name)
    path.write_text(json.dumps(splits))
    regrouped(root, {name: name})


def regrouped(root, groups):
    with (root / "groups.csv").open(newline="") as file:
        known = {row["id"]: row["group"] for row in csv.DictReader(file)} | groups
    (root / "groups.csv").write_text("id,group\n" + "".join(f"{name},{group}\n" for name, group in known.items()))


def again(root, source, name, split, change=lambda x: x):
    """A further case with the image of another, changed, and its mask."""
    write_png(root / "images" / f"{name}.png", change(pixels(image(root, source))))
    write_png(root / "masks" / f"{name}.png", pixels(mask(root, source)))
    table = root / "labels.csv"
    label = next(line.split(",")[1] for line in table.read_text().splitlines() if line.startswith(f"case{source:03d}"))
    table.write_text(table.read_text() + f"{name},{label}\n")
    moved_to(root, name, split)


# ---- flat images: each spoils the copy and returns what is named


def no_mask(root):
    mask(root, 3).unlink()
    mask(root, 5).unlink()
    return [str(image(root, 3)), str(image(root, 5))]


def no_image(root):
    image(root, 3).unlink()
    return [str(mask(root, 3))]


def two_of_a_name(root):
    Image.open(image(root, 2)).save(root / "images" / "case002.bmp")
    return [str(root / "images" / "case002.bmp"), str(image(root, 2))]


def two_masks(root):
    shutil.copy(mask(root, 4), root / "masks" / "case004_mask.png")
    return [str(mask(root, 4)), str(root / "masks" / "case004_mask.png")]


def cut_short(root):
    image(root, 6).write_bytes(image(root, 6).read_bytes()[:200])
    return ["case006"]


def mask_cut_short(root):
    mask(root, 6).write_bytes(mask(root, 6).read_bytes()[:60])
    return ["case006"]


def bomb(root):
    """A PNG of a kilobyte whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(100_000))
    image(root, 0).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return ["case000"]


def other_size(root):
    edited(mask(root, 1), lambda x: x[:-3])
    return ["case001"]


def odd_value(root):
    edited(mask(root, 1), lambda x: np.where(np.arange(40) < 20, x, 7).astype(np.uint8))
    return ["case001"]


def coloured(root):
    write_png(mask(root, 1), np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    return ["case001"]


def smoothed(root):
    where = mask(root, 2)
    Image.open(where).resize((20, 20), Image.Resampling.BILINEAR).resize((40, 40), Image.Resampling.BILINEAR).save(where)
    return ["case002"]


def jpeg_mask(root):
    where = mask(root, 2)
    Image.open(where).save(where.with_suffix(".jpg"), quality=75)
    where.unlink()
    return ["case002"]


def plain_jpeg_mask(root):
    """All black: JPEG keeps it, so that its values are in order."""
    where = mask(root, 2)
    Image.new("L", (40, 40)).save(where.with_suffix(".jpg"))
    where.unlink()
    return ["case002"]


def nothing_marked(root):
    edited(mask(root, 7), np.zeros_like)
    return ["case007"]


def all_marked(root):
    edited(mask(root, 7), lambda x: np.full_like(x, 255))
    return ["case007"]


def nearly_all_marked(root):
    edited(mask(root, 7), lambda x: np.where(np.arange(40) < 1, 0, 255)[None].repeat(40, 0).astype(np.uint8))
    return ["case007"]


def none_at_all(root):
    for number in range(24):
        edited(mask(root, number), np.zeros_like)
    return [f"case{number:03d}" for number in range(24)]


def other_foreground(root):
    edited(mask(root, 7), lambda x: x // 255)
    return ["case007"]


def at_the_border(root):
    for number in range(10):
        edited(mask(root, number), lambda x: np.where(np.arange(40) < 9, 255, x).astype(np.uint8))
    return [f"case{number:03d}" for number in range(10)]


def copy_in_test(root):
    again(root, 0, "copy", "test")
    return ["case000", "copy"]


def copy_in_train(root):
    again(root, 0, "copy", "train")
    return ["case000", "copy"]


def brighter_copy_in_test(root):
    again(root, 0, "copy", "test", lambda x: (0.8 * x + 30).astype(np.uint8))
    return ["case000", "copy"]


def smaller_copy_in_train(root):
    again(root, 0, "copy", "train", lambda x: np.asarray(Image.fromarray(x).resize((31, 33))))
    write_png(root / "masks" / "copy.png", np.asarray(Image.open(mask(root, 0)).resize((31, 33), Image.Resampling.NEAREST)))
    return ["case000", "copy"]


def copy_with_another_mask(root):
    again(root, 0, "copy", "train")
    edited(root / "masks" / "copy.png", lambda x: 255 - x)
    return ["case000", "copy"]


def patient_in_two_splits(root):
    train, test = (json.loads((root / "splits.json").read_text())[name][0] for name in ("train", "test"))
    regrouped(root, {train: "anna", test: "anna"})
    return [train, test]


def case_in_two_splits(root):
    splits = json.loads((root / "splits.json").read_text())
    splits["test"].append(splits["train"][0])
    (root / "splits.json").write_text(json.dumps(splits))
    return [splits["train"][0]]


def unknown_id(root):
    splits = json.loads((root / "splits.json").read_text())
    splits["test"].append("nobody")
    (root / "splits.json").write_text(json.dumps(splits))
    return ["nobody"]


def two_groups(root):
    (root / "groups.csv").write_text((root / "groups.csv").read_text() + "case000,somebody\n")
    return ["case000"]


def no_group(root):
    table = root / "groups.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("case003")))
    return ["case003"]


def in_no_split(root):
    splits = json.loads((root / "splits.json").read_text())
    left = splits["train"].pop(0)
    (root / "splits.json").write_text(json.dumps(splits))
    return [left]


def left_out(root):
    splits = json.loads((root / "splits.json").read_text())
    name = splits["train"].pop(0)
    (root / "splits.json").write_text(json.dumps({**splits, "excluded": {name: "blurred"}}))
    return [name]


def no_label(root):
    table = root / "labels.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("case003")))
    return ["case003"]


def label_of_nothing(root):
    (root / "labels.csv").write_text((root / "labels.csv").read_text() + "ghost,large\n")
    return ["ghost"]


def label_missing_in_test(root):
    test = json.loads((root / "splits.json").read_text())["test"]
    rows = [line.split(",") for line in (root / "labels.csv").read_text().splitlines()]
    (root / "labels.csv").write_text("".join(f"{name},{'small' if name in test else label}\n" for name, label in rows))
    return []


def few_for_validation(root):
    splits = json.loads((root / "splits.json").read_text())
    splits["train"] += splits["val"][1:]
    (root / "splits.json").write_text(json.dumps({**splits, "val": splits["val"][:1]}))
    return []


def ambiguous_labels(root):
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([lines[0] + ",age", *(f"{line},{30 + n}" for n, line in enumerate(lines[1:]))]) + "\n")
    return []


def black(root):
    edited(image(root, 9), np.zeros_like)
    return ["case009"]


def grey(root):
    edited(image(root, 9), lambda x: x[..., 0])
    return ["case009"]


def deeper(root):
    write_png(image(root, 9), (pixels(image(root, 9))[..., 0].astype(np.uint16) * 257))
    return ["case009"]


def smaller(root):
    edited(image(root, 9), lambda x: x[:-4])
    edited(mask(root, 9), lambda x: x[:-4])
    return ["case009"]


def very_dark(root):
    edited(image(root, 9), lambda x: x // 10)
    return ["case009"]


def dark(root):
    for number in range(12):
        edited(image(root, number), lambda x: x // 5)
    return [f"case{number:03d}" for number in range(12)]


def low_quality(root):
    where = image(root, 9)
    Image.open(where).save(where.with_suffix(".jpg"), quality=40)
    where.unlink()
    return ["case009"]


def framed(root):
    y, x = np.mgrid[:40, :40] - 19.5
    for number in range(12):
        edited(image(root, number), lambda found: np.where((y**2 + x**2 < 22**2)[..., None], found, 0).astype(np.uint8) // 2 + 0)
        edited(image(root, number), lambda found: np.where((y**2 + x**2 < 22**2)[..., None], found + 100, 0).astype(np.uint8))
    return [f"case{number:03d}" for number in range(12)]


def own_range(root):
    for number in range(24):
        found = pixels(image(root, number))[..., 0].astype(float)
        write_png(image(root, number), np.rint(255 * (found - found.min()) / np.ptp(found)).astype(np.uint8))
    return []


def few_pixels(root):
    for number in range(24):
        edited(mask(root, number), lambda x: np.where((np.arange(40) == 20) & (np.arange(40) == 20)[:, None], 255, 0).astype(np.uint8))
    return []


def names_of_patients(root):
    """Two slices a patient by name, of which one pair stands in two splits, and no groups.csv."""
    (root / "groups.csv").unlink()
    names = {f"case{n:03d}": f"p{n // 2:02d}_{n % 2}" for n in range(24)}
    for folder in ("images", "masks"):
        for path in list((root / folder).iterdir()):
            path.rename(path.with_stem(names[path.stem]))
    (root / "labels.csv").unlink()
    splits = {key: [names[one] for one in ids] for key, ids in json.loads((root / "splits.json").read_text()).items()}
    name = splits["train"].pop(0)
    splits["test"].append(name)
    (root / "splits.json").write_text(json.dumps(splits))
    return [name, name[:-1] + "1"]


FLAT = [
    ("image-without-mask", no_mask),
    ("mask-without-image", no_image),
    ("same-name", two_of_a_name),
    ("two-masks", two_masks),
    ("unreadable", cut_short),
    ("unreadable", bomb),
    ("mask-unreadable", mask_cut_short),
    ("mask-unreadable", coloured),
    ("mask-mismatch", other_size),
    ("mask-values", odd_value),
    ("soft-mask", smoothed),
    ("soft-mask", jpeg_mask),
    ("lossy-mask", plain_jpeg_mask),
    ("empty-mask", nothing_marked),
    ("full-mask", all_marked),
    ("large-mask", nearly_all_marked),
    ("no-foreground", none_at_all),
    ("foreground-values", other_foreground),
    ("cut-off", at_the_border),
    ("duplicate-across-splits", copy_in_test),
    ("duplicate", copy_in_train),
    ("similar-across-splits", brighter_copy_in_test),
    ("similar", smaller_copy_in_train),
    ("contradiction", copy_with_another_mask),
    ("group-in-two-splits", patient_in_two_splits),
    ("case-in-two-splits", case_in_two_splits),
    ("unknown-id", unknown_id),
    ("two-groups", two_groups),
    ("no-group", no_group),
    ("no-split-case", in_no_split),
    ("excluded", left_out),
    ("image-without-label", no_label),
    ("label-without-image", label_of_nothing),
    ("class-missing", label_missing_in_test),
    ("few-cases", few_for_validation),
    ("labels", ambiguous_labels),
    ("constant", black),
    ("mixed-channels", grey),
    ("mixed-depth", deeper),
    ("sizes", smaller),
    ("scale", very_dark),
    ("dark", dark),
    ("jpeg", low_quality),
    ("frame", framed),
    ("own-range", own_range),
    ("imbalance", few_pixels),
    ("no-patients", names_of_patients),
    ("name-across-splits", names_of_patients),
]


def test_a_clean_set_has_no_findings(flat, deep):
    assert not doctor(flat, workers=1).findings
    assert not doctor(deep, workers=1).findings


@pytest.mark.parametrize(("kind", "spoil"), FLAT, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_a_planted_defect_is_found(kind, spoil, root):
    named = spoil(root)
    found = doctor(root, workers=1)
    (one,) = found.of(kind)
    assert sorted(one.where) == sorted(named) or kind == "no-patients"
    assert found.good == (not any(KINDS[one.kind] == "error" for one in found.findings))
    assert (KINDS[kind] == "error") <= (not found.good)


# ---- volumes


def resaved(path, change=lambda x: x, affine=None):
    found = nib.load(path)
    values = change(np.asarray(found.dataobj))
    nib.save(nib.Nifti1Image(values, found.affine if affine is None else affine), path)


def shifted(root):
    resaved(volume(root, "masks", 1), affine=np.diag([-1.0, -1.0, 2.0, 1.0]) + np.eye(4, k=3) * 50)
    return ["case001"]


def coarser(root):
    for kind in ("images", "masks"):
        resaved(volume(root, kind, 1), affine=np.diag([-1.0, -1.0, 5.0, 1.0]))
    return ["case001"]


def other_way_round(root):
    for kind in ("images", "masks"):
        resaved(volume(root, kind, 1), affine=np.diag([1.0, 1.0, 2.0, 1.0]))
    return ["case001"]


def not_a_number(root):
    def spoilt(values):
        values = values.astype(np.float32)
        values[3, 3, 3] = np.nan
        return values

    resaved(volume(root, "images", 1), spoilt)
    return ["case001"]


def truncated(root):
    path = volume(root, "images", 1)
    path.write_bytes(path.read_bytes()[:-400])
    return ["case001"]


def integers(root):
    resaved(volume(root, "images", 1), lambda x: (1000 * x).astype(np.int16))
    return ["case001"]


def turned_copy(root):
    """A volume again, brighter and of another size, in the test split."""
    values = np.asarray(nib.load(volume(root, "images", 0)).dataobj)[..., 0]
    larger = values.repeat(2, 0).repeat(2, 1)
    where = Geometry(np.diag([-0.5, -0.5, 2.0, 1.0]), larger.shape)
    write_volume(root / "images" / "copy.nii.gz", (2 * larger + 1)[None].astype(np.float32), where)
    marked = np.asarray(nib.load(volume(root, "masks", 0)).dataobj).repeat(2, 0).repeat(2, 1)
    write_volume(root / "masks" / "copy.nii.gz", marked, where)
    (root / "labels.csv").unlink()
    moved_to(root, "copy", "test")
    return ["case000", "copy"]


DEEP = [
    ("mask-mismatch", shifted),
    ("spacing", coarser),
    ("orientation", other_way_round),
    ("not-finite", not_a_number),
    ("unreadable", truncated),
    ("mixed-depth", integers),
    ("similar-across-splits", turned_copy),
]


@pytest.mark.parametrize(("kind", "spoil"), DEEP, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_a_defect_of_volumes_is_found(kind, spoil, volumes):
    named = spoil(volumes)
    (one,) = doctor(volumes, workers=1).of(kind)
    assert sorted(one.where) == sorted(named)


def test_preprocessing_that_evens_things_out_is_known(volumes):
    coarser(volumes)
    other_way_round(volumes)
    told = ["--data.preprocess.orientation=RAS", "--data.preprocess.dims=3", "--data.preprocess.spacing_mm=[1,1,2]"]
    kinds = {one.kind for one in doctor(volumes, overrides=told, workers=1).findings}
    assert not kinds & {"orientation", "spacing"}


# ---- many images


def test_a_rare_value_a_still_centre_and_ordered_raters(tmp_path):
    """60 images whose object sits in the middle; the second rater marks half of them, and one mask has a third class."""
    random = np.random.default_rng(0)
    (tmp_path / "raters").mkdir()
    for n in range(60):
        write_png(tmp_path / "images" / f"n{n}.png", random.integers(0, 200, (32, 32), dtype=np.uint8))
        labels = np.zeros((32, 32), np.uint8)
        labels[12:20, 12:20] = 1
        labels[12:16, 12:16] = 2
        write_png(tmp_path / "raters" / f"n{n}_0.png", (labels > 0).astype(np.uint8))
        write_png(tmp_path / "raters" / f"n{n}_1.png", (labels > 0).astype(np.uint8) * (n % 2))
        labels[12, 12] = 9 if n == 7 else 2
        write_png(tmp_path / "masks" / f"n{n}.png", labels)
    found = doctor(tmp_path, workers=1)
    assert [one.where for one in found.of("rare-value")] == [("n7",)]
    assert "0,1,2,9" in found.of("classes")[0].text
    assert found.of("centred")
    assert "1.00, 0.50" in found.of("rater-order")[0].text
    (tmp_path / "raters" / "n5_1.png").unlink()
    assert [one.where for one in doctor(tmp_path, workers=1).of("raters")] == [("n5",)]
    told = doctor(tmp_path, overrides=["--data.labels=[0,1,2]"], workers=1)
    assert [one.where for one in told.of("mask-values")] == [("n7",)]
    assert "9" in told.of("mask-values")[0].text


def test_labels_of_images_are_counted_and_unequal_ones_told_of(tmp_path):
    random = np.random.default_rng(0)
    for n in range(30):
        write_png(tmp_path / ("rare" if n < 3 else "usual") / f"n{n}.png", random.integers(0, 200, (16, 16, 3), dtype=np.uint8))
    (tmp_path / "splits.json").write_text(
        json.dumps(
            {
                "train": [f"{'rare' if n < 2 else 'usual'}-n{n}" for n in range(2) or ()] + [f"usual-n{n}" for n in range(3, 20)],
                "val": ["rare-n2", "usual-n20", "usual-n21"],
                "test": [f"usual-n{n}" for n in range(22, 30)],
            }
        )
    )
    found = doctor(tmp_path, workers=1)
    assert found.summary["labelled"]["train"] == {"rare": 2, "usual": 17}
    assert "rare 2 (11%)" in found.of("imbalance")[0].text
    assert [one.text for one in found.of("class-missing")] == ["no case of test has the label rare"]


# ---- tables and nnU-Net


def test_every_bad_row_of_a_table_is_told(flat, tmp_path):
    rows = [f"{image(flat, n)},{mask(flat, n)}" for n in range(8)]
    rows[2] = f"{flat}/images/lost.png,{mask(flat, 2)}"
    rows[4] = f"{image(flat, 4)},{flat}/masks/lost.png"
    rows[5] = rows[0]
    table = tmp_path / "data.csv"
    table.write_text("image,mask\n" + "\n".join(rows) + "\n")
    found = doctor(table, workers=1)
    assert found.of("no-image")[0].where == (f"{flat}/images/lost.png",)
    assert found.of("no-mask")[0].where == (f"{flat}/masks/lost.png",)
    assert found.of("same-name")[0].where == ("case000",)
    assert found.summary["cases"] == 5


def test_nnunets_layout_and_its_labels(tmp_path):
    where = Geometry(np.eye(4), (8, 8, 8))
    random = np.random.default_rng(0)
    for n in range(5):
        write_volume(tmp_path / "imagesTr" / f"c{n}_0000.nii.gz", random.normal(size=(1, 8, 8, 8)).astype(np.float32), where)
        if n != 1:
            write_volume(tmp_path / "labelsTr" / f"c{n}.nii.gz", np.full((8, 8, 8), n, np.uint8) * (np.arange(8) > 3), where)
    write_volume(tmp_path / "imagesTr" / "c4_0001.nii.gz", random.normal(size=(1, 8, 8, 8)).astype(np.float32), where)
    write_volume(tmp_path / "labelsTr" / "ghost.nii.gz", np.zeros((8, 8, 8), np.uint8), where)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = doctor(tmp_path, workers=1)
    assert len(found.of("image-without-mask")) == len(found.of("mask-without-image")) == len(found.of("missing-channel")) == 1
    assert found.of("mask-values")[0].where == ("c3",)  # 3 is none of dataset.json's labels


# ---- real images


@pytest.fixture
def nuclei(tmp_path):
    return Path(shutil.copytree(NUCLEI, tmp_path / "nuclei"))


CHANGES = {
    "smaller": lambda one: one.resize((one.width * 2 // 3, one.height * 2 // 3)),
    "brighter": lambda one: one.point(lambda value: min(255, int(1.3 * value + 12))),
    "turned": lambda one: one.transpose(Image.Transpose.ROTATE_90),
    "mirrored": lambda one: one.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "jpeg": lambda one: one,
}


def test_near_copies_of_real_images_are_found_and_different_ones_are_not(nuclei):
    assert not [one for one in doctor("nuclei", workers=1).findings if "similar" in one.kind or "duplicate" in one.kind]
    splits = json.loads((nuclei / "splits.json").read_text())
    pairs = []
    for name, change in zip(splits["train"], CHANGES.items(), strict=False):
        (path,) = (nuclei / "images").glob(f"{name}.*")
        with Image.open(path) as one:
            suffix = "jpg" if change[0] == "jpeg" else "png"
            change[1](one.convert("RGB")).save(nuclei / "images" / f"{change[0]}.{suffix}")
        with Image.open(nuclei / "masks" / f"{name}.png") as one:
            turned = change[1](one) if change[0] in ("turned", "mirrored") else one
            size = Image.open(nuclei / "images" / f"{change[0]}.{suffix}").size
            turned.resize(size, Image.Resampling.NEAREST).save(nuclei / "masks" / f"{change[0]}.png")
        splits["test"].append(change[0])
        pairs.append({name, change[0]})
    (nuclei / "splits.json").write_text(json.dumps(splits))
    (found,) = doctor(nuclei, workers=1).of("similar-across-splits")
    assert set(found.where) == set().union(*pairs)


# ---- one that takes its process with it


def test_a_file_that_ends_its_process_is_named_and_the_others_are_looked_at(root, monkeypatch):
    monkeypatch.setattr("somite.checkup.look.SMALL", 0)
    monkeypatch.setattr("somite.checkup.look.examine_all", die_of_case_5)  # in another module, which workers import
    found = doctor(root, workers=2)
    assert [one.where for one in found.of("killed")] == [("case005",)]
    assert found.summary["cases"] == 24
    assert not [one for one in found.findings if one.level == "error" and one.kind != "killed"]


def test_every_kind_is_planted_or_of_the_machine():
    planted = {kind for kind, _ in FLAT + DEEP} | {"rare-value", "classes", "centred", "rater-order", "raters", "killed"}
    planted |= {"no-image", "no-mask", "missing-channel"}
    elsewhere = {"listing", "bad-id", "no-split", "splits", "channels", "recipe", "memory", "shared-memory", "disk"}
    elsewhere |= {"little-shared-memory", "not-looked-at", "estimate"}
    assert planted | elsewhere == set(KINDS)
    assert not planted & elsewhere
