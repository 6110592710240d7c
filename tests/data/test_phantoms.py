import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from somite.data.digest import digest, summary
from somite.data.phantoms import phantom, write_phantoms
from somite.data.record import read
from somite.data.sources import find


def splits(root):
    """The splits that the data bring."""
    found = find(root)
    return {name: found.split(name) for name in found.splits}


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (24, 24, 20)])
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 2), (2, 4)])
def test_phantoms(size, channels, classes):
    for index in range(6):
        image, labels = phantom(index, size, channels, classes)
        assert image.shape == (channels, *size)
        assert labels.shape == size
        assert image.dtype == np.float32
        assert labels.dtype == np.uint8
        assert image.min() >= 0
        assert image.max() <= 1
        assert np.unique(labels).tolist() == list(range(classes + 1))
        assert 0.01 < (labels > 0).mean() < 0.6
        means = [image[:, labels == k].mean() for k in range(classes + 1)]
        assert all(a < means[1] for a in means[:1])
        assert all(mean > means[0] + 0.15 for mean in means[1:])


def test_one_to_three_blobs():
    counts = {label(phantom(index)[1])[1] for index in range(30)}
    assert len(counts) >= 2
    assert max(counts) <= 4


def test_phantoms_are_reproducible_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    a, b, c, d = phantom(3), phantom(3), phantom(4), phantom(3, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(a[0], b[0])
    assert not np.array_equal(a[0], c[0])
    assert not np.array_equal(a[0], d[0])


def test_wrong_sizes(tmp_path):
    for size in ((64,), (4, 64), (8, 8, 8, 8)):
        with pytest.raises(ValueError, match="2 or 3 axes"):
            phantom(0, size)
    with pytest.raises(ValueError, match="at least 3"):
        write_phantoms(tmp_path, 2)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        write_phantoms(tmp_path, 3, channels=2)


@pytest.mark.parametrize("size", [(32, 40), (12, 13, 14)])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("n", [3, 10])
def test_a_folder_of_phantoms_is_a_data_set(tmp_path, size, classes, n):
    root = write_phantoms(tmp_path, n, size, classes=classes)
    cases = find(root).all
    assert len(cases) == n
    assert all(splits(root).values())
    groups = [{case.group for case in found} for found in splits(root).values()]
    assert all(not a & b for a, b in pairwise([*groups, groups[0]]))
    for index, case in enumerate(cases):
        record = read(case, None if classes == 1 else [0, 1, 2])
        image, labels = phantom(index, size, classes=classes)
        assert np.array_equal(record.labels, labels)
        assert np.abs(record.image - image).max() <= 0.5 / 255 + 1e-6
        assert record.spacing == (None if len(size) == 2 else (1, 1, 2))


def test_digest(tmp_path):
    a, b = (find(write_phantoms(tmp_path / name, 6, (16, 16))).all for name in "ab")
    assert len(digest(a)) == 64
    assert digest(a) == digest(b[::-1])
    assert digest(a) != digest(a[1:])
    assert digest(a) != digest([replace(a[0], id="z"), *a[1:]])
    assert digest(a) != digest([replace(a[0], mask=None), *a[1:]])
    content = b[0].mask.read_bytes()
    b[0].mask.write_bytes(content + b"\0")
    assert digest(a) != digest(b)
    size = sum(path.stat().st_size for case in a for path in (*case.images, case.mask))
    assert summary(a) == {"cases": 6, "groups": 3, "masks": 6, "files": 12, "bytes": size}
    assert summary([replace(a[0], mask=None)])["masks"] == 0


def test_the_splits_file_is_plain(tmp_path):
    write_phantoms(tmp_path, 10, (16, 16))
    assert json.loads((tmp_path / "splits.json").read_text())["test"] == ["case008", "case009"]
