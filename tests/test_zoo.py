"""The runs that come with somite: whole, small, offline, attributed, and written into by nobody."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import somite
from runs import somite as command
from somite.cli import main
from somite.data.sources import NUCLEI
from somite.errors import InputError
from somite.places import ZOO, folder_of, zoo
from somite.trust import only_own

NAMES = ["zoo/hippocampus", "zoo/lung-nodules", "zoo/nuclei"]
LICENCES = {"zoo/hippocampus": "CC BY-SA 4.0", "zoo/lung-nodules": "CC BY 3.0", "zoo/nuclei": "CC0 1.0"}
PHOTO = next(path for path in sorted((NUCLEI / "images").iterdir()) if path.suffix == ".jpg")


def test_these_are_there_and_small():
    assert [*zoo()] == NAMES
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert {path.name for path in files} == {"README.md", "recipe.yaml", "weights.safetensors"}


@pytest.mark.parametrize("name", NAMES)
def test_each_says_its_data_licence_training_scores_and_limits(name):
    card = (zoo()[name] / "README.md").read_text(encoding="utf-8")
    for words in (
        "Research use only",
        "## Data",
        "## Limits",
        "seed 0",
        LICENCES[name],
        f'somite.load("{name}")',
        "somite train medsegdiffnca/small",
    ):
        assert words in card, words
    assert re.search(r"\| Dice.* \| [\d.]+ \| [\d.]+ to [\d.]+ \|", card)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_a_place(name):
    """No value of a recipe is a path, and none of the ways that this machine's paths begin stands anywhere."""
    for path in zoo()[name].iterdir():
        assert not re.search(rb"/work/|/tmp/|/home/|/root/|/Users/|[A-Z]:\\", path.read_bytes()), path
    only_own(zoo()[name] / "recipe.yaml")
    recipe = yaml.safe_load((zoo()[name] / "recipe.yaml").read_text())
    assert recipe["data"]["root"] is None and recipe["data"]["splits"] is None


def test_a_photo_gets_a_mask_offline_and_nothing_is_written_into_the_package(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in ZOO.rglob("*")}
    offline = "import socket, sys; socket.socket.connect = None; from somite.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", offline, "predict", "zoo/nuclei", str(PHOTO)], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    mask, truth = (
        np.asarray(Image.open(path)) > 0
        for path in (tmp_path / f"predictions/{PHOTO.stem}_mask.png", NUCLEI / "masks" / f"{PHOTO.stem}.png")
    )
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in ZOO.rglob("*")} == before


def test_they_are_listed(capsys):
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES and all(len(line.split()) > 5 for line in lines)


def test_the_bundled_test_images_are_scored_into_a_folder_of_ones_own(tmp_path):
    """They are test images of the set that it was trained on, so it has not seen them."""
    run = somite.load("zoo/nuclei").on("nuclei").at(members=2)
    found = run.evaluate(out=tmp_path / "out")
    assert found["metrics"]["dice"]["mean"] > 0.8 and (tmp_path / "out/rows.csv").is_file()
    with pytest.raises(InputError, match="stays as it came, so nothing is written into it: name a folder with --out"):
        run.evaluate()
    with pytest.raises(InputError, match="stays as it came"):
        run.report()


@pytest.mark.parametrize("line", [["calibrate", "zoo/nuclei"], ["pack", "zoo/nuclei"], ["analyse", "timesteps", "zoo/nuclei"],
                                  ["evaluate", "zoo/nuclei", "--data", "nuclei"]], ids=" ".join)  # fmt: skip
def test_commands_that_would_write_into_it_say_so(line, capsys):
    before = sorted(ZOO.rglob("*"))
    if line[0] == "evaluate":
        assert main(line) == 2 and "--out" in capsys.readouterr().err
    else:
        assert main(line) == 2 and "stays as it came" in capsys.readouterr().err
    assert sorted(ZOO.rglob("*")) == before


def test_without_data_evaluate_says_what_to_name(capsys):
    assert main(["evaluate", "zoo/nuclei"]) == 2
    assert "came without its data; name a data set with --data DIR" in capsys.readouterr().err


def test_what_a_name_stands_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("SOMITE_STORE", str(tmp_path / "store"))
    assert folder_of("zoo/nuclei") == ZOO / "nuclei"
    with pytest.raises(InputError, match="there is no zoo/cats; somite has zoo/hippocampus"):
        folder_of("zoo/cats")
    (tmp_path / "mine").mkdir()
    for path in ("runs/mien", "mine/none", "none", "a/b/c", "a/recipe.yaml", "../a", str(tmp_path / "none")):
        assert folder_of(path) == Path(path)  # of no hub: it would be asked and not reached
    with pytest.raises(InputError, match="cannot be reached"):
        folder_of("org/name")
    (tmp_path / "zoo/nuclei").mkdir(parents=True)
    assert folder_of("zoo/nuclei") == Path("zoo/nuclei")  # what is there as a path is that path


def test_help_is_quick_with_it():
    done = command("zoo", "--help")
    assert done.returncode == 0 and "zoo/nuclei" in command("--help").stdout
