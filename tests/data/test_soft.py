"""What a teacher said is read, prepared and moved with its image: maps that are functions of the image go on to be."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from somite.data.augment import Augment
from somite.data.augment_nnunet import NnUNetAugment
from somite.data.dataset import Data
from somite.data.images import write_png
from somite.data.normalise import ZScore
from somite.data.phantoms import write_phantoms
from somite.data.preprocess import Preprocess
from somite.data.record import write_map
from somite.data.soft import Soft
from somite.errors import InputError

TERM = 1 / 65535  # of a map in PNG


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Grey images, and for each training image a map that is the image itself."""
    root = write_phantoms(tmp_path_factory.mktemp("images"), 10, (40, 48), channels=1)
    for case in Data(str(root)).cases("train"):
        grey = np.asarray(Image.open(case.images[0])).astype(np.uint16)
        write_png(root / "soft" / f"{case.id}_probability.png", grey * 257)
    return root


@pytest.fixture(scope="module")
def more(tmp_path_factory, root):
    """Further images without masks, and what the teacher said of them: bright is foreground."""
    folder = write_phantoms(tmp_path_factory.mktemp("more"), 3, (40, 48), channels=1, seed=5)
    shutil.rmtree(folder / "masks")
    for path in (folder / "images").iterdir():
        grey = np.asarray(Image.open(path)).astype(np.uint16)
        write_png(root / "soft" / f"unlabelled-{path.stem}_probability.png", grey * 257)
    return folder


def data(root, unlabelled=None, size=None, **more):
    return Data(str(root), Preprocess(1, size), soft=Soft(str(root / "soft"), unlabelled and str(unlabelled)), **more)


@pytest.mark.parametrize(
    "augment", [None, Augment(elastic=2.0, rate=1.0, brightness=0, contrast=0), NnUNetAugment()], ids=lambda one: type(one).__name__
)
def test_a_map_moves_with_its_image(root, augment):
    made = data(root, crop=24, augment=augment)
    loud = isinstance(augment, NnUNetAugment)  # it changes brightness too
    for index in range(6):
        sample = made.draw(index, 7)
        assert sample["soft"].shape == (1, 24, 24)
        assert sample["known"].tolist() == [1.0]
        image, soft = sample["image"].flatten(), sample["soft"].flatten()
        if loud:
            assert torch.corrcoef(torch.stack([image, soft]))[0, 1].abs() > 0.8
        else:
            torch.testing.assert_close(soft, image, rtol=0, atol=2e-4)


def test_what_it_brings_beside_is_all_that_changes(root):
    taught, plain = data(root, crop=24, augment=Augment()), Data(str(root), Preprocess(1), crop=24, augment=Augment())
    for index in range(6):
        ours, theirs = taught.draw(index, 3), plain.draw(index, 3)
        assert set(ours) - set(theirs) == {"soft", "known"}
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert set(taught.loaded(taught.cases("val")[0])) == {"image", "mask"}
    assert taught.cases("test") == plain.cases("test")


def test_it_is_resized_as_the_image_is(root):
    made = data(root, size=[20, 24])
    sample = made.loaded(made.cases("train")[0])
    torch.testing.assert_close(sample["soft"], sample["image"], rtol=0, atol=1e-4)


def test_unlabelled_images_come_last_with_the_masks_that_the_teacher_decides(root, more):
    made, plain = data(root, more), Data(str(root), Preprocess(1))
    cases = made.cases("train")
    assert cases[:-3] == plain.cases("train")
    assert [case.id for case in cases[-3:]] == [f"unlabelled-case00{i}" for i in range(3)]
    sample = made.draw(len(cases) - 1, 0)
    assert sample["known"].tolist() == [0.0]
    assert torch.equal(sample["mask"], (sample["soft"] >= 0.5).to(torch.uint8))
    assert 0 < float(sample["mask"].float().mean()) < 1
    assert made.cases("val") == plain.cases("val")


def test_a_run_is_evaluated_where_unlabelled_images_and_maps_are_gone(root):
    gone = Data(str(root), Preprocess(1), soft=Soft("nowhere", "nowhere too"))
    assert len(gone.cases("test")) == 2
    assert gone.moved(str(root)).soft is None


@pytest.mark.parametrize("cached", [{"cache_gb": 0.0}, {"cache_gb": 0.0, "cache_disk_gb": 0.1}])
def test_it_is_the_same_from_memory_and_disk_and_new_where_the_map_is(root, more, tmp_path, cached):
    folder = {"cache_folder": str(tmp_path / "cache")} if len(cached) > 1 else {}
    copy = shutil.copytree(root, tmp_path / "copy")
    known = data(copy, more, crop=24, augment=Augment())
    for _ in range(2):
        again = data(copy, more, crop=24, augment=Augment(), **cached, **folder)
        assert all(torch.equal(again.draw(8, 2)[name], part) for name, part in known.draw(8, 2).items())
    case = known.cases("train")[8]
    write_png(copy / "soft" / f"{case.id}_probability.png", np.zeros((40, 48), np.uint16))
    assert not data(copy, more, **cached, **folder).draw(8, 2)["soft"].any()


def test_classes_of_a_turned_volume_are_seen_slice_by_slice_and_whole(tmp_path):
    root = write_phantoms(tmp_path / "volumes", 6, (12, 10, 8), channels=1, classes=2)
    plain = Data(str(root), Preprocess(1, dims=3, orientation="RAS"), labels=[0, 1, 2])
    for case in plain.cases("train"):
        record = plain.read(case)
        for label in range(3):
            write_map(root / "soft" / f"{case.id}_probability-{label}", (record.truth == label).astype(np.float32), record)
    for preprocess in (
        Preprocess(1, dims=3, orientation="RAS", above=0.2, normalise=ZScore()),
        Preprocess(1, dims=2, axis=0),
        Preprocess(1, dims=3),
    ):
        made = Data(str(root), preprocess, labels=[0, 1, 2], soft=Soft(str(root / "soft")))
        sample = made.loaded(made.cases("train")[0])
        assert torch.equal(sample["soft"].argmax(1, keepdim=True), sample["mask"].long())
        assert len(sample["known"]) == len(sample["image"])


def test_what_does_not_go_together_is_told(root, tmp_path):
    soft = Soft(str(root / "soft"))
    with pytest.raises(InputError, match="leave one of them out"):
        Data(str(root), soft=soft, raters=True)
    with pytest.raises(InputError, match="task does not learn"):
        Data(str(root), soft=soft).needing({"image"})
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing is empty"):
        Soft("anywhere", str(tmp_path / "nothing")).cases()


def test_a_map_that_is_missing_or_none_is_told(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    made = data(copy)
    case = made.cases("train")[0]
    path = copy / "soft" / f"{case.id}_probability.png"
    write_png(path, np.zeros((40, 47), np.uint16))
    with pytest.raises(InputError, match="40 x 47 but"):
        made.loaded(case)
    write_png(path, np.zeros((40, 48, 3), np.uint8))
    with pytest.raises(InputError, match="is in colour"):
        made.loaded(case)
    path.unlink()
    with pytest.raises(InputError, match=f"has no {case.id}_probability, what the teacher says"):
        made.loaded(case)


def test_the_classes_of_a_binary_mask_may_be_named_otherwise(tmp_path):
    for tags in ((0, 1), (0, 255)):
        folder = tmp_path / str(tags[1])
        for tag in tags:
            write_png(folder / f"a_probability-{tag}.png", np.zeros((4, 4), np.uint16))
        for values in (None, (0, 1), (0, 255)):
            assert [path.name for path in Soft(str(folder)).files("a", values)] == [f"a_probability-{tag}.png" for tag in tags]
        with pytest.raises(InputError, match="has no a_probability-0, what"):
            Soft(str(folder)).files("a", (0, 1, 2))


def test_splits_are_those_of_the_other_data(root, tmp_path):
    theirs = Data(str(root), Preprocess(3, 16), split_seed=4)
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["case000"], "val": ["case002"], "test": ["case009"]}))
    made = theirs.over(data(root, splits=str(tmp_path / "mine.json")))
    assert [case.id for case in made.cases("test")] == ["case009"]
    assert made.preprocess is theirs.preprocess
    assert made.soft is None
