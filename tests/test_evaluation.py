"""An evaluation's tables against the masks that the run predicts, scored by MONAI, SciPy and plain NumPy."""

import csv
import json

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy.stats import wilcoxon
from torchmetrics.functional.classification import binary_calibration_error

import somite
from runs import tiny
from somite.cli import main
from somite.data.images import read_labels, write_png
from somite.data.nifti import read_labels as read_volume_labels
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.evaluation import compare, comparison, evaluate, table
from somite.predict.fusion import Average
from somite.tasks.segmentation.whole import with_terciles


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def evaluated(root, out, *overrides):
    run = somite.load(tiny(root, out, "--training.steps=4", "--task.members=3", *overrides), device="cpu")
    return run, evaluate(run, "test", run.path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Phantoms, one of whose test masks is empty."""
    root = write_phantoms(tmp_path_factory.mktemp("data"), 40, (32, 40))
    write_png(root / "masks" / "case039.png", np.zeros((32, 40), np.uint8))
    return root


@pytest.fixture(scope="module")
def first(root, tmp_path_factory):
    return evaluated(root, tmp_path_factory.mktemp("first") / "run")


@pytest.fixture(scope="module")
def second(root, tmp_path_factory):
    return evaluated(root, tmp_path_factory.mktemp("second") / "run", "--training.seed=1", "--method.network.updates=4")


def test_one_row_a_case_with_its_patient(root, first):
    run, _ = first
    rows = rows_of(run.path / "rows.csv")
    assert [row["case"] for row in rows] == json.loads((root / "splits.json").read_text())["test"]
    groups = {row["id"]: row["group"] for row in rows_of(root / "groups.csv")}
    assert all(row["group"] == groups[row["case"]] for row in rows)


def test_rows_are_monais_numbers_of_the_predicted_masks(root, first):
    run, _ = first
    scored = 0
    for row in rows_of(run.path / "rows.csv"):
        truth = torch.from_numpy(read_labels(root / "masks" / f"{row['case']}.png") > 0)[None, None]
        result = run.predict(root / "images" / f"{row['case']}.png")  # members and seed as evaluated
        mask = torch.from_numpy(result.mask > 0)[None, None]
        assert int(row["size"]) == int(truth.sum())
        probability = result.probability[0].astype(np.float64)
        assert float(row["brier"]) == pytest.approx(((probability - truth[0, 0].numpy()) ** 2).mean(), rel=1e-4)
        if not truth.any() or not mask.any():
            continue
        scored += 1
        assert float(row["dice"]) == pytest.approx(float(compute_dice(mask, truth)), rel=1e-4)
        hd95 = compute_hausdorff_distance(mask, truth, include_background=True, percentile=95)
        assert float(row["hd95"]) == pytest.approx(float(hd95), rel=1e-4)
        assert float(row["nsd"]) == pytest.approx(float(compute_surface_dice(mask, truth, [2.0], include_background=True)), rel=1e-4)
    assert scored >= 4


def test_an_empty_truth_counts_and_is_a_part_of_its_own(root, first):
    run, summary = first
    (row,) = [row for row in rows_of(run.path / "rows.csv") if row["case"] == "case039"]
    empty = not run.predict(root / "images" / "case039.png").mask.any()
    assert row["tercile"] == "empty"
    assert float(row["dice"]) == float(empty)
    assert float(row["hd95"]) == (0 if empty else pytest.approx(np.hypot(32, 40), rel=1e-4))
    assert summary["by_size"]["empty"]["cases"] == 1
    assert summary["metrics"]["dice"]["cases"] == len(rows_of(run.path / "rows.csv"))


def test_means_are_of_all_rows_and_written_as_returned(first):
    run, summary = first
    rows = rows_of(run.path / "rows.csv")
    for name, found in summary["metrics"].items():
        assert found["mean"] == pytest.approx(np.mean([float(row[name]) for row in rows]), rel=1e-4), name
        assert found["low"] <= found["mean"] <= found["high"]
        assert found["groups"] == len({row["group"] for row in rows})
    assert json.loads((run.path / "metrics.json").read_text()) == json.loads(json.dumps(summary))
    assert f"{summary['metrics']['dice']['mean']:.4f}" in table(summary)


def test_terciles_are_of_the_sizes():
    rows = with_terciles([{"size": size} for size in (0, 10, 20, 30, 40, 50, 60, 0)])
    assert [row["tercile"] for row in rows] == ["empty", "small", "small", "medium", "medium", "large", "large", "empty"]
    assert [row["tercile"] for row in with_terciles([{"size": 0}])] == ["empty"]


def test_the_pooled_error_is_that_of_all_pixels_in_a_row(root, first):
    run, summary = first
    truths, probabilities = [], []
    for case in run.recipe.data.cases("test"):
        truths.append((read_labels(case.mask) > 0).ravel())
        probabilities.append(run.predict(case.images[0]).probability.ravel())
    p, y = torch.from_numpy(np.concatenate(probabilities)), torch.from_numpy(np.concatenate(truths)).int()
    edges = np.linspace(0, 1, 16)
    index = np.clip(np.searchsorted(edges + 1e-6, p.numpy().astype(np.float64)) - 1, 0, 14)
    expected = sum(abs(float(p[index == b].double().sum()) - float(y[index == b].sum())) for b in range(15)) / len(p)
    assert summary["pooled"]["ece_all"]["mean"] == pytest.approx(expected, abs=1e-6)
    # torchmetrics scores the same bins where confidence is the foreground's
    assert summary["pooled"]["ece_all"]["mean"] == pytest.approx(float(binary_calibration_error(p, y, n_bins=15, norm="l1")), abs=2e-3)


def test_bins_of_every_region_hold_the_pixels_once(root, first):
    run, _ = first
    bins = rows_of(run.path / "reliability.csv")
    for case in run.recipe.data.cases("test"):
        everything = [row for row in bins if row["case"] == case.id and row["region"] == "all"]
        assert len(everything) == 15
        assert sum(float(row["count"]) for row in everything) == 32 * 40
        assert sum(float(row["positives"]) for row in everything) == (read_labels(case.mask) > 0).sum()


def test_curves_over_members_and_steps(first):
    run, _ = first
    curves = rows_of(run.path / "curves.csv")
    case = run.recipe.data.cases("test")[0]
    points = {(row["axis"], int(row["at"])): float(row["dice"]) for row in curves if row["case"] == case.id}
    assert sorted(points) == [("members", 1), ("members", 2), ("members", 3), ("steps", 1), ("steps", 2), ("steps", 5)]
    assert points["steps", 1] == points["members", 1]  # one member, one step, the same noise
    assert run.method.steps == 1  # and put back


def test_evaluating_again_gives_the_same_rows_and_another_seed_others(first, tmp_path):
    run, _ = first
    evaluate(run, "test", tmp_path / "again")
    evaluate(run.at(seed=1), "test", tmp_path / "other")
    rows = (run.path / "rows.csv").read_text()
    assert (tmp_path / "again" / "rows.csv").read_text() == rows
    assert (tmp_path / "other" / "rows.csv").read_text() != rows


def test_a_run_does_not_differ_from_itself(first):
    run, _ = first
    for row in compare(run.path, run.path):
        assert row["mean"] == 0
        assert row["p"] == row["p_holm"] == 1


def test_two_runs_differ_by_wilcoxon_over_patients(first, second):
    (a, _), (b, _) = first, second
    ours, theirs = rows_of(a.path / "rows.csv"), rows_of(b.path / "rows.csv")
    groups = [row["group"] for row in ours]
    found = {row["metric"]: row for row in compare(a.path, b.path)}
    assert {"dice", "hd95", "brier", "ece"} <= found.keys()
    for name, row in found.items():
        difference = np.array([float(x[name]) - float(y[name]) for x, y in zip(ours, theirs, strict=True)])
        assert row["mean"] == pytest.approx(difference.mean(), abs=1e-9)
        means = np.round([difference[[g == group for g in groups]].mean() for group in sorted(set(groups))], 12)
        assert row["p"] == pytest.approx(wilcoxon(means).pvalue if means.any() else 1.0)
    adjusted = sorted((row["p"], row["p_holm"]) for row in found.values())
    assert adjusted[0][1] == pytest.approx(min(1, adjusted[0][0] * len(adjusted)))
    _, text = comparison(a.path, b.path)
    assert "brier" in text


def test_only_shared_cases_are_compared(first, tmp_path):
    run, _ = first
    lines = (run.path / "rows.csv").read_text().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join(lines[:4]) + "\n")
    assert {row["cases"] for row in compare(run.path, tmp_path)} == {3}
    (tmp_path / "rows.csv").write_text("\n".join(lines[:2]).replace("case0", "other0") + "\n")
    with pytest.raises(InputError, match="share no cases"):
        compare(run.path, tmp_path)
    with pytest.raises(InputError, match=r"rows.csv is missing; run `somite evaluate"):
        compare(run.path, tmp_path / "nothing")


def test_classes_are_trained_predicted_and_scored_one_by_one(tmp_path):
    root = write_phantoms(tmp_path / "data", 6, (32, 32), classes=2)
    overrides = ["--data.labels=[0,1,2]", "--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3"]
    run, summary = evaluated(root, tmp_path / "run", *overrides, "--method.network.mask_channels=3")
    rows = rows_of(run.path / "rows.csv")
    assert [row["label"] for row in rows] == ["1", "2"] * (len(rows) // 2)
    assert summary["by_label"].keys() == {"1", "2"}
    for row in rows:
        mask = run.predict(root / "images" / f"{row['case']}.png").mask == int(row["label"])
        truth = read_labels(root / "masks" / f"{row['case']}.png") == int(row["label"])
        expected = 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) if (mask | truth).any() else 1
        assert float(row["dice"]) == pytest.approx(expected, rel=1e-4)


VOLUMES = ["--data.preprocess.channels=1", "--method.network.image_channels=1", "--data.crop=12"]


@pytest.mark.parametrize("dims", [2, 3])
def test_volumes_are_measured_in_mm(tmp_path, dims, monkeypatch):
    """Slice by slice or whole: NSD and HD95 see the 1 x 1 x 2 mm of the phantoms."""
    root = write_phantoms(tmp_path / "data", 5, (16, 16, 12), channels=1)
    deep = ["--data.preprocess.dims=3", "--method.network.dims=3"] if dims == 3 else []
    run, _ = evaluated(root, tmp_path / "run", *VOLUMES, *deep)
    case = run.recipe.data.cases("test")[0]
    middle = np.quantile(run.predict(case).probability, 0.8)  # four steps find nothing: take the likeliest fifth
    monkeypatch.setattr(run.recipe.task.fusion, "start", lambda: Average(then=lambda mean: (mean + 0.5 - middle).clip(0, 1)))
    summary = evaluate(run, "test", run.path)
    assert summary["unit"] == "mm"
    (row,) = rows_of(run.path / "rows.csv")
    truth = torch.from_numpy(read_volume_labels(root / "masks" / f"{row['case']}.nii.gz")[0] > 0)[None, None]
    result = run.predict(root / "images" / f"{row['case']}.nii.gz")
    assert result.mask.shape == (16, 16, 12)
    mask = torch.from_numpy(result.mask > 0)[None, None]
    assert mask.any()
    apart, unit = (
        float(compute_hausdorff_distance(mask, truth, include_background=True, percentile=95, spacing=spacing))
        for spacing in ([1.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    )
    assert float(row["hd95"]) == pytest.approx(apart, rel=1e-4)
    assert apart != unit
    nsd = compute_surface_dice(mask, truth, [2.0], include_background=True, spacing=[1.0, 1.0, 2.0])
    assert float(row["nsd"]) == pytest.approx(float(nsd), rel=1e-4)


def test_every_labelled_case_can_be_evaluated_and_other_data_need_a_folder_of_their_own(first, tmp_path, capsys):
    run = first[0].path
    other = write_phantoms(tmp_path / "other", 7, (32, 32))
    before = (run / "rows.csv").read_bytes()
    assert main(["evaluate", str(run), "--data", str(other)]) == 2
    assert "--out" in capsys.readouterr().err
    assert (
        main(
            [
                "evaluate",
                str(run),
                "--data",
                str(other),
                "--split",
                "all",
                "--out",
                str(tmp_path / "out"),
                "--members",
                "1",
                "--tolerance",
                "3",
            ]
        )
        == 0
    )
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert summary["metrics"]["dice"]["cases"] == 7
    assert (summary["root"], summary["tolerance"]) == (str(other), 3)
    assert (run / "rows.csv").read_bytes() == before


def test_runs_scored_in_another_way_are_not_compared(first, tmp_path):
    run, _ = first
    for name, other in (("bins", 10), ("boundary", 2), ("tolerance", 1.0)):
        before = getattr(run.recipe.task, name)
        evaluate(run.under({f"--task.{name}": str(other)}), "test", tmp_path / name)
        with pytest.raises(InputError, match=rf"evaluated with another {name} \({before} and {other}\)"):
            comparison(run.path, tmp_path / name)


def test_members_and_fusion_may_differ_and_are_told(first, tmp_path):
    run, _ = first
    evaluate(run.at(members=2, fusion="somite.predict.fusion.Majority"), "test", tmp_path / "votes")
    _, text = comparison(run.path, tmp_path / "votes")
    assert f"{run.path}: 3 members, 1 reverse step(s), fused by Mean\n" in text
    assert "votes: 2 members, 1 reverse step(s), fused by Majority\n" in text
    assert "fused by" not in comparison(run.path, run.path)[1]


def test_an_evaluation_that_does_not_say_how_it_was_scored(first, tmp_path):
    run, summary = first
    (tmp_path / "rows.csv").write_text((run.path / "rows.csv").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({key: value for key, value in summary.items() if key != "settings"}))
    with pytest.raises(InputError, match=r"metrics.json does not say how it was scored; run `somite evaluate"):
        comparison(run.path, tmp_path)
