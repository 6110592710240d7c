import numpy as np
import pytest

from somite.errors import InputError
from somite.predict.control import Controlled
from somite.predict.fusion import Majority, Mean, decide
from somite.predict.staple import Staple
from somite.predict.temperature import Tempered

MAPS = np.random.default_rng(0).random((3, 1, 5, 6), dtype=np.float32)


def test_the_mask_is_where_the_threshold_is_reached_and_the_map_is_as_it_was():
    fusion = Controlled(0.3, "fnr", 0.1, Majority())
    votes = Majority()(MAPS)
    np.testing.assert_array_equal(fusion(MAPS), votes)
    np.testing.assert_array_equal(fusion.decide(votes), votes[0] >= np.float32(0.3))
    assert "FNR" in fusion.guarantee


@pytest.mark.parametrize("fusion", [Mean(), Majority(), Tempered(2.0), Controlled(0.5, "fpr", 0.1)], ids=lambda one: type(one).__name__)
def test_at_half_it_is_what_every_fusion_does(fusion):
    probability = np.array([[[0.1, 0.5, 0.49999997, 0.9]]], np.float32)
    np.testing.assert_array_equal(fusion.decide(probability), decide(probability))


def test_a_temperature_around_it_leaves_the_threshold():
    probability = np.array([[[0.31, 0.29]]], np.float32)
    assert Tempered(2.0, Controlled(0.3, "fnr", 0.1)).decide(probability).tolist() == [[1, 0]]


def test_a_fusion_of_whole_volumes_stays_one():
    assert Controlled(0.3, "fnr", 0.1).local
    assert Controlled(0.3, "fnr", 0.1, Staple()).local == Staple().local


def test_what_no_threshold_is_for():
    with pytest.raises(InputError, match="one class"):
        Controlled(0.3, "fnr", 0.1).decide(np.zeros((2, 3, 3), np.float32))
    with pytest.raises(InputError, match="one of fnr, fpr, fdr"):
        Controlled(0.3, "dice", 0.1)
    with pytest.raises(InputError, match="give a probability"):
        Controlled(1.3, "fnr", 0.1)
