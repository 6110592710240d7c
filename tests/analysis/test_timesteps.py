"""Measured losses against denoisers whose losses are known, and the command end to end."""

import csv
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

import somite
from runs import tiny
from somite import rng
from somite.analysis import timesteps
from somite.analysis.curves import grid
from somite.analysis.measured import BLANK, IMAGE, SHUFFLED, Measured, partners
from somite.analysis.oracles import Pixels, information, pixel_mmse, with_image
from somite.analysis.timesteps import analyse_timesteps, losses
from somite.data.phantoms import write_phantoms
from somite.data.record import Case
from somite.diffusion.codec import Logits, OneHot, Signed, Unit
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.terms import Clean, Noise
from somite.diffusion.timesteps import ByBenefit, benefit_knots, steps_by_benefit
from somite.errors import InputError
from somite.evaluation import read_rows
from somite.rng import seeded
from somite.tasks.segmentation import Segmentation
from somite.types import Network, Output

S = linear(1000)
ETA = 0.5
CPU = torch.device("cpu")


class Exact(Network):
    """The posterior mean of fair pixels given x_t and an image sqrt(eta) x0 + n; a constant image tells it nothing.

    It answers in the parametrisation that the method reads.
    """

    def __init__(self, predicts):
        super().__init__()
        self.predicts, self.oracle = predicts, Pixels(0.5, (16, 16))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond, state=None):
        alpha, sigma = S.at(int(t[0]))
        y = cond["image"].double()
        a, s, both = alpha, sigma, x.double()
        if float(y.std()) > 1e-6:
            both, a, s = with_image(both, alpha, sigma, y, ETA)
        x0 = self.oracle.denoise(both, a, s)
        eps = (x.double() - alpha * x0) / sigma
        value = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "logits": 2 * torch.atanh(x0.clamp(-1 + 1e-12, 1 - 1e-12))}
        return Output(value[self.predicts].float())


def exact(predicts="x0", codec=None):
    return Diffusion(Exact(predicts), S, {"noise": Noise()}, DDIM(5), codec, predicts).eval()


class Pictures:
    """Twelve cases of 16 x 16 fair pixels with images at SNR eta; stands for somite's Data."""

    path = "memory"

    def __init__(self, n=12, labels=2):
        with seeded(0, range(n)):
            mask = (rng.uniform((n, 1, 16, 16), CPU) * labels).long()
            image = math.sqrt(ETA) * (2.0 * mask - 1) + rng.normal((n, 1, 16, 16), CPU)
        image -= image.mean()  # exactly grey on average
        self.held = {
            Case(f"c{i}", (), None, f"g{i // 2}"): {"image": image[i : i + 1], "mask": mask[i : i + 1].to(torch.uint8)} for i in range(n)
        }

    def loaded(self, case):
        return self.held[case]


@pytest.fixture(scope="module")
def pictures():
    data = Pictures()
    return Measured(Segmentation(), data, list(data.held))


@pytest.fixture(scope="module")
def measured_rows(pictures):
    return losses(exact(), pictures, 25, 4)


def mean(rows, condition, unit, t):
    values = [row[unit] for row in rows if row["condition"] == condition and row["t"] == t]
    return float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))


def test_an_exact_denoiser_has_the_exact_losses_with_and_without_the_image(measured_rows):
    for t in grid(S, 25):
        gamma = S.snr(t)
        for condition, worth in ((IMAGE, gamma + ETA), (BLANK, gamma)):
            got, error = mean(measured_rows, condition, "loss_x0", t)
            assert got == pytest.approx(float(pixel_mmse(worth, 0.5)), abs=4 * error + 1e-3)
        wrong, _ = mean(measured_rows, SHUFFLED, "loss_x0", t)
        assert wrong >= mean(measured_rows, BLANK, "loss_x0", t)[0] - 1e-6
    assert mean(measured_rows, SHUFFLED, "loss_x0", 999)[0] > 1.2


def test_the_benefit_integrates_to_the_information_of_the_image(measured_rows, pictures):
    below = np.linspace(-14, math.log(ETA), 200)
    exact_information = information(below, np.exp(below) * pixel_mmse(np.exp(below), 0.5))[-1]
    method = exact()
    table = timesteps.table(measured_rows, pictures, method)
    found = timesteps.summary(measured_rows, table, timesteps.theory(method, pictures), pictures, method)
    for name in ("blank", "best"):
        one = found["mutual_information_nats_per_pixel"][name]
        assert one["mean"] == pytest.approx(exact_information, rel=0.05)
        assert one["low"] < one["mean"] < one["high"]
    assert found["mutual_information_nats_per_pixel"]["shuffled"]["mean"] > exact_information
    gamma = np.exp(np.linspace(-9, 8, 2000))
    gain = gamma * (pixel_mmse(gamma, 0.5) - pixel_mmse(gamma + ETA, 0.5))
    at = {row["t"]: row for row in table}[found["benefit_peak_t"]]
    assert at["log_snr"] == pytest.approx(math.log(gamma[gain.argmax()]), abs=0.5)  # the grid is that coarse there
    lowest, highest = found["benefit_above_a_tenth"]
    assert 50 < lowest < found["benefit_peak_t"] < highest < 999
    assert found["peak_eps"]["inside"]
    assert found["peak_eps_independent_pixels"]["t"] in range(218, 223)
    kept = {row["t"]: row["retained"] for row in table}
    assert np.interp([148, 254, 447], list(kept), list(kept.values())) == pytest.approx([0.9, 0.5, 0.1], abs=0.05)


class Coin(Network):
    """The posterior mean of fair pixels in two mirrored channels, {-1, 1} and {1, -1}: two looks at one bit. An image shows the mask."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond, state=None):
        alpha, sigma = S.at(int(t[0]))
        background, foreground = x.double().unbind(1)
        guess = torch.tanh(alpha / sigma**2 * (foreground - background))  # gamma of both looks adds to 2 gamma
        known = cond["image"][:, 0].double()
        bit = known if float(known.std()) > 1e-6 else guess
        return Output(torch.stack([-bit, bit], 1).float())


def test_nats_are_of_the_pixel_and_not_of_its_channels():
    """An image that shows a fair coin is worth ln 2, however many channels the codec writes it in."""
    u = np.linspace(-14, 8, 2000)
    gamma = np.exp(u)
    joint = information(u, gamma * pixel_mmse(2 * gamma, 0.5))[-1]
    assert 2 * joint == pytest.approx(math.log(2), rel=1e-3)
    data = Pictures()
    data.held = {case: {"image": 2.0 * one["mask"].float() - 1, "mask": one["mask"]} for case, one in data.held.items()}
    method = Diffusion(Coin(), S, {"x0": Clean()}, DDIM(5), OneHot(2), "x0").eval()
    measured = Measured(Segmentation(), data, list(data.held))
    rows = losses(method, measured, 40, 4)
    table = timesteps.table(rows, measured, method)
    found = timesteps.summary(rows, table, timesteps.theory(method, measured), measured, method)
    for name in ("blank", "best"):
        assert found["mutual_information_nats_per_pixel"][name]["mean"] == pytest.approx(math.log(2), rel=0.05)
    assert "2 channel(s) of the codec OneHot" in found["losses_are"]
    assert "{-1, 1}" not in found["assumes"]


@pytest.mark.parametrize("predicts", ["eps", "v", "logits"])
def test_every_parametrisation_gives_the_same_losses(predicts, pictures, measured_rows):
    few = Measured(pictures.task, pictures.data, pictures.cases[:3])
    got = {(r["case"], r["t"]): r for r in losses(exact(predicts), few, 10, 2) if r["condition"] == BLANK}
    want = {(r["case"], r["t"]): r for r in losses(exact(), few, 10, 2) if r["condition"] == BLANK}
    assert got.keys() == want.keys()
    for key, row in got.items():
        assert row["loss_eps"] == pytest.approx(S.snr(key[1]) * row["loss_x0"], rel=1e-9)
        assert row["loss_x0"] == pytest.approx(want[key]["loss_x0"], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "logits"])
def test_without_clipping_the_units_differ_by_the_snr(predicts, pictures):
    """Of any network: the two readings of one prediction, computed apart."""

    class Wild(Network):
        def forward(self, x, t, cond, state=None):
            return Output(3 * x.sin() + cond["image"])

    method = Diffusion(Wild(), S, {"x0": Clean()}, DDIM(5), predicts=predicts)
    sample = pictures.sample(0)
    for t in (100, 400, 999):
        ex = method.corrupt(sample["mask"], torch.tensor([t]), torch.randn(1, 1, 16, 16))
        pred = method.denoise(ex.x_t, ex.t, {"image": sample["image"]})
        ratio = ((pred.eps - ex.eps).double() ** 2).mean() / ((pred.x0 - ex.x0).double() ** 2).mean()
        assert float(ratio) == pytest.approx(S.snr(t), rel=1e-3)


def test_noise_is_common_to_conditions_timesteps_and_batches(pictures):
    few = Measured(pictures.task, pictures.data, pictures.cases[:2])
    one, other = (losses(exact(), few, 6, 3, batch=batch) for batch in (1, 10))
    assert [row["loss_x0"] for row in one] == pytest.approx([row["loss_x0"] for row in other], rel=1e-4, abs=1e-9)
    seen = []

    class Spy(Network):
        def forward(self, x, t, cond, state=None):
            alpha, sigma = S.at(int(t[0]))
            seen.append((x - alpha * (2 * few.sample(0)["mask"] - 1)) / sigma)
            return Output(x)

    method = Diffusion(Spy(), S, {"x0": Clean()}, DDIM(5), predicts="x0")
    method.register_parameter("one", torch.nn.Parameter(torch.zeros(1)))
    losses(method, Measured(pictures.task, pictures.data, pictures.cases[:1]), 4, 1)
    assert len(seen) == 2 * len(grid(S, 4))  # no partner for a single case
    assert all(torch.allclose(eps, seen[0], atol=1e-3) for eps in seen)


@pytest.mark.parametrize(
    ("codec", "amplitude", "shares"), [(Signed(), 1, 1), (Signed(0.25), 0.25, 1), (Unit(), 0.5, 1), (Logits(), 1, 1), (OneHot(3), 1, 3)]
)
def test_the_theory_speaks_the_codecs_units(codec, amplitude, shares, pictures):
    data = Pictures(4, labels=3 if shares == 3 else 2)
    measured = Measured(Segmentation(), data, list(data.held))
    p, half = timesteps.channel_shares(measured, codec)
    assert half == amplitude
    assert len(p) == shares
    assert sum(p) == pytest.approx(1 if shares == 3 else 0.5, abs=0.05)
    theory = timesteps.theory(SimpleNamespace(schedule=S, codec=codec), measured)
    by_hand = np.mean([pixel_mmse(S.snr(300), q, amplitude) for q in p])
    assert theory["loss_x0"][300] == pytest.approx(by_hand)
    assert theory["loss_eps"][300] == pytest.approx(S.snr(300) * by_hand)


@pytest.mark.parametrize(("codec", "radius", "half"), [(Signed(), 3, 482), (Unit(), 3, 346), (Signed(), 6, 614), (Unit(), 6, 496)])
def test_one_disc_is_lost_where_the_table_says(codec, radius, half):
    """The timestep of half the prior's error of a disc in 32 x 32, from the reference's table of translated discs; empty masks do not count."""
    y, x = torch.meshgrid(torch.arange(32) - 9, torch.arange(32) - 12, indexing="ij")
    mask = ((x**2 + y**2) <= radius**2).long()[None, None]
    masks = [mask, torch.zeros_like(mask)]
    measured = SimpleNamespace(cases=masks, sample=lambda index: {"mask": masks[index]})
    (curve,) = timesteps.one_disc(SimpleNamespace(schedule=S, codec=codec), measured).values()
    share, amplitude = float(mask.float().mean()), 1 if isinstance(codec, Signed) else 0.5
    prior = 4 * share * (1 - share) * amplitude**2
    assert float(np.interp(prior / 2, curve["loss_x0"], curve["t"])) == pytest.approx(half, abs=25)


def test_classes_and_volumes_have_no_disc():
    volume = SimpleNamespace(cases=[0], sample=lambda _: {"mask": torch.ones(1, 1, 4, 4, 4).long()})
    flat = SimpleNamespace(cases=[0], sample=lambda _: {"mask": torch.ones(1, 1, 4, 4).long()})
    assert timesteps.one_disc(SimpleNamespace(schedule=S, codec=Signed()), volume) == {}
    assert timesteps.one_disc(SimpleNamespace(schedule=S, codec=OneHot(3)), flat) == {}


def test_partners_are_of_the_same_size_and_of_other_patients():
    sizes, groups = [1, 1, 1, 1, 2, 2, 3, 1], ["a", "a", "b", "c", "a", "b", "a", "b"]
    found = partners(sizes, groups)
    assert found[6] is None
    for i, j in enumerate(found):
        if j is not None:
            assert sizes[i] == sizes[j]
            assert groups[i] != groups[j]
    given = [j for j in found if j is not None]
    assert len(set(given)) == len(given) == 7
    assert partners([1, 1], ["a", "a"]) == [1, 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = write_phantoms(root / "data", 20, (32, 32))
    return somite.load(tiny(data, root / "run", "--training.steps=2", "--training.validate=2"))


def test_the_command_writes_rows_tables_summary_and_figures(run, tmp_path):
    done = analyse_timesteps(run, "train", tmp_path, count=6, draws=2, limit=5)
    for path in done.values():
        assert path.stat().st_size > 100
    rows, table = read_rows(done["rows"]), read_rows(done["table"])
    ts = grid(run.method.schedule, 6)
    assert len(rows) == 5 * 3 * len(ts)
    for row in rows:
        t = int(row["t"])
        assert float(row["loss_eps"]) == pytest.approx(run.method.schedule.snr(t) * float(row["loss_x0"]), rel=1e-4)
    for line in table:
        some = {c: [float(r["loss_x0"]) for r in rows if r["t"] == line["t"] and r["condition"] == c] for c in (IMAGE, BLANK, SHUFFLED)}
        assert float(line["loss_x0_image"]) == pytest.approx(np.mean(some[IMAGE]), rel=1e-4)
        assert float(line["loss_x0_image_low"]) <= float(line["loss_x0_image"]) <= float(line["loss_x0_image_high"])
    found = json.loads(done["summary"].read_text())
    assert found["cases"] == 5
    assert found["without_partner"] == 0
    assert "mean of each image channel" in found["blank_is"]
    again = analyse_timesteps(run, "train", tmp_path / "again", count=6, draws=2, limit=5)
    for key in ("rows", "table", "benefit", "svg", "png"):
        assert again[key].read_bytes() == done[key].read_bytes()
    assert benefit_knots(done["benefit"])[0] == ts


def test_volumes_and_classes(tmp_path):
    data = write_phantoms(tmp_path / "data", 8, (16, 16, 8), channels=1, classes=2)
    overrides = [
        "--data.labels=[0,1,2]", "--data.preprocess.channels=1", "--data.preprocess.size=[16,16]", "--data.crop=16", "--method.network.image_channels=1",
        "--method.network.mask_channels=3", "--method.codec=somite.diffusion.codec.OneHot", "--method.codec.classes=3",
        "--training.steps=1", "--training.validate=1",
    ]  # fmt: skip
    opened = somite.load(tiny(data, tmp_path / "run", *overrides))
    done = analyse_timesteps(opened, "train", tmp_path / "out", count=4, draws=1, limit=3)
    assert {row["condition"] for row in read_rows(done["rows"])} == {IMAGE, SHUFFLED, BLANK}


def test_bad_input_is_one_sentence_with_the_mend(run, tmp_path):
    fed = SimpleNamespace(path=tmp_path, method=torch.nn.Identity(), recipe=run.recipe)
    with pytest.raises(InputError, match="feed-forward run, which has no timesteps; give a diffusion run"):
        analyse_timesteps(fed, "test", tmp_path)
    with pytest.raises(InputError, match="--draws 0"):
        analyse_timesteps(run, "test", tmp_path, draws=0)
    with pytest.raises(InputError, match="no cases in the split 'nope'"):
        analyse_timesteps(run, "nope", tmp_path)
    data = Pictures(3)
    for sample in data.held.values():
        sample["mask"].zero_()
    with pytest.raises(InputError, match="all 3 masks of memory are empty"):
        Measured(Segmentation(), data, list(data.held))


def table_of(path, pairs):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("t", "log_snr", "benefit"), *((t, 0, b) for t, b in pairs)])
    return str(path)


def test_timesteps_are_drawn_in_proportion_to_the_benefit(tmp_path):
    path = table_of(tmp_path / "b.csv", [(10, 4.0), (0, 0.0), (15, -1.0), (19, 1.0)])  # any order
    chosen = ByBenefit(path, floor=0.25)
    height = np.maximum(np.interp(np.arange(20), [0, 10, 15, 19], [0, 4, 0, 1]), 0)
    want = 0.75 * height / height.sum() + 0.25 / 20
    assert chosen.density(20).numpy() == pytest.approx(want)
    t = chosen.draw(40_000, 20, CPU)
    assert t.dtype == torch.int64
    assert chisquare(torch.bincount(t, minlength=20).numpy(), 40_000 * want).pvalue > 1e-4
    assert (ByBenefit(path, floor=0.0).draw(5000, 20, CPU) > 0).all()
    assert chisquare(torch.bincount(ByBenefit(path, floor=1.0).draw(20_000, 20, CPU), minlength=20).numpy()).pvalue > 1e-4
    with seeded(0, ["a", "b", "c"]):
        three = chosen.draw(3, 20, CPU).tolist()
    with seeded(0, ["b", "c"]):
        assert chosen.draw(2, 20, CPU).tolist() == three[1:]


def test_benefit_files_that_cannot_serve(tmp_path):
    with pytest.raises(InputError, match="floor 2"):
        ByBenefit("x.csv", floor=2)
    gone = ByBenefit(str(tmp_path / "gone.csv"))  # a run opens without the file
    with pytest.raises(InputError, match="is not there; `somite analyse timesteps RUN` writes it"):
        gone.draw(1, 10, CPU)
    with pytest.raises(InputError, match="no benefit of the image at any timestep"):
        ByBenefit(table_of(tmp_path / "flat.csv", [(0, 0.0), (9, -1.0)])).draw(1, 10, CPU)
    with pytest.raises(InputError, match="measured up to t = 999, but this method has 100"):
        ByBenefit(table_of(tmp_path / "long.csv", [(0, 0.0), (999, 1.0)])).draw(1, 100, CPU)
    for content in ("t\n1\n", "t,benefit\n1,much\n", "t,benefit\n", "t,benefit\n1,nan\n", "t,benefit\n1,1\n1,2\n"):
        (tmp_path / "bad.csv").write_text(content)
        with pytest.raises(InputError, match=r"bad.csv .*benefit"):
            ByBenefit(str(tmp_path / "bad.csv"))


def test_steps_stand_at_equal_quantiles_of_the_benefit():
    u = np.array([math.log(S.snr(t)) for t in range(1000)])
    flat = steps_by_benefit(([0, 999], [1, 1]), S, 5)  # constant over log-SNR: equal steps there
    assert flat[0] == 999
    assert u[flat] == pytest.approx(np.linspace(u[999], u[0], 6)[:5], abs=0.2)
    narrow = steps_by_benefit(([0, 399, 400, 500, 501, 999], [0, 0, 1, 1, 0, 0]), S, 4)
    assert narrow[0] == 999
    inner = u[narrow[1:]]
    assert inner == pytest.approx(u[500] + (u[400] - u[500]) * np.array([0.25, 0.5, 0.75]), abs=0.03)
    assert steps_by_benefit(([0, 999], [1, 1]), S, 1) == [999]
    spike = steps_by_benefit(([0, 299, 300, 301, 999], [0, 0, 1, 0, 0]), S, 8)
    assert spike[0] == 999
    assert sorted(set(spike), reverse=True) == spike
    assert len(spike) == 8
    assert steps_by_benefit(([0, 19], [1, 0]), linear(50), 50) == list(range(49, -1, -1))
    assert steps_by_benefit(([0, 99], [1, 1]), linear(100, zero_snr=True), 3)[0] == 99
    with pytest.raises(InputError, match="shows no benefit at any timestep"):
        steps_by_benefit(([0, 999], [0, -1]), S, 3)
    with pytest.raises(InputError, match="choose 1 to 1000"):
        steps_by_benefit(([0, 999], [1, 1]), S, 1001)


def test_the_blank_image_is_the_mean_of_each_channel():
    held = {
        Case(f"c{i}", (), None, f"g{i}"): {"image": torch.rand(1, 3, 4, 4) + i, "mask": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}
        for i in range(3)
    }
    measured = Measured(Segmentation(), SimpleNamespace(loaded=held.__getitem__, path="memory"), list(held))
    mean = torch.cat([sample["image"] for sample in held.values()]).mean((0, 2, 3))
    own = measured.sample(1)["image"]
    assert torch.allclose(measured.image(1, own, BLANK), mean.view(1, 3, 1, 1).expand(1, 3, 4, 4))
    assert torch.equal(measured.image(1, own, IMAGE), own)
    assert torch.equal(measured.image(1, own, SHUFFLED), measured.sample(measured.partner[1])["image"])
