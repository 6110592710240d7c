"""Every layout that is recognised, and every way in which one can be broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from somite.data import labelled
from somite.data.dataset import Data
from somite.data.sources import NUCLEI, find, find_inputs, passed_over
from somite.errors import InputError


def splits(root):
    """The splits that the data bring."""
    found = find(root)
    return {name: found.split(name) for name in found.splits}


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content is not looked at")


def folder(root: Path, ids: str = "abc") -> Path:
    for name in ids:
        put(root / "images" / f"{name}.png", root / "masks" / f"{name}.png")
    return root


def say(path: Path, content) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def names(cases) -> list[str]:
    return [case.id for case in cases]


def in_splits(root: Path) -> dict[str, list[str]]:
    return {name: names(cases) for name, cases in splits(root).items()}


def refused(root, *words, split=None, find=find) -> None:
    with pytest.raises(InputError) as error:
        Data(str(root)).cases(split) if split else find(root)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_folder_matches_by_stem(tmp_path):
    put(*(tmp_path / "images" / name for name in ("a.JPG", "b.png", "c.d.nii.gz", "e_mask.png")))
    put(*(tmp_path / "masks" / name for name in ("a.png", "b.tif", "c.d.nii", "e_mask.png")))
    put(tmp_path / "images/.DS_Store.png", tmp_path / "images/Thumbs.db")
    cases = find(tmp_path).all
    assert names(cases) == ["a", "b", "c.d", "e_mask"]
    assert cases[2].mask == tmp_path / "masks/c.d.nii"
    assert cases[2].images == (tmp_path / "images/c.d.nii.gz",)
    assert [case.group for case in cases] == names(cases)
    assert splits(tmp_path) == {}


@pytest.mark.parametrize("ending", ["_mask", "-mask", "_segmentation", "_Segmentation", "_lesion"])
def test_masks_with_an_ending(tmp_path, ending):
    put(tmp_path / "images/a.png", tmp_path / f"masks/a{ending}.png")
    assert find(tmp_path).all[0].mask == tmp_path / f"masks/a{ending}.png"
    put(tmp_path / "masks/a.png")
    refused(tmp_path, "both masks of a")


@pytest.mark.parametrize(("images", "masks"), [("img", "msk"), ("Images", "Masks"), ("imgs", "labels"), ("images", "ground_truth")])
def test_folders_as_people_call_them(tmp_path, images, masks):
    put(tmp_path / images / "lesion_01.jpg", tmp_path / masks / "lesion_01_mask.png")
    case = find(tmp_path).cases["lesion_01"]
    assert case.images == (tmp_path / images / "lesion_01.jpg",)
    assert case.mask == tmp_path / masks / "lesion_01_mask.png"
    assert names(find(tmp_path, masks=False).all) == ["lesion_01"]
    with pytest.raises(InputError, match="no labels"):
        labelled.find(tmp_path)  # its folders are no classes


def test_folders_that_could_both_be_meant(tmp_path):
    put(tmp_path / "img" / "a.png", tmp_path / "gt" / "a.png", tmp_path / "labels" / "a.png")
    with pytest.raises(InputError, match="has gt/ and labels/: call the one that counts masks/"):
        find(tmp_path)
    put(tmp_path / "masks" / "a.png")
    assert find(tmp_path).cases["a"].mask == tmp_path / "masks" / "a.png"


def test_folders_of_text_are_no_masks(tmp_path):
    put(tmp_path / "images" / "a.png", tmp_path / "labels" / "a.txt")  # boxes
    refused(tmp_path, "has images/ but no masks/")
    put(tmp_path / "gt" / "a.png")
    assert find(tmp_path).cases["a"].mask == tmp_path / "gt" / "a.png"


def test_classes_may_be_called_as_masks_are(tmp_path):
    put(tmp_path / "mask" / "a.png", tmp_path / "no_mask" / "b.png")  # faces with and without
    assert labelled.find(tmp_path).classes == ("mask", "no_mask")
    put(tmp_path / "image" / "c.png", tmp_path / "img" / "d.png")
    (tmp_path / "mask" / "a.png").rename(tmp_path / "e.png")
    (tmp_path / "mask").rmdir()
    assert labelled.find(tmp_path).classes == ("image", "img", "no_mask")


def test_what_prediction_passes_over(tmp_path):
    put(tmp_path / "a.png", tmp_path / "b.HEIC", tmp_path / "notes.txt", tmp_path / ".DS_Store", tmp_path / "day 2" / "c.png")
    assert passed_over([tmp_path, tmp_path / "a.png"]) == ["b.HEIC", "day 2/"]
    put(tmp_path / "c\nd.heic")
    assert "c\\nd.heic" in passed_over([tmp_path])


def test_prediction_says_where_the_images_are(tmp_path):
    folder(tmp_path)
    with pytest.raises(InputError, match=r"no images right in it, but .*images has: give that folder"):
        find_inputs([tmp_path])
    with pytest.raises(InputError, match="one file or more, not 0"):
        find_inputs([tmp_path / "images"], channels=0)


def test_a_link_to_itself_is_passed_over(tmp_path):
    put(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    assert names(find_inputs([tmp_path])) == ["a"]


def test_side_by_side(tmp_path):
    put(tmp_path / "a.png", tmp_path / "a_mask.png", tmp_path / "b.jpg", tmp_path / "b_mask.png")
    say(tmp_path / "splits.json", {"train": ["a"], "test": ["b"]})
    assert names(find(tmp_path).all) == ["a", "b"]
    assert find(tmp_path).split("test")[0].mask == tmp_path / "b_mask.png"
    put(tmp_path / "c_mask.png")
    refused(tmp_path, "c_mask.png", "mask without an image")
    put(tmp_path / "c.png", tmp_path / "d.png")
    refused(tmp_path, "d.png", "image without a mask")


def test_splits_and_groups(tmp_path):
    folder(tmp_path, "abcx")
    splits = {"train": ["b", "a"], "val": [], "test": ["c"]}
    say(tmp_path / "splits.json", {**splits, "note": "n", "excluded": {"x": "blurred"}})
    say(tmp_path / "groups.csv", "id,group\na,p1\nb,p1\nc,p2\nx,p3\n")
    assert names(find(tmp_path).split("train")) == ["a", "b"]
    assert names(find(tmp_path).all) == ["a", "b", "c"]
    assert [case.group for case in find(tmp_path).all] == ["p1", "p1", "p2"]
    assert in_splits(tmp_path) == {"train": ["a", "b"], "val": [], "test": ["c"]}
    refused(tmp_path, "'dev'", "train (2), val (0), test (1)", split="dev")


def test_excluded_cases_may_be_incomplete(tmp_path):
    folder(tmp_path)
    put(tmp_path / "images/x.png", tmp_path / "masks/y_mask.png")
    say(tmp_path / "splits.json", {"train": ["a"], "excluded": {"x": "no mask", "y": "no image"}})
    assert names(find(tmp_path).all) == ["a", "b", "c"]


def test_what_is_missing(tmp_path):
    refused(tmp_path / "none", "none does not exist")
    refused(tmp_path, "empty")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path, "no layout", "images/", "CSV", "nnU-Net")
    refused(tmp_path / "notes.txt", "notes.txt", "CSV")
    (tmp_path / "images").mkdir()
    refused(tmp_path, "no masks/")
    (tmp_path / "masks").mkdir()
    refused(tmp_path, "has no images", "DICOM")
    folder(tmp_path)
    put(tmp_path / "images/d.png", tmp_path / "images/e.png")
    refused(tmp_path, "d.png", "image without a mask", "1 more")
    put(tmp_path / "masks/d.png", tmp_path / "masks/e.png", tmp_path / "masks/f.png")
    refused(tmp_path, "f.png", "mask without an image")


def test_duplicate_stems(tmp_path):
    folder(tmp_path)
    put(tmp_path / "images/a.jpg")
    refused(tmp_path, "a.jpg", "a.png", "same name")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": ["a", "zz"]}, ["'zz'", "train", "no such case"]),
        ({"train": ["a"], "val": ["a"]}, ["'a'", "in train and again in val"]),
        ({"train": ["a", "a"]}, ["'a'", "again"]),
        ({"train": ["a"], "test": ["c", "b"]}, ["'a' into train and 'b' into test", "both are of 'p1'", "in one split"]),
        ({"train": "a"}, ["train", "list of ids"]),
        ({"train": [1]}, ["train", "list of ids"]),
        (["a"], ["should hold"]),
        ({"excluded": 3}, ["should hold"]),
        ("{", ["not valid JSON"]),
    ],
)
def test_broken_splits(tmp_path, content, words):
    folder(tmp_path)
    say(tmp_path / "groups.csv", "id,group\na,p1\nb,p1\nc,p2\n")
    say(tmp_path / "splits.json", content)
    refused(tmp_path, "splits.json", *words)


def test_a_table_keeps_patients_together(tmp_path):
    folder(tmp_path)
    lines = [f"images/{name}.png,masks/{name}.png,{group}" for name, group in zip("abc", ("P1,train", "P1,test", "P2,val"), strict=True)]
    say(tmp_path / "t.csv", "\n".join(["image,mask,group,split", *lines]))
    refused(tmp_path / "t.csv", "t.csv", "'a' into train and 'b' into test", "both are of 'P1'", "in one split")
    say(tmp_path / "t.csv", "\n".join(["image,mask,group,split", *lines]).replace("test", "train"))
    assert in_splits(tmp_path / "t.csv") == {"train": ["a", "b"], "val": ["c"]}


def test_a_table_gives_all_its_cases_a_split_or_none(tmp_path):
    folder(tmp_path)
    lines = [f"images/{name}.png,masks/{name}.png,{split}" for name, split in zip("bca", ("test", "", ""), strict=True)]
    say(tmp_path / "t.csv", "\n".join(["image,mask,split", *lines]))
    refused(tmp_path / "t.csv", "t.csv, line 3,", "no split", "for all rows")
    say(tmp_path / "t.csv", "\n".join(["image,mask,split", *lines]).replace("test", ""))
    assert names(find(tmp_path / "t.csv").all) == ["a", "b", "c"]
    assert splits(tmp_path / "t.csv") == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,patient\na,1\n", ["'group'", "id, patient"]),
        ("id,group\na,1\nb,1\n", ["'c'"]),
        ("id,group\na,1\na,2\nb,1\nc,1\n", ["'a'", "two groups"]),
        ("", ["'id'", "none"]),
    ],
)
def test_broken_groups(tmp_path, content, words):
    folder(tmp_path)
    say(tmp_path / "groups.csv", content)
    refused(tmp_path, "groups.csv", *words)


def test_table(tmp_path):
    put(*(tmp_path / name for name in ("x/1.png", "y/1.png", "x/2_a.png", "x/2_b.png", "y/2.png")))
    table = tmp_path / "pairs.csv"
    rows = ["image, mask, id, group, split", "x/1.png, y/1.png, one, p, train", "x/2_a.png;x/2_b.png,y/2.png,two,,test"]
    table.write_text("\n".join(rows) + "\n", "utf-8-sig")
    cases = find(table).all
    assert names(cases) == ["one", "two"]
    assert [case.group for case in cases] == ["p", "two"]
    assert cases[1].images == (tmp_path / "x/2_a.png", tmp_path / "x/2_b.png")
    assert names(find(table).split("test")) == ["two"]
    say(table, f"image,mask\n{tmp_path / 'x/1.png'},y/1.png\n")
    assert names(find(table).all) == ["1"]
    assert splits(table) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image,label\na,b\n", ["'mask'", "image, label"]),
        ("image;mask\na;b\n", ["'image'", "commas"]),
        ("image,mask\n", ["no rows"]),
        ("image,mask\n1.png,\n", ["line 2", "no mask"]),
        ("image,mask\n,1.png\n", ["line 2", "no image"]),
        ("image,mask\n1.png,1.png\n3.png,1.png\n", ["line 3", "3.png", "does not exist"]),
        ("image,mask\n1.png,m1.png\n1.png,m2.png\n", ["line 3", "'1' again"]),
        ("image,mask,id,split\n1.png,m1.png,a,train\n2.png,m2.png,a,val\n", ["line 3", "'a' again", "in train"]),
        ("image,mask\n1.png,m1.png\n2.png,m1.png\n", ["m1.png", "2 images"]),
        ("image,mask,id\n1.png,m1.png,../a\n", ["'../a'", "slashes"]),
    ],
)
def test_broken_tables(tmp_path, content, words):
    put(*(tmp_path / f"{name}.png" for name in ("1", "2", "m1", "m2")))
    say(tmp_path / "pairs.csv", content)
    refused(tmp_path / "pairs.csv", "pairs.csv", *words)


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"image,mask\n\xff\xfe\x00,b\n")
    refused(tmp_path / "a.csv", "a.csv", "UTF-8")


def nnunet(root: Path, ids: str = "abc", channels: int = 2) -> Path:
    for name in ids:
        put(*(root / f"imagesTr/{name}_{i:04d}.nii.gz" for i in range(channels)), root / f"labelsTr/{name}.nii.gz")
    say(root / "dataset.json", {"channel_names": {str(i): "x" for i in range(channels)}, "file_ending": ".nii.gz"})
    return root


def test_nnunet(tmp_path):
    nnunet(tmp_path)
    case = find(tmp_path).all[0]
    assert case.images == (tmp_path / "imagesTr/a_0000.nii.gz", tmp_path / "imagesTr/a_0001.nii.gz")
    assert case.mask == tmp_path / "labelsTr/a.nii.gz"
    assert splits(tmp_path) == {}
    put(tmp_path / "imagesTs/t_0000.nii.gz", tmp_path / "imagesTs/t_0001.nii.gz")
    assert splits(tmp_path) == {}  # without labels they are for prediction
    put(tmp_path / "labelsTs/t.nii.gz")
    assert in_splits(tmp_path) == {"train": ["a", "b", "c"], "test": ["t"]}
    say(tmp_path / "splits_final.json", [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a"]}])
    assert in_splits(tmp_path) == {"train": ["a", "b"], "val": ["c"], "test": ["t"]}
    say(tmp_path / "splits_final.json", [{"train": ["a", "z"], "val": ["c"]}])
    refused(tmp_path, "splits_final.json", "'z'")
    say(tmp_path / "splits_final.json", {"train": []})
    refused(tmp_path, "splits_final.json", "folds")


def test_nnunet_in_pngs(tmp_path):
    put(tmp_path / "imagesTr/a_0000.png", tmp_path / "labelsTr/a.png")
    say(tmp_path / "dataset.json", {"channel_names": {"0": "rgb"}, "file_ending": ".png"})
    assert find(tmp_path).all[0].mask == tmp_path / "labelsTr/a.png"


def test_decathlon(tmp_path):
    put(*(tmp_path / f"{part}/hippocampus_{i:04d}.nii.gz" for part in ("imagesTr", "labelsTr") for i in (1, 2)))
    put(tmp_path / "imagesTr/._hippocampus_0001.nii.gz")
    say(tmp_path / "dataset.json", {"modality": {"0": "T1", "1": "T2"}})
    assert names(find(tmp_path).all) == ["hippocampus_0001", "hippocampus_0002"]


def test_broken_nnunet(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "imagesTr/b_0001.nii.gz").unlink()
    refused(tmp_path, "imagesTr/b", "channels [0]")
    put(tmp_path / "imagesTr/b_0001.nii.gz", tmp_path / "labelsTr/z.nii.gz")
    refused(tmp_path, "z.nii.gz", "mask without an image")
    (tmp_path / "labelsTr/z.nii.gz").unlink()
    (tmp_path / "labelsTr/a.nii.gz").unlink()
    refused(tmp_path, "a_0000.nii.gz", "image without a mask")
    nnunet(tmp_path)
    put(tmp_path / "imagesTs/a_0000.nii.gz", tmp_path / "imagesTs/a_0001.nii.gz", tmp_path / "labelsTs/a.nii.gz")
    refused(tmp_path, "'a'", "imagesTr and in imagesTs")
    say(tmp_path / "dataset.json", {"file_ending": ".png"})
    refused(tmp_path, "imagesTr", ".png")
    say(tmp_path / "dataset.json", [])
    refused(tmp_path, "dataset.json")


def test_nnunet_without_labels(tmp_path):
    put(tmp_path / "imagesTr/a_0000.nii.gz")
    say(tmp_path / "dataset.json", {})
    refused(tmp_path, "labelsTr is missing")


def test_inputs(tmp_path):
    put(tmp_path / "f/a.png", tmp_path / "f/b.nii.gz", tmp_path / "f/notes.txt", tmp_path / "x.tif")
    cases = find_inputs([tmp_path / "f", str(tmp_path / "x.tif")])
    assert names(cases) == ["a", "b", "x"]
    assert all(case.mask is None and case.group == case.id for case in cases)
    assert names(find_inputs([tmp_path / "x.tif", tmp_path / "x.tif"])) == ["x"]
    put(tmp_path / "g/a.png", tmp_path / "g/b_0000.png")
    refused([tmp_path / "f", tmp_path / "g"], "same name", find=find_inputs)
    refused([tmp_path / "none.png"], "none.png does not exist", find=find_inputs)
    refused([tmp_path / "f/notes.txt"], "notes.txt", "convert", find=find_inputs)
    refused([], "no images", find=find_inputs)
    (tmp_path / "empty").mkdir()
    refused([tmp_path / "empty"], "empty", "has no images", find=find_inputs)


def test_inputs_of_several_channels(tmp_path):
    put(*(tmp_path / f"{name}_000{i}.nii.gz" for name in "ab" for i in range(2)))
    cases = find_inputs([tmp_path], channels=2)
    assert names(cases) == ["a", "b"]
    assert cases[0].images[1].name == "a_0001.nii.gz"
    with pytest.raises(InputError, match=r"a has the channels \[0, 1\] where 0 to 2"):
        find_inputs([tmp_path], channels=3)
    put(tmp_path / "c.nii.gz")
    with pytest.raises(InputError, match=r"c\.nii\.gz is one of 2 channels"):
        find_inputs([tmp_path], channels=2)


def test_the_bundled_nuclei():
    parts = splits(NUCLEI)
    assert {name: len(cases) for name, cases in parts.items()} == {"train": 84, "val": 12, "test": 24}
    assert len(find(NUCLEI).all) == 120
    for case in find(NUCLEI).all:
        with Image.open(case.images[0]) as image, Image.open(case.mask) as mask:
            assert image.size == mask.size
            assert max(image.size) <= 256
            assert np.unique(np.asarray(mask)).tolist() == [0, 255]
    assert sum(path.stat().st_size for path in NUCLEI.rglob("*") if path.is_file()) < 6e6
