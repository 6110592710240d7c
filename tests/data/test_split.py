from collections import Counter
from pathlib import Path

import pytest

from somite.data.record import Case
from somite.data.split import assign
from somite.errors import InputError

RATES = {"train": 0.7, "val": 0.1, "test": 0.2}


def cases(groups: range, each: int = 2) -> list[Case]:
    return [Case(f"{g}-{i}", (Path("x.png"),), None, f"p{g}") for g in groups for i in range(each)]


def home(splits: dict[str, list[Case]]) -> dict[str, str]:
    return {case.id: name for name, found in splits.items() for case in found}


def test_every_case_is_in_one_split_and_patients_stay_together():
    everyone = cases(range(200), 3)
    splits = assign(everyone, RATES, seed=0)
    assert Counter(case.id for found in splits.values() for case in found) == Counter(case.id for case in everyone)
    groups = [{case.group for case in found} for found in splits.values()]
    assert not (groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2])


def test_rates_are_met():
    splits = assign(cases(range(4000), 1), RATES, seed=1)
    for name, rate in RATES.items():
        assert abs(len(splits[name]) / 4000 - rate) < 0.025  # more than three standard deviations


def test_adding_cases_moves_nobody():
    before, after = home(assign(cases(range(100)), RATES, 0)), home(assign(cases(range(150), 3), RATES, 0))
    assert all(after[name] == split for name, split in before.items())


def test_the_order_of_cases_does_not_matter_but_the_seed_does():
    everyone = cases(range(50))
    assert home(assign(everyone, RATES, 0)) == home(assign(everyone[::-1], RATES, 0))
    assert home(assign(everyone, RATES, 0)) != home(assign(everyone, RATES, 1))


@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("seed", range(20))
def test_no_split_is_empty(count, seed):
    splits = assign(cases(range(count)), RATES, seed)
    assert all(splits.values())
    assert list(splits) == list(RATES)
    assert splits == assign(cases(range(count)), RATES, seed)


def test_a_rate_of_zero_stays_empty():
    assert assign(cases(range(20)), {"train": 0.8, "val": 0.0, "test": 0.2}, 0)["val"] == []


def test_too_few_patients_and_wrong_rates():
    with pytest.raises(InputError, match=r"2 groups \(patients\) cannot be split into train, val, test"):
        assign(cases(range(2), 9), RATES, 0)
    for rates in ({"train": 0.7, "test": 0.2}, {"train": 1.2, "test": -0.2}):
        with pytest.raises(InputError, match="parts of 1"):
            assign(cases(range(9)), rates, 0)


def test_frozen():
    """Splits are part of results: this one must never change."""
    found = home(assign(cases(range(24), 1), RATES, 0))
    assert "".join(found[f"{g}-0"][1] for g in range(24)) == "rerareerarrrararrraraerr"
