"""Which maps separate which organs: estimated Dice against Dice over whole volumes, windows against whole volumes, the command."""

import json

import numpy as np
import pytest
import torch

import somite
from scanned import trained
from somite.analysis.discriminant import discriminant
from somite.analysis.features import analyse_features, best, means, scored, sets_of
from somite.analysis.voxel_features import Reading, Voxels, drawn
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.diffusion.features import field
from somite.errors import InputError
from somite.evaluation import read_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 10, (14, 12, 10), 1, classes=3)


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    return trained("ctpretrain/small", data, tmp_path_factory.mktemp("runs") / "ct", "--data.labels=[0,1,2,3]")


@pytest.fixture(scope="module")
def run(path):
    return somite.load(path, device="cpu")


def test_voxels_stand_for_all_of_their_class():
    mask = torch.zeros(6, 5, 4, dtype=torch.long)
    mask[:3], mask[0, 0, 0] = 1, 2
    inside = torch.ones(6, 5, 4, dtype=torch.bool)
    inside[5] = False
    found = drawn("a", mask, inside, 4, 10, 0)
    assert found.volume.tolist() == [40, 59, 1, 0]
    for label in range(3):
        here = found.labels == label
        assert float(found.stands_for[here].sum()) == pytest.approx(float(found.volume[label]))
        assert (mask[tuple(found.at[here].unbind(1))] == label).all()
    assert here.sum() == 1 and not (found.at[:, 0] == 5).any()
    assert torch.equal(drawn("a", mask, inside, 4, 10, 0).at, found.at)
    assert not torch.equal(drawn("b", mask, inside, 4, 10, 0).at, found.at)


def test_a_voxel_is_read_from_the_maps_that_cover_it(run):
    sample = run.data.loaded(run.data.cases("train")[0])
    at = torch.stack(torch.meshgrid(torch.arange(14), torch.arange(12), torch.arange(10), indexing="ij"), -1).reshape(-1, 3)
    voxels = Voxels("a", at, torch.zeros(len(at)), torch.ones(len(at)), torch.ones(1))
    ((_, found),) = Reading(run.method, [30], True, None).of(sample, voxels, seed=3)
    abar = 0.9877104203823749
    x_t = abar**0.5 * (2 * sample["image"] - 1) + (1 - abar) ** 0.5 * field((1, 14, 12, 10), 3, 30)
    with torch.no_grad():
        pyramid = run.method.network.pyramid(x_t, torch.tensor([30]), {"coordinates": sample["coordinates"]}, "both")
    torch.testing.assert_close(found["encoder 0"].T.reshape(8, 14, 12, 10), pyramid[0][0, :8], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["decoder 0"].T.reshape(8, 14, 12, 10), pyramid[0][0, 8:], rtol=1e-4, atol=1e-5)
    coarse = pyramid[1][0].repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(found["encoder 1"].T.reshape(16, 14, 12, 10), coarse, rtol=1e-4, atol=1e-5)


def test_windows_cover_every_voxel_once(run):
    reading = Reading(run.method, [0], False, [8, 8, 8])
    windows = list(reading.windows((14, 12, 10)))
    assert {w[0] for w in windows} == {0, 4, 6} and {w[2] for w in windows} == {0, 2}
    sample = run.data.loaded(run.data.cases("train")[0])
    voxels = drawn("a", torch.zeros(14, 12, 10), torch.ones(14, 12, 10, dtype=torch.bool), 1, 200, 0)
    ((_, found),) = reading.of(sample, voxels, 0)
    assert all(part.abs().sum(1).gt(0).all() for part in found.values())  # no row was left out


def test_the_estimate_is_the_dice_of_the_whole_volume(run, data):
    """Where every voxel is drawn, it is that Dice; of some of them, it is near."""
    random = np.random.default_rng(0)
    whole = {
        "labels": (labels := random.integers(3, size=6000)),
        "stands for": np.ones(6000),
        "volume": np.bincount(labels, minlength=3),
        "0/encoder 0": (labels[:, None] + random.normal(0, 0.7, (6000, 4))).astype(np.float32),
    }

    class One:
        timesteps = (0,)
        method = None

        class backbone:
            widths = (4,)

    values = type("Data", (), {"values": (0, 1, 2)})
    rows = [row for row in scored(whole, [whole], values, One) if row["maps"] == "encoder"]
    x, y = torch.as_tensor(whole["0/encoder 0"]), torch.as_tensor(labels)
    answer = discriminant(x, y, torch.as_tensor(whole["volume"] / 6000))(x)
    for row in rows:
        one, other = answer == row["label"], y == row["label"]
        assert row["dice"] == pytest.approx(2 * float((one & other).sum()) / float(one.sum() + other.sum()))
    chosen = np.concatenate([np.flatnonzero(labels == label)[:300] for label in range(3)])
    part = {name: array[chosen] for name, array in whole.items() if name != "volume"}
    part |= {"volume": whole["volume"], "stands for": whole["volume"][labels[chosen]] / 300}
    for row, exact in zip([r for r in scored(part, [whole], values, One) if r["maps"] == "encoder"], rows, strict=True):
        assert row["dice"] == pytest.approx(exact["dice"], abs=0.06)


def test_sets_of_maps_and_sizes_of_organs():
    sets = sets_of(3, alone=True)
    assert sets["decoder"] == ["decoder 0", "decoder 1", "encoder 2"]
    assert sets["both"] == ["encoder 0", "encoder 1", "encoder 2", "decoder 0", "decoder 1"]
    assert "decoder 2" not in sets and sets["encoder 2"] == ["encoder 2"]
    common = {"t": "10", "maps": "both", "snr": 1.0, "hu": ""}
    rows = [{**common, "case": c, "label": n, "voxels": 10 * n, "dice": 0.1 * n} for n in range(1, 7) for c in "ab"]
    table = {row["organs"]: row["dice"] for row in means(rows)}
    assert table == pytest.approx({"all": 0.35, "small": 0.15, "middling": 0.35, "large": 0.55})
    assert best(means(rows))["small, one timestep"]["dice"] == pytest.approx(0.15)


def test_the_command(path, data, tmp_path, capsys):
    told = ["--timesteps", "0", "30", "60", "--limit", "3", "--voxels", "20", "--out", str(tmp_path / "out")]
    assert main(["analyse", "features", str(path), "--data", str(data), *told]) == 0
    assert "all, together" in capsys.readouterr().out
    rows = read_rows(tmp_path / "out" / "features.csv")
    assert {row["t"] for row in rows} == {"0", "30", "60", "together"}
    assert {row["label"] for row in rows} == {"1", "2", "3"} and len({row["case"] for row in rows}) == 3
    assert {row["maps"] for row in rows if row["t"] == "together"} == {"encoder", "decoder", "both"}
    snr = {row["t"]: float(row["snr"]) for row in rows if row["snr"]}
    assert snr["30"] == pytest.approx(0.9877104203823749 / (1 - 0.9877104203823749), rel=1e-4)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    table = read_rows(tmp_path / "out" / "table.csv")
    single = [row for row in table if row["organs"] == "all" and row["t"] != "together"]
    assert summary["best"]["all, one timestep"]["dice"] == pytest.approx(max(float(row["dice"]) for row in single), rel=1e-4)
    assert (tmp_path / "out" / "features.png").stat().st_size > 5000
    assert not list((tmp_path / "out").glob("*.parts"))


def test_what_cannot_be_probed_is_told(run, data, tmp_path):
    with pytest.raises(InputError, match="give 2"):
        analyse_features(run, str(data), tmp_path, limit=1)
    other = somite.load(trained("bodyparts/small", data, tmp_path / "bodyparts"), device="cpu")
    with pytest.raises(InputError, match="no features to read"):
        analyse_features(other, str(data), tmp_path)
