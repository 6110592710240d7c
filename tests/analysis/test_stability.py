"""Stability on runs and answers whose truth is known, and on a run's own answers measured again by other libraries."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

import somite
from runs import TINY, tiny
from somite.analysis.stability import analyse_stability, concluded, of_seeds, row, table
from somite.analysis.stability_case import Comparison, images, of_case, over_seeds
from somite.checkpoint import tensors
from somite.cli import main
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.metrics.lpips import features
from somite.metrics.overlap import overlap
from somite.predict.ensemble import fused
from somite.predict.fusion import Mean


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), 20, (32, 36))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    steps = ["--training.steps=10", "--training.validate=10", "--task.steps=null"]
    return somite.load(tiny(root, tmp_path_factory.mktemp("run") / "run", *steps), device="cpu").at(members=1)


@pytest.fixture
def answers(run, monkeypatch):
    """Answers to order: a function of (case, seed, truth) that gives the probability (*s)."""

    def order(probability):
        def answer(models, record, sampling, keep=False):
            return fused(record, probability(record.case.id, sampling.seed, record.truth)[None, None].astype(np.float32), Mean(), keep)

        monkeypatch.setattr(run.recipe.task, "answer", answer)

    return order


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of a small analysis' time."""
    monkeypatch.setattr("somite.analysis.stability.figures.save", lambda figure, out, name: [out / f"{name}.svg", out / f"{name}.png"])


def test_rows_are_the_measures_of_the_runs_answers(run, undrawn, tmp_path):
    paths = analyse_stability(run.at(seed=3), tmp_path, seeds=3)
    rows, by_seed, told = read_rows(paths["rows"]), read_rows(paths["seeds"]), json.loads(paths["summary"].read_text())
    cases = run.recipe.data.cases("test")
    assert [row["case"] for row in rows] == [case.id for case in cases]
    assert [row["seed"] for row in by_seed] == ["3", "4", "5"] and told["seeds"] == [3, 4, 5]
    dice = np.zeros((len(cases), 3))
    for one_row, case, here in zip(rows, cases, dice, strict=True):
        results = [run.predict(case, members=1, seed=seed) for seed in (3, 4, 5)]
        masks, truth = [one.mask > 0 for one in results], run.recipe.data.read(case).truth > 0
        here[:] = [overlap(mask, truth)["dice"] for mask in masks]
        first, *others = (torch.from_numpy(one.probability[None]).double() for one in results)
        expected = {
            "psnr": np.mean([peak_signal_noise_ratio(one, first, data_range=1.0).item() for one in others]),
            "ssim": np.mean([structural_similarity_index_measure(one, first, data_range=1.0).item() for one in others]),
            "pairwise_dice": np.mean([overlap(masks[i], masks[j])["dice"] for i, j in ((0, 1), (0, 2), (1, 2))]),
            "disputed_pixels": np.mean(np.any(masks, axis=0) & ~np.all(masks, axis=0)),
            "dice": here.mean(),
            "dice_std": here.std(ddof=1),
        }
        assert {key: float(one_row[key]) for key in expected} == pytest.approx(expected, rel=1e-4)
        assert one_row["ms_ssim"] == one_row["lpips"] == "" and one_row["images"] == "1"
    assert [float(row["mean"]) for row in by_seed] == pytest.approx(dice.mean(0), rel=1e-4)
    assert told["mean_dice_over_seeds"]["std"] == pytest.approx(dice.mean(0).std(ddof=1), rel=1e-4)
    assert told["metrics"]["ssim"]["mean"] == pytest.approx(np.mean([float(row["ssim"]) for row in rows]), rel=1e-4)
    assert told["metrics"]["ssim"]["low"] <= told["metrics"]["ssim"]["mean"] <= told["metrics"]["ssim"]["high"]
    assert told["unmeasured"]["ms_ssim"] == "images under 176 pixels" and "alexnet-owt-7be5be79.pth" in told["unmeasured"]["lpips"]


def test_one_answer_at_every_seed_is_perfectly_stable(run, answers, undrawn, tmp_path):
    answers(lambda case, seed, truth: np.where(truth > 0, 0.9, 0.1))
    told = json.loads(analyse_stability(run, tmp_path, seeds=3)["summary"].read_text())
    means = {name: found["mean"] for name, found in told["metrics"].items()}
    assert means == {"ssim": 1, "pairwise_dice": 1, "disputed_pixels": 0, "dice": 1, "dice_std": 0}
    assert told["unmeasured"]["psnr"] == "all maps are equal"
    assert told["counts"]["equal_pairs"] == told["counts"]["pairs"] == 2 * 4
    assert told["mean_dice_over_seeds"] == {"mean": 1, "std": 0, "min": 1, "max": 1}
    assert "8 of 8 pairs of maps" in table(told)


def test_equal_pairs_and_empty_references_are_left_out_and_counted(run, answers, undrawn, tmp_path):
    cases = [case.id for case in run.recipe.data.cases("test")]

    def answer(case, seed, truth):
        p = 0.1 + 0.5 * (truth > 0)
        match cases.index(case):
            case 0:  # seed 1 is as the first, seed 2 is 0.01 off: 40 dB
                return p + 0.01 * (seed == 2)
            case 1:  # empty at every seed
                return 0.1 + 0 * p
            case 2:  # empty at the first one only
                return p if seed else 0.1 + 0 * p
            case _:  # empty at all but the first
                return 0.1 + 0 * p if seed else p

    answers(answer)
    paths = analyse_stability(run, tmp_path, seeds=3)
    rows, told = read_rows(paths["rows"]), json.loads(paths["summary"].read_text())
    assert [row["images"] for row in rows] == ["1", "0", "0", "1"]
    assert [row["empty_here_only"] for row in rows] == ["0", "0", "1", "0"]
    assert told["counts"] == {"images": 2, "empty": 2, "empty_here_only": 1, "equal_pairs": 1, "pairs": 4}
    assert float(rows[0]["psnr"]) == pytest.approx(40, abs=1e-3)
    assert rows[1]["psnr"] == rows[2]["psnr"] == "" and told["metrics"]["psnr"]["cases"] == 2
    # two empty masks are alike, an empty one and another are not; no case is left out
    assert [float(row["pairwise_dice"]) for row in rows] == pytest.approx([1, 1, 1 / 3, 1 / 3], abs=1e-5)
    assert [float(row["dice_std"]) for row in rows] == pytest.approx([0, 0, 3**-0.5, 3**-0.5], abs=1e-5)
    assert float(read_rows(paths["seeds"])[0]["mean"]) == 0.5  # 1, 0, 0, 1
    assert "2 of 4 images with no foreground at seed 0 (some at another: 1)" in table(told)


def test_published_maps_have_8_bits_and_their_own_range():
    rng = np.random.default_rng(0)
    reference, other = 0.2 + 0.3 * rng.random((2, 1, 20, 20))
    a, b = (np.floor(255 * x) for x in (other[0], reference[0]))
    found = Comparison(published=True)(other, reference)
    assert found["psnr"][0] == pytest.approx(10 * np.log10(np.ptp(b) ** 2 / ((a - b) ** 2).mean()), abs=1e-4)
    unset = structural_similarity_index_measure(*(torch.from_numpy(x)[None, None] for x in (a, b)))
    assert found["ssim"][0] == pytest.approx(unset.item(), abs=1e-6)
    corrected = Comparison()(other, reference)
    assert corrected["psnr"][0] == pytest.approx(10 * np.log10(1 / ((other - reference) ** 2).mean()), abs=1e-4)
    assert corrected["ssim"][0] > found["ssim"][0] and corrected["psnr"][0] > found["psnr"][0] + 5


@pytest.mark.parametrize(("published", "expected"), [(False, (40 + 20) / 2), (True, (40 + 20 + 20) / 3)])
def test_volumes_count_by_case_and_published_by_image(published, expected):
    part = {
        "empty": 0,
        "empty_here_only": 0,
        "equal_pairs": 0,
        "pairs": 2,
        "pairwise_dice": 1.0,
        "disputed_pixels": 0.0,
        "dice": [1.0, 1.0],
    }
    maps = {"ssim": [1.0], "ms_ssim": [None], "lpips": [None]}
    found = [
        {**part, "case": name, "group": name, "images": {"psnr": psnr, **maps}} for name, psnr in {"a": [40.0], "b": [20.0, 20.0]}.items()
    ]
    told = concluded(found, [row(one) for one in found], of_seeds(found, [0, 1]), {"published": published, "lpips": None})
    assert told["metrics"]["psnr"]["mean"] == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_classes(axis):
    volume = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = images(volume, axis)
    side = volume.shape[axis + 1]
    for label in (0, 1):
        for index in range(side):
            assert np.array_equal(found[label * side + index], volume[label].take(index, axis))
    assert np.array_equal(images(volume[0], axis), volume[0])  # classes of a 2D case


def test_means_over_seeds_are_of_finite_values():
    assert over_seeds(np.array([[1.0, np.inf, np.nan], [3.0, 5.0, np.nan]])) == [2, 5, None]


def test_several_classes_in_slices(tmp_path):
    root = write_phantoms(tmp_path / "data", 6, (16, 18, 8), channels=1, classes=2)
    codec = ["--data.labels=[0,1,2]", "--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3"]
    size = ["--method.network.mask_channels=3", "--data.crop=16", "--training.steps=2", "--training.validate=2", "--task.steps=null"]
    run = somite.load(tiny(root, tmp_path / "run", *codec, *size), device="cpu").at(members=1)
    paths = analyse_stability(run, tmp_path / "out", seeds=2, split="all", limit=1)
    (found,) = read_rows(paths["rows"])
    assert int(found["images"]) + int(found["empty"]) == 2 * 8
    (case,) = run.recipe.data.cases("all")[:1]
    one, other = (run.predict(case, members=1, seed=seed).mask for seed in (0, 1))
    assert float(found["pairwise_dice"]) == pytest.approx(np.mean([overlap(one == k, other == k)["dice"] for k in (1, 2)]), rel=1e-4)
    assert float(found["disputed_pixels"]) == pytest.approx(np.mean(one != other), rel=1e-4)
    assert all(path.stat().st_size > 20 for path in paths.values()) and paths["png"].stat().st_size > 5000


class Stop(Exception):
    pass


def test_it_goes_on(run, undrawn, tmp_path, monkeypatch):
    def stopping(items):
        yield from items[:3]
        raise Stop

    with pytest.raises(Stop):
        analyse_stability(run, tmp_path / "stopped", seeds=2, progress=stopping)
    asked = []
    monkeypatch.setattr("somite.analysis.stability.of_case", lambda run, case, *rest: asked.append(case.id) or of_case(run, case, *rest))
    analyse_stability(run, tmp_path / "stopped", seeds=2)
    assert asked == [run.recipe.data.cases("test")[3].id]
    analyse_stability(run, tmp_path / "straight", seeds=2)
    for name in ("stability.csv", "seeds.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert not list((tmp_path / "stopped").glob("*.parts"))


def test_the_command_prints_means_and_measures_lpips(run, undrawn, tmp_path, capsys):
    weights = {f"features.{name}": value for name, value in features().state_dict().items()}
    save_file(weights, tmp_path / "alexnet.safetensors")
    torch.save(weights, tmp_path / "alexnet.pth")
    line = ["analyse", "stability", str(run.path), "--seeds", "2", "--limit", "2", "--lpips", str(tmp_path / "alexnet.safetensors")]
    assert main([*line, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "summary.json").read_text())["metrics"]["lpips"]
    assert found["mean"] > 0 and found["cases"] == 2
    one, other = (tensors(tmp_path / f"alexnet.{kind}") for kind in ("safetensors", "pth"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    printed = capsys.readouterr().out
    assert "test: 2 cases, seeds 0 to 1, 1 member and 1 reverse step each" in printed
    assert f"  lpips                    {found['mean']:.4f}" in printed
    assert "not measured: images under 176 pixels" in printed and "standard deviation" in printed


@pytest.fixture(scope="module")
def feed_forward(root, tmp_path_factory):
    small = [*TINY, "--training.steps=2", "--training.validate=2", "--task.steps=null", "--data.preprocess.channels=3"]
    return tiny(root, tmp_path_factory.mktemp("twin") / "run", *small, recipe="medsegdiffnca/feed-forward")


def test_feed_forward_runs_are_measured_only_where_they_draw(feed_forward, undrawn, tmp_path):
    run = somite.load(feed_forward, device="cpu").at(members=1)
    with pytest.raises(InputError, match="the same answer at every seed"):
        analyse_stability(run.at(firing="expected"), tmp_path, seeds=2)
    assert not list(tmp_path.iterdir())
    rows = read_rows(analyse_stability(run.at(firing="stochastic"), tmp_path, seeds=2, limit=1)["rows"])
    assert rows[0]["equal_pairs"] == "0"


def never(cases):
    raise AssertionError("work has begun")


def test_bad_requests(run, tmp_path):
    for wrong in ({"seeds": 1}, {"limit": 0}):
        with pytest.raises(InputError, match="at least two seeds"):
            analyse_stability(run, tmp_path / "out", **wrong, progress=never)
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name, words in (
        ("none.pth", "not there"),
        ("none.safetensors", "not there"),
        ("broken.safetensors", "cannot be read"),
        ("other.safetensors", "give alexnet"),
    ):
        with pytest.raises(InputError, match=words):
            analyse_stability(run, tmp_path / "out", weights=tmp_path / name, progress=never)
    assert not (tmp_path / "out").exists()
