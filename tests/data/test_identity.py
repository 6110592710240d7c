"""Equal for what does the same, and different for what may not."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from somite.data.identity import identity
from somite.data.normalise import Centred, Percentile, Window
from somite.nn.frozen import Frozen


class Named:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))


DIFFERENT = [
    lambda: None,
    lambda: 0,
    lambda: 0.0,
    lambda: False,
    lambda: "",
    lambda: "0",
    lambda: [],
    lambda: [0],
    lambda: [[0]],
    lambda: {"a": 1, "b": [2]},
    lambda: {"a": 1, "b": [3]},
    lambda: frozenset({"image", "mask"}),
    lambda: frozenset({"image"}),
    lambda: Path("a"),
    lambda: np.arange(3),
    lambda: np.arange(3.0),
    lambda: np.arange(3)[None],
    lambda: Window(-1000, 300),
    lambda: Window(-1000, 400),
    lambda: Centred(Window(-1000, 300)),
    lambda: Percentile(each_slice=True),
    lambda: Percentile(),
    lambda: Named(a=1),
    lambda: Named(b=1),
    lambda: Named(_a=1),
    lambda: network(0),
    lambda: network(1),
    lambda: Frozen(network(0)),
    lambda: Frozen(network(1)),
    lambda: Window,
    lambda: Percentile,
    lambda: np.float32(1.5),
    lambda: np.float32(2.5),
]


def test_what_differs_is_told_apart_and_what_is_equal_is_not():
    first, second = ([identity(make()) for make in DIFFERENT] for _ in range(2))
    assert first == second
    same = [(a, b) for (a, x), (b, y) in itertools.combinations(enumerate(first), 2) if x == y]
    assert not same


def test_training_changes_no_identity_and_weights_do():
    one = network(0)
    before = identity(one)
    assert identity(one.eval()) == before
    with torch.no_grad():
        next(one.parameters()).add_(1e-3)
    assert identity(one) != before


def test_it_ends_where_objects_hold_each_other():
    one = Named()
    one.other = Named(back=one)
    assert identity(one) == identity(one)


def test_other_processes_agree():
    code = "from somite.data.identity import identity; print(identity({'x': {'image', 'mask', 'labels'}}, object))"
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(told) == 1 and told == {identity({"x": {"image", "mask", "labels"}}, object) + "\n"}
