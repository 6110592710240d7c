"""Preprocessed cases on disk: the same samples, made once, whatever happens to the folder."""

import errno
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from scans import Own, write
from somite.data import cache
from somite.data.augment import Augment
from somite.data.body import Body
from somite.data.cache import CONTENTS, DiskCache
from somite.data.coordinates import BodyBox, Scrambled
from somite.data.dataset import Data
from somite.data.images import write_png
from somite.data.phantoms import write_phantoms
from somite.data.preprocess import Preprocess
from somite.data.views import Views
from somite.errors import InputError
from somite.trainer.run import differences


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("volumes"), 6, (24, 20, 16), channels=1)


def data_of(root, folder, **options):
    options = {"crop": [12, 10, 8], "cache_gb": 0, "cache_disk_gb": 1.0, "cache_folder": str(folder), **options}
    preprocess = options.pop("preprocess", None) or Preprocess(1, dims=3, orientation="RAS", spacing_mm=[1.0, 1.0, 1.5], normalise=Own())
    return Data(str(root), preprocess, **options)


def count(monkeypatch):
    """How often a case has been read and resampled."""
    calls = []
    plain = Data.sample
    monkeypatch.setattr(Data, "sample", lambda self, record, entries: calls.append(record.case.id) or plain(self, record, entries))
    return calls


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def entries(folder):
    return sorted(path.parent for path in folder.glob(f"*/{CONTENTS}"))


KINDS = {
    "crops": {},
    "whole": {"crop": None},
    "small": {"crop": [30, 12, 40]},
    "augmented": {"augment": Augment(rate=1.0, elastic=0.3), "foreground_rate": 0.5},
    "foreground": {"foreground_rate": 1.0, "crop": 4},
    "slices": {"preprocess": Preprocess(1, normalise=Own()), "crop": 8, "foreground_rate": 0.7},
    "conditions": {"body": Body(0.3), "coordinates": BodyBox(), "augment": Augment()},
    "views": {"crop": None, "views": Views(12, voxels=16, spacing_mm=[[1, 2]] * 3, hide_rate=0.5), "body": Body(0.3)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_the_same_with_and_without_and_resample_once(volumes, tmp_path, monkeypatch, kind):
    plain = data_of(volumes, tmp_path / "none", cache_disk_gb=0, cache_folder=None, cache_gb=1, **KINDS[kind])
    wanted = [plain.draw(index, seed) for seed in range(6) for index in range(2)]
    calls = count(monkeypatch)
    for _ in range(2):  # as by another run
        kept = data_of(volumes, tmp_path, **KINDS[kind])
        found = [kept.draw(index, seed) for seed in range(6) for index in range(2)]
        assert all(same(a, b) for a, b in zip(found, wanted, strict=True))
    assert sorted(calls) == sorted(case.id for case in kept.cases("train")[:2])
    assert same(kept.loaded(kept.cases("train")[0]), plain.loaded(plain.cases("train")[0]))


def test_a_raters_foreground_is_the_raters(tmp_path):
    """Not the mask's, which is known from disk."""
    root = write_phantoms(tmp_path / "data", 3, (24, 20))
    for index in range(3):
        for rater in range(2):
            mark = np.zeros((24, 20), np.uint8)
            mark[rater * 20, index] = 255
            write_png(root / "raters" / f"case{index:03d}_{rater}.png", mark)
    data = Data(str(root), crop=4, foreground_rate=1.0, raters=True, cache_gb=0, cache_disk_gb=1, cache_folder=str(tmp_path / "kept"))
    assert all(data.draw(0, seed)["mask"].sum() == 1 for seed in range(12))


def test_memory_comes_first_and_by_default_nothing_is_written(volumes, tmp_path, monkeypatch):
    monkeypatch.setenv("SOMITE_CACHE", str(tmp_path / "own"))
    data_of(volumes, None, cache_gb=1, cache_folder=None).draw(0, 0)
    Data(str(volumes), Preprocess(1, dims=3), cache_gb=0).draw(0, 0)
    assert not (tmp_path / "own").exists()
    data_of(volumes, None, cache_folder=None).draw(0, 0)
    assert len(entries(tmp_path / "own")) == 1


def test_a_crop_is_all_that_is_copied(volumes, tmp_path):
    data = data_of(volumes, tmp_path)
    data.draw(0, 0)
    drawn = data.draw(0, 0)
    assert drawn["image"].untyped_storage().nbytes() == 12 * 10 * 8 * 4
    wanted = {name: part.clone() for name, part in drawn.items()}
    for part in drawn.values():
        part.fill_(1)  # nobody else's
    assert same(data.draw(0, 0), wanted)
    data.loaded(data.cases("train")[0])["image"].fill_(7)  # nor the file's
    assert same(data.draw(0, 0), wanted)


def test_workers_share_what_is_kept(volumes, tmp_path, monkeypatch):
    wanted = list(data_of(volumes, tmp_path / "a").stream(batch=2, total=6, seed=1))
    found = list(data_of(volumes, tmp_path / "b").stream(batch=2, total=6, seed=1, workers=2))
    assert all(same(a, b) for a, b in zip(found, wanted, strict=True))
    assert len(entries(tmp_path / "a")) == len(entries(tmp_path / "b")) == 2
    calls = count(monkeypatch)
    assert all(same(a, b) for a, b in zip(data_of(volumes, tmp_path / "b").stream(batch=2, total=6, seed=1), wanted, strict=True))
    assert not calls


def write_often(folder, value):
    disk = DiskCache(folder, 2**30)
    for _ in range(30):
        disk.put(key("e"), {"image": torch.full((1, 40, 40), value), "mask": torch.ones(3, dtype=torch.uint8)})
        found = disk.get(key("e"))
        assert found is not None and float(found["image"].sum()) == 1600 * value, "an entry that is half of one and half of another"
    return disk.off


def test_two_processes_that_write_the_same_do_not_meet(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(write_often, [(tmp_path, 3.0), (tmp_path, 3.0)]) == [False, False]
    assert sorted(path.name for path in tmp_path.glob("*/*")) == [CONTENTS, "image.npy", "mask.npy"]


def settings(root):
    return [
        {},
        {"labels": [0, 1]},
        {"mask_threshold": 1},
        {"body": Body(0.3)},
        {"body": Body(0.4)},
        {"coordinates": BodyBox()},
        {"coordinates": Scrambled(0)},
        {"coordinates": Scrambled(1)},
        {"preprocess": Preprocess(1, dims=3)},
        {"preprocess": Preprocess(1, dims=3, above=0.2)},
        {"preprocess": Preprocess(1, dims=3, above=0.3)},
        {"preprocess": Preprocess(1, dims=3, spacing_mm=[1.0, 1.0, 1.0])},
        {"views": Views(8), "crop": None},
    ]


def test_what_the_values_depend_on_tells_entries_apart(volumes, tmp_path):
    coordinates = {"preprocess": Preprocess(1, dims=3, orientation="RAS")}
    keys = []
    for options in settings(volumes):
        extra = coordinates if {"coordinates", "views"} & set(options) else {}
        data = data_of(volumes, tmp_path, **{**extra, **options})
        keys.append([data.key(case) for case in data.cases("train")])
        assert keys[-1] == [data_of(volumes, tmp_path, **{**extra, **options}).key(case) for case in data.cases("train")]
    flat = [key for some in keys for key in some]
    assert len(set(flat)) == len(flat)
    data = data_of(volumes, tmp_path)
    assert data.needing({"image"}).key(data.cases("train")[0]) not in flat  # of fewer entries
    assert data_of(volumes, tmp_path, crop=5, augment=Augment(), foreground_rate=1.0).key(data.cases("train")[0]) == keys[0][0]


def test_a_file_that_changed_is_read_again(tmp_path):
    write(tmp_path / "data", "LPS")
    data = data_of(tmp_path / "data", tmp_path / "kept", rates={"train": 1.0})
    case = data.source.all[0]
    before = data.loaded(case)["image"].clone()
    assert torch.equal(data.loaded(case)["image"], before)
    write(tmp_path / "data", "RAS", padding=-2000)
    again = data_of(tmp_path / "data", tmp_path / "kept")
    assert again.loaded(case)["image"].min() < -1500 and len(entries(tmp_path / "kept")) == 2


DAMAGE = {
    "cut short": lambda entry: (entry / "image.npy").write_bytes((entry / "image.npy").read_bytes()[:5000]),
    "empty": lambda entry: (entry / "mask.npy").write_bytes(b""),
    "gone": lambda entry: (entry / "image.npy").unlink(),
    "noise": lambda entry: (entry / "image.npy").write_bytes(os.urandom(40000)),
    "another": lambda entry: np.save(entry / "image.npy", np.zeros((1, 1, 4, 4, 4), np.float32)),
    "of objects": lambda entry: np.save(entry / "image.npy", np.array([{}, 1], dtype=object), allow_pickle=True),
    "contents cut short": lambda entry: (entry / CONTENTS).write_text((entry / CONTENTS).read_text()[:20]),
    "contents of something else": lambda entry: (entry / CONTENTS).write_text("[1, 2]"),
    "no contents": lambda entry: (entry / CONTENTS).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_entry_is_made_anew(volumes, tmp_path, monkeypatch, damage):
    wanted = data_of(volumes, tmp_path).draw(0, 3)
    (entry,) = entries(tmp_path)
    DAMAGE[damage](entry)
    calls = count(monkeypatch)
    data = data_of(volumes, tmp_path)
    assert same(data.draw(0, 3), wanted) and same(data.draw(0, 3), wanted)
    assert len(calls) == 1 and entries(tmp_path) == [entry]


def key(letter):
    return 40 * letter


def letters(folder):
    return "".join(sorted(path.name[0] for path in entries(folder)))


def tensors(megabytes):
    return {"image": torch.zeros(int(megabytes * 2**20), dtype=torch.uint8)}


def test_the_oldest_make_room(tmp_path):
    disk = DiskCache(tmp_path, 4 * 2**20)
    for letter, age in (("a", 300), ("b", 200), ("c", 100)):
        disk.put(key(letter), tensors(1))
        os.utime(tmp_path / key(letter) / CONTENTS, (time.time() - age,) * 2)
    later = DiskCache(tmp_path, 4 * 2**20)
    assert later.get(key("a")) is not None  # used now, so b is the oldest
    later.put(key("d"), tensors(1.9))
    assert letters(tmp_path) == "acd" and not later.off and not (tmp_path / key("b")).exists()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 4 * 2**20


def test_data_that_do_not_fit_keep_what_does(tmp_path, capsys):
    """Cases drawn in turn would each push out the one that is needed next."""
    disk = DiskCache(tmp_path, 2.5 * 2**20)
    for _ in range(2):
        for letter in "abcd":
            if disk.get(key(letter)) is None:
                disk.put(key(letter), tensors(1))
    assert letters(tmp_path) == "ab"
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "--data.cache_disk_gb" in told
    DiskCache(tmp_path, 2**20).put(key("e"), tensors(2))
    assert not (tmp_path / key("e")).exists()


def test_what_was_abandoned_goes_and_what_is_being_written_stays(tmp_path):
    for letter, age in (("a", 2 * cache.ABANDONED), ("b", 10)):
        folder = tmp_path / key(letter)
        folder.mkdir(parents=True)
        (folder / ".x1-image.npy").write_bytes(b"0" * 2**20)  # as files.replacing calls it
        os.utime(folder, (time.time() - age,) * 2)
    DiskCache(tmp_path, 2.5 * 2**20).put(key("c"), tensors(1))
    assert {path.name[0] for path in tmp_path.iterdir()} == {"b", "c"}


def test_nothing_else_in_the_folder_is_touched(tmp_path):
    """Somebody may name a folder that is full of other things, all of them old."""
    others = [
        tmp_path / "thesis" / "chapter.npy",
        tmp_path / "notes.txt",
        tmp_path / key("a") / "mine" / "x.npy",
        tmp_path / key("b") / "y.txt",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0" * 2**20)
        os.utime(path.parent, (1e9, 1e9))
        os.utime(path, (1e9, 1e9))
    disk = DiskCache(tmp_path, 1.5 * 2**20)
    disk.put(key("c"), tensors(1))
    assert all(path.is_file() for path in others)


def test_a_full_disk_is_said_once_and_training_goes_on(volumes, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    wanted = [data_of(volumes, tmp_path / "whole").draw(index, 1) for index in range(2)]
    monkeypatch.setattr(cache.np, "save", full)
    data = data_of(volumes, tmp_path / "full")
    assert all(same(data.draw(index, 1), one) for _ in range(2) for index, one in enumerate(wanted))
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "No space left on device" in told and "--data.cache_folder" in told
    assert not entries(tmp_path / "full") and not list((tmp_path / "full").glob("*/*"))


def test_a_folder_that_cannot_be_is_said_once(volumes, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    data = data_of(volumes, tmp_path / "file" / "cases")
    for index in (0, 1, 0):
        data.draw(index, 0)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_room_in_it_is_refused():
    with pytest.raises(InputError, match=r"--data.cache_folder .* --data.cache_disk_gb"):
        Data(cache_folder="somewhere")
    with pytest.raises(InputError, match=r"--data.cache_disk_gb -1"):
        Data(cache_disk_gb=-1)


def test_a_run_may_go_on_with_another_cache():
    old, new = ({"data": {"cache_disk_gb": gb, "cache_folder": folder, "crop": 4}} for gb, folder in ((0.0, None), (5.0, "x")))
    assert not differences(old, new) and differences(old, {"data": {**new["data"], "crop": 5}})
