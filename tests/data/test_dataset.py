"""What training draws: a function of (index, seed), inside the image, on the foreground as often as asked."""

import itertools

import numpy as np
import pytest
import torch

from somite.data.augment import Augment
from somite.data.dataset import Data
from somite.data.images import write_png
from somite.data.nifti import read_volume
from somite.data.phantoms import write_phantoms
from somite.data.preprocess import Preprocess
from somite.errors import InputError
from somite.nn.padding import mirrored


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("images"), 10, (40, 48))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("volumes"), 5, (16, 20, 8), channels=1)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("image", "mask"))


@pytest.mark.parametrize("order", [range(6), reversed(range(6))])
def test_a_draw_is_a_function_of_index_and_seed(images, order):
    data = Data(str(images), crop=24, augment=Augment(), foreground_rate=0.5)
    known = [data.draw(index, 7) for index in range(6)]
    torch.manual_seed(5)
    np.random.seed(5)
    fresh = Data(str(images), crop=24, augment=Augment(), foreground_rate=0.5, cache_gb=0)
    assert all(same(fresh.draw(index, 7), known[index]) for index in order)
    assert not same(data.draw(0, 8), known[0])
    assert not same(data.draw(1, 7), known[0])


def test_drawing_leaves_what_is_cached_alone(images):
    data = Data(str(images), augment=Augment(brightness=0.5, contrast=0.5, noise=0.2, rate=1.0))
    case = data.cases("train")[0]
    before = {name: part.clone() for name, part in data.loaded(case).items()}
    for seed in range(5):
        data.draw(0, seed)
    assert same(data.loaded(case), before)
    assert data.loaded(case)["image"] is data.loaded(case)["image"]


def test_a_crop_is_a_window_of_image_and_mask(images):
    data = Data(str(images), crop=[20, 16])
    image, mask = data.loaded(data.cases("train")[0]).values()
    corners = set()
    for seed in range(60):
        drawn = data.draw(0, seed)
        assert drawn["image"].shape == (3, 20, 16)
        places = [
            (y, x) for y, x in itertools.product(range(21), range(33)) if torch.equal(image[0, :, y : y + 20, x : x + 16], drawn["image"])
        ]
        assert len(places) == 1
        ((y, x),) = places
        assert torch.equal(mask[0, :, y : y + 20, x : x + 16], drawn["mask"])
        corners.add((y, x))
    assert len(corners) > 40


@pytest.fixture(scope="module")
def speck(tmp_path_factory):
    """Nine pixels of foreground in a large image and in one slice of a volume."""
    root = tmp_path_factory.mktemp("speck")
    for index in range(4):
        mask = np.zeros((64, 64), np.uint8)
        mask[2:5, 58:61] = 255
        write_png(root / "images" / f"{index}.png", np.full((64, 64, 3), 99, np.uint8))
        write_png(root / "masks" / f"{index}.png", mask)
    return root


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_foreground_rate_is_the_share_of_crops_that_hold_some(speck, rate):
    data = Data(str(speck), crop=12, foreground_rate=rate)
    held = sum(bool(data.draw(0, seed)["mask"].any()) for seed in range(200))
    chance = (5 * 14) / 53**2  # corners 0..4 by 47..52 of 53 x 53; a little more than there are
    expected = rate + (1 - rate) * chance
    assert abs(held - 200 * expected) <= 5 * np.sqrt(200 * max(expected * (1 - expected), 0.01)) if rate < 1 else held == 200


def test_foreground_is_not_always_in_the_middle(speck):
    data = Data(str(speck), crop=12, foreground_rate=1.0)
    places = {tuple(data.draw(0, seed)["mask"][0].nonzero()[0].tolist()) for seed in range(100)}
    assert len(places) > 8  # it would be one


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_are_drawn_slice_by_slice(volumes, axis):
    data = Data(str(volumes), Preprocess(channels=1, axis=axis))
    case = data.cases("train")[0]
    volume = read_volume(case.images[0]).array[0]
    met = set()
    for seed in range(80):
        drawn = data.draw(0, seed)["image"][0]
        (index,) = [i for i in range(volume.shape[axis]) if np.array_equal(volume.take(i, axis), drawn)]
        met.add(index)
    assert len(met) > 0.9 * volume.shape[axis]


def test_foreground_rate_chooses_the_slice_too(volumes):
    data = Data(str(volumes), Preprocess(channels=1), crop=6, foreground_rate=1.0)
    assert all(data.draw(index, seed)["mask"].any() for index in range(3) for seed in range(40))


def test_volumes_for_a_3d_network_are_cut_to_cubes(volumes):
    data = Data(str(volumes), Preprocess(channels=1, dims=3), crop=[8, 12, 4], foreground_rate=1.0)
    drawn = data.draw(0, 0)
    assert drawn["image"].shape == drawn["mask"].shape == (1, 8, 12, 4)
    assert all(data.draw(0, seed)["mask"].any() for seed in range(40))


@pytest.mark.parametrize("dims", [2, 3])
def test_small_images_are_mirrored_to_the_crop_together_with_their_masks(images, volumes, dims):
    root, crop, channels = (images, [100, 60], 3) if dims == 2 else (volumes, [40, 20, 21], 1)
    data = Data(str(root), Preprocess(channels=channels, dims=dims), crop=crop)
    image, mask = (part[0] for part in data.loaded(data.cases("train")[0]).values())
    drawn = data.draw(0, 3)
    pad = [(0, 0), *((0, max(want - have, 0)) for have, want in zip(image.shape[1:], crop, strict=True))]
    assert np.array_equal(drawn["image"], np.pad(image.numpy(), pad, "reflect"))
    assert np.array_equal(drawn["mask"], np.pad(mask.numpy(), pad, "reflect"))


@pytest.mark.parametrize(("have", "want"), [(1, 5), (2, 7), (5, 6), (5, 23)])
def test_mirroring_is_numpys_reflect(have, want):
    x = torch.rand(2, have, 3)
    assert np.array_equal(mirrored(x, 1, want), np.pad(x.numpy(), [(0, 0), (0, want - have), (0, 0)], "reflect"))


def test_a_crop_of_too_few_numbers_is_refused(images):
    with pytest.raises(InputError, match=r"--data.crop \[8\] has 1 numbers for 2 axes"):
        Data(str(images), crop=[8]).draw(0, 0)


def test_without_lists_cases_are_split_by_hash_of_the_patient(tmp_path):
    root = write_phantoms(tmp_path, 40, (8, 8))
    (root / "splits.json").unlink()
    data = Data(str(root))
    parts = {name: data.cases(name) for name in ("train", "val", "test")}
    assert sorted(case.id for part in parts.values() for case in part) == [f"case{n:03d}" for n in range(40)]
    groups = [{case.group for case in part} for part in parts.values()]
    assert not any(a & b for a, b in itertools.combinations(groups, 2))
    assert len(parts["train"]) > len(parts["test"]) >= len(parts["val"]) > 0
    assert {c.id for c in Data(str(root), split_seed=1).cases("train")} != {c.id for c in parts["train"]}


def test_val_is_carved_from_train_and_test_is_left_alone(tmp_path):
    root = write_phantoms(tmp_path, 40, (8, 8))
    ids = [f"case{n:03d}" for n in range(40)]
    (root / "splits.json").write_text(f'{{"train": {ids[:30]}, "test": {ids[30:]}}}'.replace("'", '"'))
    data = Data(str(root), rates={"train": 0.5, "val": 0.3, "test": 0.2})
    train, val, test = (data.cases(name) for name in ("train", "val", "test"))
    assert [case.id for case in test] == ids[30:]
    assert sorted(case.id for case in train + val) == ids[:30]
    assert 0 < len(val) < len(train)
    assert not {case.group for case in train} & {case.group for case in val}


def test_data_that_take_the_place_of_others_are_not_divided_into_their_folds(tmp_path):
    data = Data(str(write_phantoms(tmp_path / "own", 20, (8, 8))), fold=0)
    assert len(data.cases("val")) >= 2
    other = write_phantoms(tmp_path / "other", 5, (8, 8))  # too few for five folds
    (other / "splits.json").write_text('{"train": ["case000", "case002"], "val": ["case004"], "test": ["case003", "case001"]}')
    data = data.moved(str(other))
    assert [case.id for case in data.cases("test")] == ["case001", "case003"]


def test_all_cases_are_all_that_have_a_mask_listed_or_not(tmp_path):
    root = write_phantoms(tmp_path, 6, (8, 8))
    (root / "splits.json").write_text('{"train": ["case000", "case001"], "test": ["case003"]}')
    assert [case.id for case in Data(str(root)).cases("all")] == [f"case{n:03d}" for n in range(6)]


def test_a_fold_that_trains_on_a_test_case_is_refused(tmp_path):
    for part, ids in (("Tr", "abc"), ("Ts", "t")):
        for name in ids:
            write_png(tmp_path / f"images{part}" / f"{name}_0000.png", np.zeros((8, 8), np.uint8))
            write_png(tmp_path / f"labels{part}" / f"{name}.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "x"}, "file_ending": ".png"}')
    (tmp_path / "splits_final.json").write_text('[{"train": ["a", "b"], "val": ["c"]}, {"train": ["a", "t"], "val": ["b"]}]')
    sound = Data(str(tmp_path), fold=0, folds=2)
    assert {name: [case.id for case in sound.cases(name)] for name in ("train", "val", "test")} == {
        "train": ["a", "b"],
        "val": ["c"],
        "test": ["t"],
    }
    with pytest.raises(InputError, match=r"splits_final\.json lists 't' in train and again in test"):
        Data(str(tmp_path), fold=1, folds=2).cases("train")


def test_other_data_of_the_same_names_are_not_taken_from_the_cache(images, tmp_path):
    data = Data(str(images))
    before = data.loaded(data.cases("train")[0])["image"]
    data = data.moved(str(write_phantoms(tmp_path, 10, (40, 48), seed=1)))
    assert not torch.equal(data.loaded(data.cases("train")[0])["image"], before)


def test_the_cache_holds_no_more_than_it_may(images):
    data = Data(str(images), cache_gb=2.5 * (40 * 48 * (3 * 4 + 1)) / 2**30)
    for case in data.cases("train"):
        data.loaded(case)
    assert len(data._cache) == 2


def test_what_is_missing_is_said(images):
    with pytest.raises(InputError, match=r"add --data\.root"):
        Data().cases("train")
    with pytest.raises(InputError, match=r"'nope'; it has train \(6\)"):
        Data(str(images)).cases("nope")


def test_the_loader_gives_batches_that_go_on_where_they_stopped(images):
    data = Data(str(images), crop=16)
    whole = list(data.stream(batch=2, total=5, seed=3))
    rest = list(data.stream(batch=2, total=5, seed=3, start=3))
    assert [batch["image"].shape for batch in whole] == [(2, 3, 16, 16)] * 5
    assert len(rest) == 2
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_make_no_batch(tmp_path, workers):
    root = write_phantoms(tmp_path, 9, (24, 24))
    write_phantoms(tmp_path / "other", 9, (24, 32))
    for kind in ("images", "masks"):
        (tmp_path / "other" / kind / "case001.png").replace(root / kind / "case001.png")
    with pytest.raises(InputError, match=r"24 x 24, 24 x 32.*--data.crop"):
        list(Data(str(root)).stream(batch=7, total=1, seed=0, workers=workers))
