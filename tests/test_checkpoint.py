"""Files of weights are read and never run: those of training programs, old ones, baits and damaged ones."""

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from somite.checkpoint import tensors
from somite.errors import InputError


class Bait:
    """Unpickled as any pickle, it calls what it is given."""

    def __init__(self, called, *arguments):
        self.called, self.arguments = called, arguments

    def __reduce__(self):
        return self.called, self.arguments

    def __call__(self):
        """So that what a bait gives may itself be called."""


STATE = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "turned": torch.arange(6).reshape(2, 3).t(),
    "half": torch.ones(3, dtype=torch.half),
    "brain": torch.ones(3, dtype=torch.bfloat16),
    "flag": torch.tensor([True, False]),
    "scale": torch.tensor(0.2),
    "none": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
STATE |= {"shared": STATE["weight"][1:]}


def equal(found):
    assert found.keys() == STATE.keys()
    for name, value in STATE.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Writes a Lightning checkpoint whose callback and options are of a module that its reader does not have."""
    module = ModuleType("their_program")

    class Callback:
        def __init__(self):
            self.best, self.seen = torch.ones(2), {1, 2}

    class Options(dict):
        pass

    for kind in (Callback, Options):
        kind.__module__, kind.__qualname__ = "their_program", kind.__name__
        setattr(module, kind.__name__, kind)

    def write(name, **options):
        state = OrderedDict(STATE)
        state._metadata = {"": {"version": 1}}  # as Module.state_dict() has it
        optimizer = {"state": {0: {"exp_avg": torch.ones(1000)}}, "param_groups": [Options(lr=1e-5)]}
        found = {"state_dict": state, "epoch": 3, "callbacks": {Callback: Callback()}, "optimizer_states": [optimizer]}
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "their_program", module)
            torch.save(found, tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_a_training_programs_checkpoint(training, new):
    path = training("last.ckpt", _use_new_zipfile_serialization=new)
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    equal(tensors(path))
    assert "their_program" not in sys.modules


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_plain_files(tmp_path, new):
    torch.save(STATE, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    equal(tensors(tmp_path / "a.pt"))
    save_file({"weight": STATE["weight"]}, tmp_path / "a.safetensors")
    assert torch.equal(tensors(tmp_path / "a.safetensors")["weight"], STATE["weight"])


def baits(mark):
    command = f"touch {mark}"
    return [
        Bait(os.system, command),
        Bait(eval, f"__import__('os').system({command!r})"),
        Bait(Bait(getattr, Bait(__import__, "os"), "system"), command),
        Bait(print, Bait(os.system, command)),
        Bait(pickle.loads, pickle.dumps(Bait(os.system, command))),
        Bait(open, str(mark), "w"),
    ]


@pytest.mark.parametrize("kind", range(6))
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_nothing_is_run(tmp_path, kind, new):
    mark = tmp_path / "mark"
    bait = baits(mark)[kind]
    torch.save({"state_dict": STATE, "callbacks": bait}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
    equal(tensors(tmp_path / "a.ckpt"))
    torch.save({"state_dict": {**STATE, "weight": bait}}, tmp_path / "b.ckpt", _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match="its weight is no tensor, and opening it as what it is could run code"):
        tensors(tmp_path / "b.ckpt")
    assert not mark.exists()
    torch.load(tmp_path / "a.ckpt", weights_only=False)  # whose reader takes the bait
    assert mark.exists()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_cut_files_are_told(training, new):
    path = training("last.ckpt", _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 4, len(whole) // 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"last\.ckpt cannot be read as a checkpoint \(.*copy it again") as error:
            tensors(path)
        assert "\n" not in str(error.value)


def test_numbers_that_lie_outside_are_told(training):
    """A tensor that claims more than its storage holds."""
    path, short = training("last.ckpt"), training("short.ckpt")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(short, "w") as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name)[:4] if name.endswith("data/0") else archive.read(name))
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        tensors(short)


def test_compressed_files_are_refused(training):
    path, small = training("last.ckpt"), training("small.ckpt")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    with pytest.raises(InputError, match="is compressed"):
        tensors(small)


def test_what_holds_no_weights_is_told(tmp_path):
    for index, found in enumerate([{"epoch": 3}, [torch.ones(1)], torch.ones(1), {}, {"state_dict": {"a": 1}}]):
        torch.save(found, tmp_path / f"{index}.pt")
        with pytest.raises(InputError, match="no state dict of tensors"):
            tensors(tmp_path / f"{index}.pt")
    (tmp_path / "a.safetensors").write_bytes(b"no")
    for name in ("a.safetensors", "missing.pt"):
        with pytest.raises(InputError, match=name):
            tensors(tmp_path / name)
