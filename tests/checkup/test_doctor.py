"""The command: exit codes, JSON, sampling, and what it says of a recipe and of the machine."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import somite
from runs import TINY
from somite.checkup import look
from somite.checkup.doctor import doctor
from somite.checkup.estimate import Estimate, memory_findings
from somite.checkup.finding import KINDS, Finding, ordered
from somite.checkup.machine import Machine, machine, machine_findings
from somite.cli import main
from somite.data.images import write_png
from somite.data.phantoms import write_phantoms


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("flat"), 24, (40, 40))


@pytest.fixture
def root(flat, tmp_path):
    return Path(shutil.copytree(flat, tmp_path / "flat"))


def test_exit_codes_and_json(root, tmp_path, capsys):
    assert main(["doctor", str(root), "--workers", "1"]) == 0
    assert "nothing to mend" in capsys.readouterr().out
    (root / "masks" / "case003.png").unlink()
    (root / "images" / "case004.png").write_bytes(b"no image")
    written = tmp_path / "findings.json"
    assert main(["doctor", str(root), "--workers", "1", "--json", str(written)]) == 1
    told = capsys.readouterr().out
    assert told.index("[image-without-mask]") < told.index("[unreadable]")
    found = json.loads(written.read_text())
    assert not found["good"]
    assert found["count"]["error"] == 2
    assert {one["kind"]: one["where"] for one in found["findings"] if one["level"] == "error"} == {
        "image-without-mask": [str(root / "images" / "case003.png")],
        "unreadable": ["case004"],
    }
    assert found["summary"]["splits"] == {"train": 15, "val": 4, "test": 4, "": 1}


def test_wrong_calls(flat, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    refused(["doctor", tmp_path / "nowhere"], "nowhere does not exist")
    refused(["doctor", tmp_path / "empty"], "is empty")
    refused(["doctor", flat, "--quick", "--full"], "give one of them")
    refused(["doctor", flat, "--workers", "0"], "--workers 0")
    refused(["doctor", flat, "--recipe", "medsegdiffnca/none"], "there is no recipe")
    refused(["doctor", flat, "--data.nonsense", "1"], "nonsense")
    refused(["doctor", flat, "--training.steps", "1"], "training.steps", "without a recipe only options of --data")


def test_python_says_what_the_command_says(flat):
    found = somite.doctor(flat, data__labels=[0, 255])
    assert found.good
    assert found.summary["labels"] == [0, 255]
    assert str(found).endswith("nothing to mend")


def test_a_recipe_is_tried(flat):
    found = doctor(flat, "medsegdiffnca/demo", [*TINY, "--training.steps=4"], workers=1)
    assert found.good
    taken = found.summary["estimate"]
    assert 0 < taken["step"] < 60
    assert taken["whole"] >= 4 * taken["step"]
    assert taken["batch"] == 2 * (3 * 4 + 1) * 32 * 32 or taken["batch"] > 0
    (one,) = found.of("estimate")
    assert "4 steps of" in one.text


def test_what_a_recipe_would_stop_at_is_found(flat, root):
    many = [*TINY, "--data.labels=[0,128,255]"]
    (one,) = doctor(flat, "medsegdiffnca/demo", many, workers=1).of("recipe")
    assert "names 3 classes but the method's codec has" in one.text
    write_png(root / "images" / "case000.png", np.zeros((50, 44, 3), np.uint8) + np.arange(44, dtype=np.uint8)[:, None])
    write_png(root / "masks" / "case000.png", np.eye(50, 44, dtype=np.uint8) * 255)
    whole = [*TINY, "--data.crop=null", "--training.batch=16"]
    (one,) = doctor(root, "medsegdiffnca/demo", whole, workers=1).of("recipe")
    assert "training images of different sizes" in one.text


def test_a_recipe_that_needs_masks_where_there_are_none(root):
    shutil.rmtree(root / "masks")
    found = doctor(root, "medsegdiffnca/demo", TINY, workers=1)
    assert "has images/ but no masks/" in found.of("listing")[0].text
    assert found.summary["cases"] == 24
    assert not doctor(root, workers=1).of("listing")  # without a recipe nothing wants masks


def test_of_many_files_a_sample_is_read_and_the_rest_by_headers(root, monkeypatch):
    monkeypatch.setattr(look, "QUICK_CASES", 6)
    for name in ("case001", "case002"):
        shutil.copy(root / "images" / "case000.png", root / "images" / f"{name}.png")
    (root / "masks" / "case003.png").write_bytes(b"")
    write_png(root / "masks" / "case005.png", np.zeros((3, 3), np.uint8))
    found = doctor(root, quick=True, workers=1)
    (one,) = found.of("not-looked-at")
    assert len(one.where) == 18
    assert found.of("mask-unreadable")[0].where == ("case003",)  # headers are read of all
    assert found.of("mask-mismatch")[0].where == ("case005",)
    assert found.of("duplicate")[0].where == ("case000", "case001", "case002")  # and bytes, of files of one size
    assert not doctor(root, full=True, workers=1).of("not-looked-at")


@pytest.mark.slow  # another test looks at what processes do
def test_processes_find_what_one_finds(root, monkeypatch):
    monkeypatch.setattr(look, "SMALL", 0)
    (root / "images" / "case004.png").write_bytes(b"no image")
    here, there = doctor(root, workers=1), doctor(root, workers=2)
    assert here.findings == there.findings
    assert here.summary == there.summary


def test_a_machine_that_is_too_small():
    little = Machine(memory=2**30, free=2**28, shared=2**26, disk=10**8, cores=2)
    assert {one.kind for one in machine_findings(little)} == {"little-shared-memory", "disk"}
    assert {one.kind for one in machine_findings(little, workers=0, run=1e6)} == set()
    assert {one.kind for one in machine_findings(little, workers=4, batch=2**24, run=1e6)} == {"shared-memory"}
    taken = Estimate(1.0, 1.0, 100.0, memory=2**29, batch=2**20, run=1e6, device="CPU")
    assert [one.kind for one in memory_findings(taken, little)] == ["memory"]
    here = machine()
    assert here.disk > 0 and (here.free is None or here.free > 0)


def test_the_most_important_comes_first():
    mixed = [Finding(kind, "x") for kind in ("dark", "constant", "duplicate-across-splits", "unreadable")]
    assert [one.kind for one in ordered(mixed)] == ["unreadable", "duplicate-across-splits", "constant", "dark"]
    levels = [KINDS[one] for one in KINDS]
    assert levels == sorted(levels, key=("error", "warning", "note").index)


def test_every_kind_is_explained_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs/how-to/doctor.md").read_text(encoding="utf-8")
    assert not [kind for kind in KINDS if f"`{kind}`" not in page]
