"""Reading the masks of several raters, one file each or as a bit field, and training on a rater drawn anew each time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from somite.data.augment import Augment
from somite.data.dataset import Data
from somite.data.images import read_labels, write_png
from somite.data.nifti import read_volume, write_volume
from somite.data.phantoms import write_phantoms
from somite.data.preprocess import Preprocess
from somite.data.raters import folder_of, raters_of
from somite.errors import InputError

SHAPE = (16, 20)


def truth(seed, n=4, shape=SHAPE):
    return np.random.default_rng(seed).random((n, *shape)) < 0.3


@pytest.fixture
def root(tmp_path):
    """Five phantoms; case 0 has a bit field, the others three files each."""
    write_phantoms(tmp_path, 5, SHAPE)
    bits = (truth(0) << np.arange(4)[:, None, None]).sum(0)
    write_png(tmp_path / "raters" / "case000.png", bits.astype(np.uint8))
    for index in range(1, 5):
        for rater, mask in enumerate(truth(index, 3)):
            write_png(tmp_path / "raters" / f"case{index:03d}_{rater}.png", mask.astype(np.uint8) * 255)
    return tmp_path


def cases(root):
    data = Data(str(root))
    return sorted((case for split in ("train", "val", "test") for case in data.cases(split)), key=lambda case: case.id)


def test_bit_fields_and_files_of_raters(root):
    for index, case in enumerate(cases(root)):
        found = raters_of(case, root / "raters")
        assert found.dtype == bool
        assert np.array_equal(found, truth(index, 4 if index == 0 else 3))


def test_a_rater_who_saw_nothing_is_a_rater(root):
    write_png(root / "raters" / "case001_2.png", np.zeros(SHAPE, np.uint8))
    write_png(root / "raters" / "case000.png", np.zeros(SHAPE, np.uint8))
    assert [len(raters_of(case, root / "raters")) for case in cases(root)[:2]] == [4, 3]
    assert not raters_of(cases(root)[1], root / "raters")[2].any()


def test_the_bit_field_goes_before_a_case_of_a_longer_name(root):
    case = cases(root)[0]
    write_png(root / "raters" / "case000_0.png", np.zeros(SHAPE, np.uint8))
    assert len(raters_of(case, root / "raters")) == 4


def test_volumes(tmp_path):
    write_phantoms(tmp_path, 3, (8, 9, 10), channels=1)
    case = Data(str(tmp_path)).cases("test")[0]
    where = read_volume(case.images[0]).geometry
    for rater, mask in enumerate(truth(0, 2, (8, 9, 10))):
        write_volume(tmp_path / "raters" / f"{case.id}_{rater}.nii.gz", mask.astype(np.uint8), where)
    assert np.array_equal(raters_of(case, tmp_path / "raters"), truth(0, 2, (8, 9, 10)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "case001_1.png").unlink(), r"has case001_2.png but no case001_1: add it"),
        (lambda folder: [(folder / f"case001_{r}.png").unlink() for r in (1, 2)], r"only one mask \(case001_0.png\)"),
        (lambda folder: [(folder / f"case001_{r}.png").unlink() for r in range(3)], r"has no mask of the raters of case001: add"),
        (lambda folder: write_png(folder / "case001_1.png", np.zeros((16, 16), np.uint8)), r"case001_1.png is 16 x 16 but .*: resample"),
        (
            lambda folder: write_png(folder / "case001.png", np.full(SHAPE, 16, np.uint8)),
            r"value 16, but a bit field of 4 raters ends at 15",
        ),
        (lambda folder: write_png(folder / "case001.png", np.ones((16, 16), np.uint8)), r"case001.png is 16 x 16 but"),
        (
            lambda folder: write_png(folder / "case001_0.png", np.arange(320).reshape(SHAPE).astype(np.uint8)),
            r"case001_0.png has the values",
        ),
    ],
)
def test_what_does_not_fit_is_said(root, spoil, words):
    spoil(root / "raters")
    with pytest.raises(InputError, match=words):
        raters_of(cases(root)[1], root / "raters")


def test_the_folder_lies_in_the_data_or_beside_the_table(root):
    (root / "table.csv").write_text("image,mask\n")
    assert folder_of(root) == folder_of(root / "table.csv") == root / "raters"
    with pytest.raises(InputError, match="raters does not exist: put"):
        folder_of(root / "images")


def test_each_draw_has_one_raters_mask_and_all_get_their_turn(root):
    data = Data(str(root), raters=True)
    masks = raters_of(data.cases("train")[0], root / "raters")
    image = Data(str(root)).draw(0, 0)["image"]
    turns = np.zeros(4, int)
    for seed in range(200):
        drawn = data.draw(0, seed)
        assert torch.equal(drawn["image"], image) and drawn["mask"].shape == (1, *SHAPE)
        (rater,) = [r for r, mask in enumerate(masks) if np.array_equal(mask, drawn["mask"][0])]
        turns[rater] += 1
    assert turns.min() > 30  # 50 each are expected, standard deviation 6


def test_a_draw_is_still_a_function_of_index_and_seed(root):
    arguments = {"crop": 12, "augment": Augment(), "foreground_rate": 0.5, "raters": True}
    first, second = Data(str(root), **arguments), Data(str(root), cache_gb=0, **arguments)
    drawn = [first.draw(index, 3)["mask"] for index in range(3)]
    assert all(torch.equal(second.draw(index, 3)["mask"], drawn[index]) for index in (2, 1, 0))


def test_crops_follow_the_foreground_of_the_rater_that_was_drawn(root):
    for rater in range(3):
        mask = np.zeros(SHAPE, np.uint8)
        mask[5 * rater, 6 * rater] = 255
        write_png(root / "raters" / f"case001_{rater}.png", mask)
    data = Data(str(root), crop=4, foreground_rate=1.0, raters=True)
    assert [case.id for case in data.cases("train")][1] == "case001"
    assert all(int(data.draw(1, seed)["mask"].sum()) == 1 for seed in range(40))


def test_raters_masks_are_resized_as_masks_are(root):
    data = Data(str(root), Preprocess(size=[8, 10]), raters=True)
    case = data.cases("train")[1]
    record = data.read(case)
    expected = [data.preprocess.mask(replace(record, labels=mask.astype(np.uint8)))[0, 0] for mask in raters_of(case, root / "raters")]
    drawn = [data.draw(1, seed)["mask"][0] for seed in range(20)]
    assert all(any(torch.equal(one, mask) for mask in expected) for one in drawn)


def test_without_raters_nothing_changes_and_evaluation_reads_masks(root):
    plain, several = Data(str(root)), Data(str(root), raters=True)
    case = plain.cases("train")[0]
    mask = read_labels(case.mask) > 0
    assert np.array_equal(plain.draw(0, 5)["mask"][0], mask)
    several.draw(0, 5)
    assert np.array_equal(several.loaded(case)["mask"][0, 0], mask)  # what validation and the analyses see
    with pytest.raises(InputError, match="leave one of them out"):
        Data(str(root), labels=[0, 1], raters=True)
