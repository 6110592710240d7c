"""Labels from tables, folders and MedMNIST's files, and what is said of those that are wrong."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.data.augment import Augment
from somite.data.dataset import Data
from somite.data.digest import digest, summary
from somite.data.extra import Extra
from somite.data.images import write_png
from somite.data.labelled import contradictions
from somite.data.phantoms import write_phantoms
from somite.data.preprocess import Preprocess
from somite.errors import InputError

NEEDS = frozenset({"image", "labels"})


def labelled(root, **options):
    return Data(str(root), **options).needing(NEEDS)


def write(root, columns, table, folder="images"):
    """Images of one colour each, and their table."""
    for index, row in enumerate(table):
        write_png(root / folder / f"{row[0]}.png", np.full((10, 12, 3), 20 * index, np.uint8))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *table])
    return root


def vectors(data):
    return {case.id: case.labels for case in data.cases("all")}


A, B, C = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("columns", "cells", "names", "expected"),
    [
        (["grade"], ["10", "9", "-1"], ("-1", "9", "10"), [C, B, A]),
        (["diagnosis"], ["nevus", "melanoma", "bcc"], ("bcc", "melanoma", "nevus"), [C, B, A]),
        (["melanoma"], ["0", "1", "0"], ("not melanoma", "melanoma"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.0)]),
        (["dr", "amd"], [("1", "1"), ("0", "0"), ("0", "1")], ("dr", "amd"), [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0)]),
    ],
)
@pytest.mark.parametrize("folder", ["images", "."])
def test_a_table_says_which_classes_there_are(columns, cells, names, expected, folder, tmp_path):
    rows = [[name, *([cell] if isinstance(cell, str) else cell)] for name, cell in zip("abc", cells, strict=True)]
    data = labelled(write(tmp_path, ["id", *columns], rows, folder))
    assert data.source.classes == names
    assert vectors(data) == dict(zip("abc", expected, strict=True))
    again = labelled(tmp_path, classes=list(names))  # as a run's recipe has them
    assert again.source.classes == names
    assert vectors(again) == vectors(data)


def test_columns_are_chosen_and_the_others_left(tmp_path):
    table = [["a", "1", "0", "31", "male"], ["b", "0", "1", "42", "female"], ["c", "0", "1", "31", "male"]]
    write(tmp_path, ["id", "melanoma", "keratosis", "age", "sex"], table)
    assert labelled(tmp_path, classes=["melanoma"]).source.classes == ("not melanoma", "melanoma")
    assert labelled(tmp_path, classes=["keratosis", "melanoma"]).source.classes == ("keratosis", "melanoma")
    assert vectors(labelled(tmp_path, classes=["keratosis", "melanoma"]))["a"] == (0.0, 1.0)
    assert labelled(tmp_path, classes=["sex"]).source.classes == ("female", "male")
    with pytest.raises(InputError, match=r"the columns melanoma, keratosis, age, sex: say which .* --data.classes \[melanoma\]"):
        vectors(labelled(tmp_path))


def test_splits_and_groups_of_the_table_are_heeded(tmp_path):
    table = [["a", "x", "train", "p"], ["b", "y", "train", "p"], ["c", "x", "val", "q"], ["d", "y", "test", "r"]]
    data = labelled(write(tmp_path, ["id", "kind", "split", "group"], table))
    assert {name: [case.id for case in data.cases(name)] for name in ("train", "val", "test")} == {
        "train": ["a", "b"],
        "val": ["c"],
        "test": ["d"],
    }
    assert [case.group for case in data.cases("all")] == ["p", "p", "q", "r"]
    write(tmp_path, ["id", "kind", "split", "group"], [*table[:2], ["c", "x", "val", "p"], table[3]])
    with pytest.raises(InputError, match="both are of 'p'"):
        data.moved(str(tmp_path)).cases("train")


def test_what_splits_json_says_comes_first(tmp_path):
    root = write_phantoms(tmp_path, 6, (12, 12))
    data = labelled(root)
    assert [case.id for case in data.cases("test")] == ["case004", "case005"]
    assert data.cases("all")[1].group == "patient000"
    (root / "splits.json").write_text('{"train": ["case001"], "val": ["case002"], "excluded": {"case000": "blurred"}}')
    assert [case.id for case in data.moved(str(root)).cases("all")] == [f"case{index:03d}" for index in range(1, 6)]


def test_a_folder_a_class(tmp_path):
    for kind, count in (("cat", 2), ("ant", 3)):
        for index in range(count):
            write_png(tmp_path / kind / f"{index}.png", np.full((8, 8), 30 * index, np.uint8))
    data = labelled(tmp_path, rates={"train": 0.6, "val": 0.2, "test": 0.2})
    assert data.source.classes == ("ant", "cat")
    assert vectors(data) == {**{f"ant-{i}": (1.0, 0.0) for i in range(3)}, **{f"cat-{i}": (0.0, 1.0) for i in range(2)}}
    assert sum(len(data.cases(split)) for split in ("train", "val", "test")) == 5
    with pytest.raises(InputError, match=r"class 'ant' \(ant-0\), which is none of cat, dog"):
        vectors(labelled(tmp_path, classes=["cat", "dog"]))


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (6, 7, 8)])
@pytest.mark.parametrize("several", [False, True])
def test_medmnist(shape, several, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(256, size=(n, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(2, size=(n, 3)) if several else (np.arange(n) % 2)[:, None]
    np.savez_compressed(tmp_path / "some.npz", **arrays)
    data = labelled(tmp_path / "some.npz", preprocess=Preprocess(channels=3 if shape[-1] == 3 else 1, dims=3 if shape == (6, 7, 8) else 2))
    assert [case.id for case in data.cases("val")] == ["val-00000", "val-00001"]
    case = data.cases("train")[3]
    image = arrays["train_images"][3] / 255
    wanted = np.moveaxis(image, -1, 0) if shape[-1] == 3 else image[None]
    assert np.allclose(data.loaded(case)["image"][0], wanted, atol=1e-6)
    assert list(case.labels) == (list(arrays["train_labels"][3]) if several else [0, 1])
    assert data.source.classes == (("0", "1", "2") if several else ("0", "1"))
    cases = data.cases("train")
    assert summary(cases)["bytes"] == (tmp_path / "some.npz").stat().st_size
    changed = [*cases[:3], replace(cases[3], packed=cases[2].packed)]
    assert digest(changed) != digest(cases)


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        (["id", "kind"], [["a", "x"], ["b", ""]], "has no kind for 'b' ('empty')"),
        (["id", "kind"], [["a", "x"], ["b", "NaN"]], "has no kind for 'b' ('NaN')"),
        (["id", "kind"], [["a", "x"], ["b", "x"]], "one class alone (x)"),
        (["id", "one"], [["a", "1"], ["a", "0"], ["b", "0"]], "the id 'a' again"),
        (["id"], [["a"], ["b"]], "the columns id alone"),
        (["name", "kind"], [["a", "x"], ["b", "y"]], "lacks the column 'id'"),
        (["id", "kind", "split"], [["a", "x", "train"], ["b", "y", ""]], "has no split for 'b'"),
    ],
)
def test_a_wrong_table_is_refused_in_a_sentence(columns, rows, words, tmp_path):
    write(tmp_path, columns, rows)
    with pytest.raises(InputError) as error:
        labelled(tmp_path).cases("all")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_and_files_that_do_not_meet(tmp_path):
    write(tmp_path, ["id", "kind"], [[f"a{i}", "x" if i % 2 else "y"] for i in range(9)])
    for index in range(7):
        (tmp_path / "images" / f"a{index}.png").unlink()
    with pytest.raises(InputError, match=r"ids without an image \(7 rows: a0, a1, a2, a3, a4 and 2 more\)"):
        labelled(tmp_path).cases("all")
    write(tmp_path, ["id", "kind"], [["a7", "x"], ["a8", "y"]])
    write_png(tmp_path / "images" / "z.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"no row for images that are there \(1 images: z\)"):
        labelled(tmp_path).cases("all")


def test_other_data_have_the_classes_of_the_run(tmp_path):
    """The order is the run's, a class may be missing, and an unknown one is named."""
    data = labelled(write(tmp_path / "mine", ["id", "kind"], [["a", "x"], ["b", "y"], ["c", "z"]]), classes=["z", "y", "x"])
    other = data.moved(str(write(tmp_path / "other", ["id", "kind"], [["a", "x"], ["b", "x"]])))
    assert vectors(other) == {"a": (0.0, 0.0, 1.0), "b": (0.0, 0.0, 1.0)}
    assert data.read(replace(data.cases("all")[0], labels=None)).classes == ("z", "y", "x")  # an image to predict
    with pytest.raises(InputError, match=r"class 'w' \(b\), which is none of z, y, x"):
        vectors(data.moved(str(write(tmp_path / "odd", ["id", "kind"], [["a", "x"], ["b", "w"]]))))
    with pytest.raises(InputError, match="none of z, y, x: say which columns"):
        vectors(data.moved(str(write(tmp_path / "none", ["id", "kind"], [["a", "u"], ["b", "w"]]))))


def test_what_is_no_labelled_data(tmp_path):
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "a.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name, words in (
        (".", "no labels in a layout"),
        ("nowhere", "does not exist"),
        ("bad.npz", "cannot be read as an .npz"),
        ("other.npz", "no array train_images"),
    ):
        with pytest.raises(InputError, match=words):
            labelled(tmp_path / name).cases("all")


def test_one_image_under_two_labels_is_found(tmp_path):
    write(tmp_path, ["id", "kind"], [["a", "x"], ["b", "y"], ["c", "x"], ["d", "x"]])
    for copy in "bd":
        shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / f"{copy}.png")
    assert [(one.id, other.id) for one, other in contradictions(labelled(tmp_path).cases("all"))] == [("a", "b")]


def test_examples_keep_their_labels_through_crop_and_augmentation(tmp_path):
    root = write_phantoms(tmp_path, 6, (20, 24))
    data = labelled(root, crop=[32, 16], augment=Augment(rate=1.0, elastic=2.0))
    for index, case in enumerate(data.cases("train")):
        sample = data.draw(index, 3)
        assert sample["image"].shape == (3, 32, 16)
        assert torch.equal(sample["labels"], torch.tensor(case.labels))
    batch = next(iter(data.stream(2, 1, 0)))
    assert batch["labels"].shape == (2, 2)


def test_each_slice_of_a_volume_has_the_volumes_labels(tmp_path):
    root = write_phantoms(tmp_path, 3, (12, 13, 9), channels=1)
    case = labelled(root).cases("train")[0]
    flat, whole = (labelled(root, preprocess=Preprocess(channels=1, dims=dims)).loaded(case) for dims in (2, 3))
    assert flat["labels"].shape == (len(flat["image"]), 2) == (9, 2)
    assert whole["labels"].shape == (1, 2)
    assert (flat["labels"] == torch.tensor(case.labels)).all()


def test_a_label_that_is_mended_is_other_data(tmp_path):
    root = Path(write_phantoms(tmp_path, 6, (12, 12)))
    before = labelled(root).cases("all")
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("case003,small", "case003,large"))
    after = labelled(root).cases("all")
    assert [digest([a]) == digest([b]) for a, b in zip(before, after, strict=True)] == [True, True, True, False, True, True]


def test_extra_images_are_for_training_alone(tmp_path):
    own = write(tmp_path / "own", ["id", "kind", "split"], [[f"c{i}", "ab"[i % 2], ["train", "test", "val"][i // 4]] for i in range(9)])
    drawn = write(tmp_path / "drawn", ["id", "b", "a"], [[f"c{i}", i % 2, 1 - i % 2] for i in range(8)])

    def cases(**options):
        return {split: [case.id for case in labelled(own, extra=Extra(str(drawn), **options)).cases(split)] for split in ("train", "test")}

    for found, count in ((cases(), 8), (cases(ratio=1.25), 5)):
        assert found == {"train": ["c0", "c1", "c2", "c3", *[f"extra-c{i}" for i in range(count)]], "test": ["c4", "c5", "c6", "c7"]}
    assert cases(ratio=1, alone=True)["train"] == [f"extra-c{i}" for i in range(4)]
    joined = labelled(own, extra=Extra(str(drawn))).cases("train")
    assert [case.labels for case in joined if case.id in ("c0", "extra-c0")] == [(1.0, 0.0)] * 2  # of the data's order, a then b
    assert not {case.group for case in joined if "extra" in case.id} & {case.group for case in joined if "extra" not in case.id}
    with pytest.raises(InputError, match=r"8 images, and --data\.extra\.ratio 3 asks for 12"):
        cases(ratio=3)
    with pytest.raises(InputError, match="must be above 0"):
        cases(ratio=0)
