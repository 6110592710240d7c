"""Folds are partitions by patient, and their ensemble the mean of its runs; SGD and its decay are torch's."""

import csv
import json
import re

import numpy as np
import pytest
import torch

import somite
from runs import tiny
from somite.baselines.folds import fold_ensemble
from somite.cli import main
from somite.data.dataset import Data
from somite.data.phantoms import write_phantoms
from somite.data.record import Case
from somite.data.split import folds
from somite.errors import InputError
from somite.evaluation import read_rows, score
from somite.trainer.module import Module
from somite.training import Training

DYNUNET = ["--method.network.channels=[4,8,8]", "--data.crop=32", "--data.preprocess.size=null", "--training.batch=2", "--training.steps=2"]


def cases(groups, each=2):
    return [Case(f"{g}-{i}", (), None, f"p{g}") for g in range(groups) for i in range(each)]


@pytest.mark.parametrize(("groups", "n"), [(23, 5), (5, 5), (8, 3)])
def test_folds_are_a_partition_by_patient_of_equal_parts(groups, n):
    everyone = cases(groups)
    parts = folds(everyone, n, seed=3)
    assert len(parts) == n
    assert sorted(case.id for part in parts for case in part["val"]) == sorted(case.id for case in everyone)
    sizes = [len({case.group for case in part["val"]}) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part in parts:
        assert {case.group for case in part["train"]}.isdisjoint(case.group for case in part["val"])
        assert len(part["train"]) + len(part["val"]) == len(everyone)


def test_folds_depend_on_the_seed_and_not_on_the_order():
    everyone = cases(20)
    ids = [[case.id for case in part["val"]] for part in folds(everyone, 5, 0)]
    assert [sorted(case.id for case in part["val"]) for part in folds(everyone[::-1], 5, 0)] == [sorted(one) for one in ids]
    assert [[case.id for case in part["val"]] for part in folds(everyone, 5, 1)] != ids
    with pytest.raises(InputError, match="4 groups"):
        folds(cases(4), 5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 16, (40, 36))


def test_data_take_a_fold_and_keep_their_test_split(root):
    whole = Data(str(root))
    pool = {case.id for name in ("train", "val") for case in whole.cases(name)}
    seen = []
    for k in range(5):
        data = Data(str(root), fold=k)
        assert [c.id for c in data.cases("test")] == [c.id for c in whole.cases("test")]
        assert {c.id for name in ("train", "val") for c in data.cases(name)} == pool
        seen += [c.id for c in data.cases("val")]
    assert sorted(seen) == sorted(pool)
    with pytest.raises(InputError, match="fold 5: there are 5 folds"):
        Data(str(root), fold=5)


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [tiny(root, out / f"fold{k}", *DYNUNET, f"--data.fold={k}", f"--training.seed={k}", recipe="dynunet/demo") for k in (0, 1)]


def test_an_ensemble_is_the_mean_of_its_runs(root, runs):
    image = np.random.default_rng(0).random((3, 30, 34), dtype=np.float32)
    result = fold_ensemble(runs, device="cpu").predict(image)
    singles = np.stack([somite.load(path, device="cpu").predict(image).probability for path in runs])
    assert np.abs(singles[0] - singles[1]).max() > 1e-4
    assert np.allclose(result.probability, singles.mean(0), atol=1e-6)
    assert np.allclose(result.spread, singles.std(0), atol=1e-6)
    assert np.array_equal(result.mask, singles.mean(0)[0] >= 0.5)
    assert result.members.shape == (2, 1, 30, 34)


def test_an_ensemble_is_scored_on_the_test_split(runs):
    ensemble = fold_ensemble(runs, device="cpu")
    held = ensemble.recipe.data.cases("test")
    scored = [score(ensemble, case, (), runs[0]) for case in held]
    assert [one.rows[0]["case"] for one in scored] == [case.id for case in held]
    prediction, truth = ensemble.predict(held[0]).mask, ensemble.recipe.data.read(held[0]).labels
    dice = 2 * (prediction * truth).sum() / max(prediction.sum() + truth.sum(), 1)
    assert scored[0].rows[0]["dice"] == pytest.approx(dice)


def test_folds_on_the_command_line(runs, root, tmp_path, capsys):
    image = sorted((root / "images").iterdir())[0]
    one, two = map(str, runs)
    assert main(["predict", one, str(image), "--with", two, "--out", str(tmp_path / "out"), "--save", "members"]) == 0
    assert len(list((tmp_path / "out").glob(f"{image.stem}_member*"))) == 2
    assert main(["evaluate", one, "--with", two]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["evaluate", one, "--with", two, "--out", str(tmp_path / "scores")]) == 0
    told = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert told["folds"] == [one, two]
    rows = read_rows(tmp_path / "scores" / "rows.csv")
    ensemble = fold_ensemble(runs, device="cpu")
    expected = [score(ensemble, case, (), runs[0]).rows[0]["dice"] for case in ensemble.recipe.data.cases("test")]
    assert [float(row["dice"]) for row in rows] == pytest.approx(expected, abs=1e-5)
    assert main(["calibrate", one, "--with", two]) == 2


@pytest.mark.parametrize("split", ["val", "train", "all"])
def test_folds_are_not_scored_on_cases_that_one_has_seen(runs, tmp_path, capsys, split):
    one, two = map(str, runs)
    assert main(["evaluate", one, "--with", two, "--split", split, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert re.search(r"case\d+ is a (train|val) case of .*fold0; .*--split test, or --data", told)
    assert not (tmp_path / "out").exists()


def test_folds_are_scored_on_all_of_other_data(runs, tmp_path):
    one, two = map(str, runs)
    other = write_phantoms(tmp_path / "other", 16, (40, 36), seed=3)
    assert main(["evaluate", one, "--with", two, "--data", str(other), "--split", "all", "--out", str(tmp_path / "out")]) == 0
    assert len(read_rows(tmp_path / "out" / "rows.csv")) == 16


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_no_ensemble_of_folds_has_a_temperature(runs, root, tmp_path, capsys, command):
    inputs = [str(root / "images")] if command == "predict" else []
    line = [command, str(runs[0]), *inputs, "--with", str(runs[1]), "--calibrated", "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert "--calibrated applies the temperature of one run, which no ensemble of folds has" in capsys.readouterr().err


def test_runs_that_do_not_belong_together_are_refused(root, runs, tmp_path):
    with pytest.raises(InputError, match="named twice"):
        fold_ensemble([runs[0], runs[0]])
    with pytest.raises(InputError, match="at least one"):
        fold_ensemble([])
    many = ["--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=2", "--method.network.mask_channels=2"]
    other = tiny(root, tmp_path / "other", *DYNUNET, *many, recipe="dynunet/demo")
    with pytest.raises(InputError, match=r"method\.codec\.maps 2 where 1"):
        fold_ensemble([runs[0], other], device="cpu")


def test_listed_folds_are_taken_as_they_are(root, tmp_path):
    from somite.data.nnunet_writer import write_raw

    out = write_raw({name: Data(str(root)).cases(name) for name in ("train", "val", "test")}, tmp_path / "raw")
    listed = json.loads((out / "splits_final.json").read_text())
    for k in range(5):
        ours, raw = Data(str(root), fold=k), Data(str(out), fold=k)
        for name in ("train", "val"):
            assert [c.id for c in raw.cases(name)] == sorted(listed[k][name]) == sorted(c.id for c in ours.cases(name))
    with pytest.raises(InputError, match="does not list 4 folds"):
        Data(str(out), fold=1, folds=4).cases("val")


def test_sgd_and_poly_are_torchs():
    options = Training(steps=20, warmup=0, optimizer="sgd", decay="poly", rate=1e-2, weight_decay=3e-5)
    layer = torch.nn.Linear(3, 2)
    theirs = torch.optim.SGD(torch.nn.Linear(3, 2).parameters(), lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    schedule = torch.optim.lr_scheduler.PolynomialLR(theirs, total_iters=20, power=0.9)
    made = Module(layer, None, options).configure_optimizers()
    optimizer, ours = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == [
        {k: v for k, v in g.items() if k != "params"} for g in theirs.param_groups
    ]
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 2
    for _ in range(20):
        assert ours.get_last_lr() == pytest.approx(schedule.get_last_lr(), abs=1e-12)
        for step in (optimizer, ours, theirs, schedule):
            step.step()


def test_the_defaults_are_still_adamw_and_cosine(root, tmp_path):
    layer = torch.nn.Linear(3, 2)
    assert isinstance(Module(layer, None, Training()).configure_optimizers()["optimizer"], torch.optim.AdamW)
    options = Training(steps=100, warmup=10, floor=0.1)
    assert [options.rate_at(k) for k in (0, 9, 10, 55, 100)] == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])


def test_nnunets_optimiser_learns(root, tmp_path):
    """A stable direction is all that a few steps can show: the loss falls."""
    given = ["--training.optimizer=sgd", "--training.decay=poly", "--training.warmup=0", "--training.clip=12", "--training.ema=0"]
    out = tiny(
        root,
        tmp_path / "run",
        *DYNUNET,
        *given,
        "--training.steps=40",
        "--training.rate=1e-2",
        "--data.augment=null",
        recipe="dynunet/demo",
    )
    with (out / "metrics.csv").open() as file:
        loss = [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "train/loss"]
    assert loss[-1] < 0.8 * loss[0]
