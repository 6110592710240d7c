"""Fingerprints against brute force and exactly solvable sets, and a small learned one."""

import json
import math

import numpy as np
import pytest
import torch

from somite import rng
from somite.analysis.curves import grid, half_point, t_at
from somite.analysis.fingerprint import Windows, analyse_fingerprint, fingerprint, masks_of, retained, summary, table, whole_error
from somite.analysis.learned import MaskDenoiser, errors, learn
from somite.analysis.oracles import Pixels, Template, at_snr, entropy, information, pixel_mmse
from somite.data.images import write_png
from somite.data.phantoms import write_phantoms
from somite.data.record import read
from somite.data.sources import find
from somite.diffusion.schedule import linear
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.rng import seeded

S = linear(1000)


def disc(radius, size):
    y, x = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2, indexing="ij")
    return x**2 + y**2 <= radius**2


def shifts(mask):
    return torch.stack([mask.roll((i, j), (0, 1)) for i in range(mask.shape[0]) for j in range(mask.shape[1])])


@pytest.fixture(scope="module")
def few():
    torch.manual_seed(1)
    return torch.rand(7, 6, 5) < torch.tensor([0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7]).view(7, 1, 1)


def test_whole_masks_against_brute_force(few):
    groups = ["a", "a", "b", "c", "c", "d", "e"]
    rows = fingerprint(few, S, groups, timesteps=[100, 400, 900], windows=(), chunk=3)
    for row in rows:
        i = int(row["case"])
        x0 = 2.0 * few[i].double() - 1
        with seeded(0, [f"fingerprint/{row['case']}"]):
            eps = rng.normal((1, 6, 5), torch.device("cpu"))[0].double()
        others = [2.0 * few[k].double() - 1 for k in range(7) if groups[k] != groups[i]]
        alpha, sigma = S.at(row["t"])
        x_t = alpha * x0 + sigma * eps
        weights = np.array([math.exp(-float(((x_t - alpha * m) ** 2).sum()) / (2 * sigma**2)) for m in others])
        mean = sum(w * m for w, m in zip(weights / weights.sum(), others, strict=True))
        assert row["whole"] == pytest.approx(float(((x0 - mean) ** 2).mean()), rel=1e-4)
        assert row["prior"] == pytest.approx(float(((x0 - sum(others) / len(others)) ** 2).mean()), rel=1e-5)
    assert len(rows) == 21


def test_the_chunk_does_not_matter(few):
    a, b = (fingerprint(few, S, timesteps=[300, 600], windows=(3,), chunk=chunk) for chunk in (2, 100))
    key = lambda row: (row["case"], row["t"])  # noqa: E731
    for one, two in zip(sorted(a, key=key), sorted(b, key=key), strict=True):
        assert key(one) == key(two)
        assert [one[name] for name in ("prior", "whole", "window3")] == pytest.approx(
            [two[name] for name in ("prior", "whole", "window3")], rel=1e-4, abs=1e-6
        )


def test_the_set_of_all_shifts_is_the_translated_template():
    mask = disc(2, 8)
    every = 2.0 * shifts(mask).flatten(1).float() - 1
    eps = torch.randn_like(every)
    oracle = Template(2.0 * mask.double() - 1)
    for gamma in (0.01, 0.2, 2.0):
        alpha, sigma = at_snr(gamma)
        x_t = (alpha * every + sigma * eps).view(-1, 8, 8).double()
        exact = ((oracle.denoise(x_t, alpha, sigma).flatten(1) - every) ** 2).mean(1)
        assert torch.allclose(whole_error(every, every, eps, alpha, sigma, None).double(), exact, atol=1e-4)


def test_small_discs_are_lost_at_less_noise():
    """All shifts of a disc, two of each so that leaving one out leaves its twin: the table of translated discs, by radius."""
    found = []
    for radius, t in ((1.5, 357), (3, 482), (6, 614), (10, 696)):
        every = shifts(disc(radius, 32))[::7]  # 147 of 1024 positions: ln N is 5.0 in place of 6.9, so half is reached later
        rows = fingerprint(torch.cat([every, every]), S, timesteps=range(150, 1000, 25), windows=())
        half = summary(rows, S)["half_whole"]
        assert half["reached"]
        assert half["t_low"] < half["t"] < half["t_high"]
        found.append(half["t"])
        assert -20 < half["t"] - t < 60
    assert np.diff(found).min() > 40


def test_a_window_of_one_pixel_is_the_independent_pixel():
    torch.manual_seed(2)
    masks = torch.rand(40, 32, 32) < 0.2
    rows = fingerprint(masks, S, timesteps=[150, 250, 400], windows=(1,))
    for line in table(rows):
        assert line["window1"] == pytest.approx(float(pixel_mmse(S.snr(line["t"]), 0.2)), abs=0.02)


def test_windows_against_enumeration(few):
    """Every window's posterior by hand, on a pixel of which the other half of the groups shows all there is."""
    windows = Windows(few, torch.arange(7), 3, seed=0)
    padded = torch.nn.functional.pad(few, (1, 1, 1, 1))
    for side in (0, 1):
        seen = {}
        for k in (windows.half != side).nonzero()[:, 0].tolist():
            for y in range(6):
                for x in range(5):
                    key = tuple((2 * padded[k, y : y + 3, x : x + 3].int() - 1).flatten().tolist())
                    seen[key] = seen.get(key, 0) + 1
        patterns, weights = windows.priors[side]
        mine = {tuple(p): w for p, w in zip(patterns.int().tolist(), weights.exp().tolist(), strict=True)}
        assert mine == pytest.approx({key: count / sum(seen.values()) for key, count in seen.items()})
    alpha, sigma = S.at(200)
    once = windows.error(few[:2], torch.zeros(2, 6, 5), torch.arange(2), alpha, sigma)
    assert once.shape == (2,)
    assert (once >= 0).all()


def test_windows_never_learn_from_their_own_half():
    """Two patients whose masks are each other's negative: what one teaches is wrong for the other."""
    masks = torch.zeros(8, 6, 6, dtype=torch.bool)
    masks[4:] = True
    groups = ["a"] * 4 + ["b"] * 4
    rows = fingerprint(masks, S, groups, timesteps=[990], windows=(3,))
    assert all(row["window3"] > 3 and row["whole"] > 3.9 for row in rows)


def test_retained_information_of_fair_pixels():
    ts = grid(S, 60)
    u = [math.log(S.snr(t)) for t in ts]
    kept = retained(u, pixel_mmse(np.exp(u), 0.5).tolist())
    assert np.interp([148, 254, 447], ts, kept) == pytest.approx([0.9, 0.5, 0.1], abs=0.02)
    assert kept[0] == 1


def test_half_points():
    u = np.array([-4.0, -2.0, 0.0, 2.0])
    assert half_point(u, np.array([1.0, 0.75, 0.25, 0.0])) == -1.0
    assert half_point(u, np.array([1.0, 0.25, 0.9, 0.0])) == pytest.approx(-4 + 2 * 2 / 3)  # the first, from the noisy end
    assert half_point(u, np.ones(4)) == 2.0
    assert t_at(S, math.log(S.snr(345))) == pytest.approx(345)


def test_grids():
    for schedule in (S, linear(50), linear(100, zero_snr=True)):
        ts = grid(schedule, 20)
        assert ts == sorted(set(ts))
        assert ts[0] == 0
        assert schedule.snr(ts[-1]) > 0
        assert ts[-1] >= len(schedule) - 2
        assert 15 <= len(ts) <= 22
    with pytest.raises(InputError, match="choose 2 to 50"):
        grid(linear(50), 51)


def test_the_exact_form_needs_no_training_on_fair_pixels():
    network = MaskDenoiser(S).eval()
    x = torch.randn(3, 1, 8, 8)
    alpha, sigma = S.at(300)
    assert torch.allclose(network(x, torch.full((3,), 300)), torch.tanh(alpha / sigma**2 * x), atol=1e-5)


def test_a_trained_network_comes_close_to_independent_pixels():
    """Acceptance test 4, small: never better than the oracle, and within 5 % of it for gamma in [0.1, 10]."""
    oracle = Pixels(0.2, (8, 8))
    with seeded(0, range(1200)):
        masks = oracle.draw(1200) > 0
    network = learn(masks[:1000], S, steps=60, batch=16)
    ts = list(range(40, 1000, 60))
    exact = pixel_mmse([S.snr(t) for t in ts], 0.2)
    got = np.array([list(errors(network, 2.0 * m.float() - 1, ts, f"{i}", 0).values()) for i, m in enumerate(masks[1000:])])
    mean, error = got.mean(0), got.std(0) / math.sqrt(len(got))
    often = exact > 1e-3  # below, hardly a pixel of the sample is ever wrong
    assert (mean >= exact - 3 * error)[often].all()
    middle = [0.1 <= S.snr(t) <= 10 for t in ts]
    assert (mean[middle] <= 1.05 * exact[middle] + 2 * error[middle]).all()
    assert mean[-1] == pytest.approx(4 * 0.2 * 0.8, rel=0.05)
    u = np.log([S.snr(t) for t in ts])
    assert information(u[::-1], (np.exp(u) * mean)[::-1])[-1] == pytest.approx(entropy(0.2), rel=0.08)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), 8, (32, 32))


def test_the_command_writes_rows_table_summary_and_figures(phantoms, tmp_path):
    seen = []
    done = analyse_fingerprint([phantoms, phantoms], tmp_path, size=16, train=2, count=6, progress=lambda items: seen.append(1) or items)
    assert seen
    for path in done.values():
        assert path.stat().st_size > 100
    rows, lines = read_rows(done["rows"]), read_rows(done["table"])
    found = json.loads(done["summary"].read_text())
    names = list(found["data"])
    assert [name.endswith(("(1)", "(2)")) for name in names] == [True, True]
    assert {row["data"] for row in rows} == set(names)
    ts = grid(S, 6)
    assert len(rows) == 2 * 8 * len(ts)
    assert [int(line["t"]) for line in lines] == ts * 2
    for line in lines:
        mean = np.mean([float(row["whole"]) for row in rows if row["t"] == line["t"] and row["data"] == line["data"]])
        assert float(line["whole"]) == pytest.approx(mean, rel=1e-4)
        assert float(line["share_best"]) <= float(line["share_whole"]) + 1e-9
    one = found["data"][names[0]]
    assert one["groups"] == 4
    assert 0 < one["half_best"]["t"] < 999
    assert one["entropy_bound_nats_per_pixel"] > 0
    assert {"learned", "foreground", "empty"} <= set(one)
    again = analyse_fingerprint([phantoms, phantoms], tmp_path / "again", size=16, train=2, count=6)
    for key in ("rows", "table", "svg", "png", "learned"):
        assert again[key].read_bytes() == done[key].read_bytes()


@pytest.mark.parametrize(("options", "words"), [({"train": -3}, "--train -3"), ({"size": 30, "train": 2}, "multiple of 4")])
def test_a_training_that_cannot_be_is_refused_before_anything_is_measured(phantoms, tmp_path, options, words):
    def never(items):
        raise AssertionError("work has begun")

    with pytest.raises(InputError, match=words):
        analyse_fingerprint([phantoms], tmp_path / "out", progress=never, **options)


def test_volumes_give_their_fullest_slice(tmp_path):
    write_phantoms(tmp_path, 3, (16, 16, 12), channels=1)
    found = masks_of(tmp_path, 16)
    assert found.masks.shape == (3, 16, 16)
    labels = read(find(tmp_path).all[0]).labels
    assert int(found.masks[0].sum()) == int((labels > 0).sum((0, 1)).max())


@pytest.fixture
def flat(tmp_path):
    for i in range(3):
        write_png(tmp_path / "images" / f"{i}.png", np.zeros((8, 8), np.uint8))
        write_png(tmp_path / "masks" / f"{i}.png", np.zeros((8, 8), np.uint8))
    return tmp_path


def test_bad_input_is_one_sentence_with_the_mend(flat, few, tmp_path):
    with pytest.raises(InputError, match=r"all 3 masks of .* are empty at 8 pixels; raise --size"):
        masks_of(flat, 8)
    with pytest.raises(InputError, match="--size 2"):
        masks_of(flat, 2)
    with pytest.raises(InputError, match="all of one; give more cases"):
        fingerprint(few, S, ["a"] * 7)
    with pytest.raises(InputError, match="--train 0: training takes at least 1 step"):
        learn(few, S, 0)
    with pytest.raises(InputError, match="multiple of 4"):
        learn(few, S, 1)
    nothing = tmp_path / "nothing"
    write_png(nothing / "images" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="no masks/"):
        masks_of(nothing, 8)
