"""Plans for the hours and the memory there are: what a step costs is measured, the rest is arithmetic."""

from math import prod

import pytest
import yaml

from somite.baselines import fit
from somite.baselines.fit import plan_recipe
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.recipe import build, parse


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 40, (64, 64))


def per_voxel(microseconds):
    """In place of the clock."""
    return lambda made, planned: planned.batch * prod(planned.patch) * microseconds * 1e-6


def planned(root, out, **options):
    found = plan_recipe(root, 2, None, out, **options)
    tree = yaml.safe_load(out.read_text())
    assert tree["training"]["steps"] == found.steps
    return found, tree


def test_hours_cost_steps_first_and_then_the_size_of_patches(root, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "timed", per_voxel(100))
    free, tree = planned(root, tmp_path / "free.yaml")
    voxels = tree["training"]["batch"] * prod(tree["data"]["crop"])
    assert free.steps == 250_000
    assert free.seconds == pytest.approx(voxels * 1e-4)
    hours = 5000 * free.seconds / 3600
    fewer, same = planned(root, tmp_path / "fewer.yaml", hours=hours)
    assert fewer.steps in (4999, 5000)
    assert same["data"] == tree["data"]
    assert same["training"]["validate"] == fewer.steps // 20
    tight, smaller = planned(root, tmp_path / "tight.yaml", hours=hours / 3)
    assert tight.steps >= 2000
    assert tight.hours <= hours / 3
    assert smaller["training"]["batch"] * prod(smaller["data"]["crop"]) < voxels


def test_memory_scales_the_batch(root, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "timed", per_voxel(1))
    rooms = []
    for memory in (8, 0.04, 0.02):
        _, tree = planned(root, tmp_path / f"{memory}.yaml", memory=memory)
        rooms.append(tree["training"]["batch"] * prod(tree["data"]["crop"]))
        assert rooms[-1] <= max(12 * 512**2 * memory / 8, 2 * prod(tree["data"]["crop"]))
    assert rooms[0] > rooms[1] > rooms[2]


def test_what_cannot_fit_is_told(root, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "timed", per_voxel(1e6))
    with pytest.raises(InputError, match=r"--hours 1: no plan for .* fits"):
        plan_recipe(root, 2, None, tmp_path / "a.yaml", hours=1)
    for options in ({"hours": 0}, {"memory": -1}):
        with pytest.raises(InputError, match="give the"):
            plan_recipe(root, 2, None, tmp_path / "a.yaml", **options)


def test_the_command_says_what_a_step_takes_here(root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "plan.yaml"
    assert main(["plan", str(root), "--out", str(out), "--memory", "0.02", "--hours", "1000"]) == 0
    assert "s on this machine, about" in capsys.readouterr().out
    build(parse(out))
    monkeypatch.setattr(fit, "timed", per_voxel(1000))
    assert main(["plan", str(root), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "days" in said
    assert "--hours 24 plans what this machine can train in a day" in said
