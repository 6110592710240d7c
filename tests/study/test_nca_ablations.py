"""The grid of MedSegDiffNCA's ablations: every cell changes what its name says, opponents are of its size, and the study runs from nothing."""

import pytest
import torch
import yaml

from somite.data.phantoms import write_phantoms
from somite.engines import Pool
from somite.evaluation import read_rows
from somite.recipe import build, parse
from somite.studies.nca_ablations import BASE, BUDGETS, BY_LEVEL, CELLS, PAPER, STUDY, TWIN, UNETS
from somite.study.run import run_study
from somite.study.study import Asked, study_of
from trees import differing


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(write_phantoms(tmp_path_factory.mktemp("phantoms"), 6, (32, 32)))


def trees(root, out, budget):
    jobs = STUDY.jobs(Asked(root, out, budget, seeds=[0]))
    return {(dict(job.keys)["option"], dict(job.keys)["choice"]): yaml.safe_load(job.recipe) for job in jobs}


def network_of(tree, out):
    path = out / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return build(parse(path)).method.network


def test_every_cell_changes_what_its_name_says(root, tmp_path):
    assert study_of("nca-ablations") is STUDY
    grid = trees(root, tmp_path, "cpu")
    assert {*grid} == {*CELLS, TWIN, *UNETS}
    expected = {
        "RGB loss": {"terms/rgb/class_path", "key", "weight", "channels", "paired"},
        "levels": {"levels", "scale", "deep", "terms/deep/class_path", "updates", *(f"updates/{depth}" for depth in range(4))},
        "attention": {"cbam"},
        "hidden units": {"hidden"},
        "channels": {"channels"},
        "updates": {"updates"},
        "timestep": {"time_scale"},
        "position": {"position"},
        "hidden norm": {"norm"},
        "firing": {"update_rate"},
        "dropout": {"dropout"},
        "kernel": {"kernel"},
        "downsampling": {"downsample"},
    }
    for cell in (cell for cell in CELLS if cell != BASE and cell[0] != "prediction"):
        changes = differing(grid[cell], grid[BASE])
        assert changes and changes <= expected[cell[0]], cell
    assert differing(grid[("prediction", "noise")], grid[("prediction", "noise, no RGB loss")]) == {"terms/rgb/class_path", "key"}
    assert {cell for _, *pair in PAPER for cell in pair} <= {*CELLS}
    for tree in grid.values():
        assert tree["training"] == grid[BASE]["training"] and tree["data"] == grid[BASE]["data"]


@pytest.mark.parametrize("budget", ["cpu", "paper"])
def test_the_unet_has_as_many_weights(budget, root, tmp_path):
    grid = trees(root, tmp_path, budget)
    made = [network_of(grid[cell], tmp_path) for cell in (BASE, *UNETS)]
    cells, *unets = (sum(weight.numel() for weight in network.parameters()) for network in made)
    for weights in unets:
        assert abs(weights / cells - 1) < 0.07


def test_the_timestep_can_be_kept_from_cells(root, tmp_path):
    """An infinite scale: whatever t is, the cells are told the same."""
    network = network_of(trees(root, tmp_path, "smoke")[("timestep", "none")], tmp_path).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    x, image = torch.randn(1, 1, 32, 32), torch.rand(1, 3, 32, 32)
    answers = []
    for t in (0, 999):
        torch.manual_seed(0)
        answers.append(network(x, torch.tensor([t]), {"image": image}).value)
    assert torch.equal(*answers) and answers[0].abs().max() > 0


@pytest.mark.slow
def test_it_runs_from_nothing(root, tmp_path):
    told = run_study(STUDY, Asked(root, tmp_path, "smoke"), Pool(2), lambda _: None)
    assert "the RGB loss helps noise prediction" in told and "an ensemble beats one member" in told
    rows = read_rows(tmp_path / "rows.csv")
    assert {(row["option"], row["choice"]) for row in rows} == {*CELLS, TWIN, *UNETS}
    assert {row["members"] for row in rows if (row["option"], row["choice"]) == BASE} == {str(n) for n in BUDGETS["smoke"].ladder}
    verdict = (tmp_path / "verdict.md").read_text()
    assert f"{' '.join(BY_LEVEL)} is more accurate than levels 4 by 2" in verdict
    assert "better calibrated (ECE a case) than a U-Net of as many weights, one step" in verdict
    assert (tmp_path / "figure.png").stat().st_size > 5000
