"""The grids of the two studies of synthesis: every cell differs from the base in what its name says; both run from nothing."""

import csv

import numpy as np
import pytest
import yaml

from somite.data.images import write_png
from somite.engines import Pool
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.recipe import parse
from somite.studies import geca_ablations, synthetic_augmentation
from somite.study.run import run_study
from somite.study.study import Asked, study_of
from trees import differing


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """48 patients of two images; those of class b are brighter."""
    folder, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    table = [(f"c{i:03d}", "ab"[i % 2], f"p{i // 2}") for i in range(48)]
    for name, kind, _ in table:
        write_png(folder / "images" / f"{name}.png", (120 * random.random((16, 16, 3)) + 100 * (kind == "b")).astype(np.uint8))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "kind", "group"), *table])
    return str(folder)


def grid(study, root, out, **options):
    return {tuple(value for _, value in job.keys): job for job in study.jobs(Asked(root, out, **options))}


def test_each_of_gecas_cells_changes_one_thing(tmp_path):
    assert study_of("geca-ablations") is geca_ablations.STUDY
    jobs = grid(geca_ablations.STUDY, "nuclei", tmp_path, seeds=[0, 1])
    assert {key[:2] for key in jobs} == {*geca_ablations.CELLS}
    trees = {key: yaml.safe_load(job.recipe) for key, job in jobs.items()}
    base = trees[(*geca_ablations.BASE, 0)]
    assert differing(trees[(*geca_ablations.BASE, 1)], base) == {"/training/seed"}
    expected = {
        ("heredity", "untrained"): {"heredity/class_path"},
        ("radius", "2"): {"radius"},
        ("radius", "all"): set(),  # null, which a tree that lacks the argument gives too
        ("varied updates", "as trained"): {"least"},
        ("distilled updates", "as trained"): {"early", "terms/early/class_path"},
    }
    for cell, changes in expected.items():
        assert differing(trees[(*cell, 0)], base) == changes
    assert trees[("radius", "all", 0)]["method"]["init_args"]["network"]["init_args"]["radius"] is None
    dit = differing(trees[("network", "DiT", 0)], base)
    assert not {key for key in dit if key.startswith(("/data", "codec", "sampler", "schedule", "terms", "/training/steps"))}


def test_ways_of_sampling_are_cells_of_their_own():
    budget = geca_ablations.BUDGETS["smoke"]
    found = [way.cell for way in geca_ablations.ways(geca_ablations.BASE, budget, "x", swept=True)]
    assert found == [None, ("heredity", "trained, not inherited"), ("steps", "3"), ("updates", "1"), ("updates", "3")]
    assert all(("extractor", "x") in way.options for way in geca_ablations.ways(("heredity", "untrained"), budget, "x", swept=True))
    others = [way.cell for way in geca_ablations.ways(geca_ablations.BASE, budget, "x", swept=False)]
    assert others == [None, ("heredity", "trained, not inherited")]


def test_the_mixtures_of_the_augmentation_study(root, tmp_path):
    study = synthetic_augmentation.STUDY
    assert study_of("synthetic-augmentation") is study
    jobs = grid(study, root, tmp_path, budget="cpu")
    assert [key for key in jobs if key[1] == "drawn"] == [("GeCA", "drawn", 0), ("DiT", "drawn", 0)]  # once, for all seeds
    trees = {key: yaml.safe_load(job.recipe) for key, job in jobs.items()}
    assert {jobs[key].stage for key in jobs if key[1] == "drawn"} == {0}
    assert {jobs[key].stage for key in jobs if key[1] != "drawn"} == {1}
    base = trees[("real", "plain", 0)]
    drawn = str(tmp_path / "geca-0" / "drawn")
    for name, extra in (
        ("real + 0.5 GeCA", {"root": drawn, "ratio": 0.5, "alone": False}),
        ("real + 1 GeCA", {"root": drawn, "ratio": 1.0, "alone": False}),
        ("GeCA", {"root": drawn, "ratio": 1.0, "alone": True}),
    ):
        tree = trees[(name, "plain", 0)]
        assert tree["data"].pop("extra") == extra
        assert tree == base
    assert trees[("real", "none", 0)]["data"]["augment"] is None
    assert jobs[("GeCA", "drawn", 0)].asks.ratio == 1
    folds = {key: yaml.safe_load(job.recipe)["data"].get("fold") for key, job in grid(study, root, tmp_path, budget="paper").items()}
    assert {folds[("GeCA", "drawn", fold)] for fold in range(5)} == {*range(5)}
    assert all(fold == key[2] for key, fold in folds.items())  # a classifier's images are of its own fold's generator
    only = grid(study, root, tmp_path, only=("real + 1 DiT/plain",), seeds=[0])
    assert [*only] == [("DiT", "drawn", 0), ("real + 1 DiT", "plain", 0)]
    with pytest.raises(InputError, match="no such cell"):
        grid(study, root, tmp_path, only=("real + 3 GeCA",))
    with pytest.raises(InputError, match="--budget week"):
        grid(study, root, tmp_path, budget="week")


def test_every_recipe_of_both_is_one_that_can_be_read(root, tmp_path):
    for study, data in ((geca_ablations.STUDY, "nuclei"), (synthetic_augmentation.STUDY, root)):
        for index, job in enumerate(grid(study, data, tmp_path, budget="paper", seeds=[0]).values()):
            path = tmp_path / f"{index}.yaml"
            path.write_text(job.recipe)
            parse(path)


@pytest.mark.slow
def test_the_augmentation_study_runs_from_nothing_and_goes_on(root, tmp_path):
    asked, said = Asked(root, tmp_path, "smoke", only=("real/plain", "real + 1 GeCA/plain", "GeCA")), []
    told = run_study(synthetic_augmentation.STUDY, asked, Pool(1), said.append)
    assert said[0] == "4 jobs, 0 done already"
    assert "real + 1 GeCA plain beats real images with plain augmentation: AUC" in told
    verdict = (tmp_path / "verdict.md").read_text()
    assert "| real + 1 GeCA | plain | 1 |" in verdict
    assert "| GeCA | drawn | 1 |" in verdict
    assert "images of GeCA alone are worth less than real ones" in verdict
    test = {row["case"] for row in read_rows(tmp_path / "probabilities.csv")}
    names = {row["id"] for row in csv.DictReader((tmp_path / "geca-0" / "drawn" / "labels.csv").open())}
    assert not test & names  # nothing generated is ever scored
    assert {path.stem for path in (tmp_path / "geca-0" / "drawn" / "images").iterdir()} == names
    run_study(synthetic_augmentation.STUDY, asked, Pool(1), said.append)
    assert said[-1] == "4 jobs, 4 done already"


@pytest.mark.slow
def test_gecas_study_runs_from_nothing(tmp_path):
    run_study(geca_ablations.STUDY, Asked("nuclei", tmp_path, "smoke", only=("base", "heredity")), Pool(1), lambda _: None)
    cells = {(row["option"], row["choice"]) for row in read_rows(tmp_path / "features.csv")}
    assert cells == {
        ("base", "heredity trained"),
        ("heredity", "untrained"),
        ("heredity", "trained, not inherited"),
        ("heredity", "untrained, not inherited"),
        ("steps", "3"),
        ("updates", "1"),
        ("updates", "3"),
    }
    assert "heredity that was trained beats heredity that was not" in (tmp_path / "verdict.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size > 5000
