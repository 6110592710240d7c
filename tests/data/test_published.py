"""Split lists that come with somite, a user's own, and lists that do not fit."""

import json

import numpy as np
import pytest

from somite.data.dataset import Data
from somite.data.published import FOLDER
from somite.errors import InputError


def clinic(root, names):
    for name in names:
        for part in ("images", "masks"):
            (root / part).mkdir(parents=True, exist_ok=True)
            (root / part / f"{name}.png").touch()
    return root


@pytest.fixture(scope="module", params=["{}", "{:03d}"])
def data(request, tmp_path_factory):
    return clinic(tmp_path_factory.mktemp("cvc"), [request.param.format(i) for i in range(1, 613)])


def test_no_sequence_of_cvc_clinicdb_stands_in_two_splits(data):
    found = Data(str(data), splits="cvc-clinicdb-by-sequence")
    cases = {split: found.cases(split) for split in ("train", "val", "test")}
    assert {split: len(some) for split, some in cases.items()} == {"train": 408, "val": 67, "test": 137}
    groups = [{case.group for case in some} for some in cases.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 29
    by_number = {int(case.id): case.group for some in cases.values() for case in some}
    assert by_number[1] == by_number[25] == "sequence 1" and by_number[26] == "sequence 2"  # the data set's own table


def test_frames_at_random_share_sequences(data):
    found = Data(str(data), splits="cvc-clinicdb-by-frame")
    frames = {split: {int(case.id) for case in found.cases(split)} for split in ("train", "val", "test")}
    assert set.union(*frames.values()) == set(range(1, 613)) and sum(map(len, frames.values())) == 612
    groups = json.loads((FOLDER / "cvc-clinicdb-by-sequence.json").read_text())["groups"]
    assert {groups[str(i)] for i in frames["test"]} <= {groups[str(i)] for i in frames["train"]}  # leaky, as it says


IDS = [f"{number:04d}" for number in (*range(1, 11), *range(21, 41))]


@pytest.mark.parametrize("name", ["{}", "img{}", "BTCV_{}"])
@pytest.mark.parametrize("fold", range(5))
def test_the_folds_of_btcv_are_vox2vecs(tmp_path, fold, name):
    """As scikit-learn's KFold and train_test_split draw them: both shuffle with NumPy's legacy generator. Fold 0 as published."""
    order = np.arange(30)
    np.random.RandomState(42).shuffle(order)
    test = sorted(order[6 * fold : 6 * fold + 6])
    rest = [i for i in range(30) if i not in test]
    val, *train = np.random.RandomState(42).permutation(24)
    wanted = {"test": test, "val": [rest[val]], "train": sorted(rest[i] for i in train)}
    found = Data(str(clinic(tmp_path, [name.format(i) for i in IDS])), splits=f"btcv-fold-{fold}")
    assert {split: [case.id for case in found.cases(split)] for split in wanted} == {
        split: [name.format(IDS[i]) for i in some] for split, some in wanted.items()
    }
    if fold == 0:
        listed = json.loads((FOLDER / "btcv-fold-0.json").read_text())
        assert listed["test"] == ["0009", "0010", "0026", "0028", "0034", "0038"] and listed["val"] == ["0021"]


def test_a_number_that_two_cases_end_with_names_none(tmp_path):
    root = clinic(tmp_path, [*(f"img{i}" for i in IDS), "old0021"])
    with pytest.raises(InputError, match=r"lists '0021' in (val|train|test) but no such case exists"):
        Data(str(root), splits="btcv-fold-0").cases("train")


def test_ones_own_file(tmp_path):
    root = clinic(tmp_path / "data", ["a", "b", "c"])
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c"], "groups": {"a": "p", "b": "q"}}))
    found = Data(str(root), splits=str(tmp_path / "mine.json"))
    assert [case.group for split in ("train", "val", "test") for case in found.cases(split)] == ["p", "q", "c"]
    assert [case.id for case in found.moved(str(root)).cases("all")] == ["a", "b", "c"]  # another data set has its own


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        ({"train": ["a"], "test": ["z"]}, "'z' in test but no such case exists"),
        ({"train": ["a"], "test": ["b"], "groups": {"a": "p", "b": "p"}}, "both are of 'p'"),
        (["a"], "should hold"),
        ({"train": "a"}, "should hold"),
    ],
)
def test_lists_that_do_not_fit(tmp_path, content, said):
    root = clinic(tmp_path / "data", ["a", "b", "c"])
    if content is not None:
        (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        Data(str(root), splits=str(tmp_path / "mine.json")).cases("train")
