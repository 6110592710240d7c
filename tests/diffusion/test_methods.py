"""The waist: what a network predicts, read four ways; and the same network with nothing to denoise."""

import pytest
import torch
from torch import nn

from somite.diffusion.codec import OneHot, Signed, Unit
from somite.diffusion.diffusers_sampler import Diffusers
from somite.diffusion.methods import Diffusion, FeedForward
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import linear, scaled_linear
from somite.diffusion.terms import Clean, CrossEntropy, DiceCE, Noise
from somite.diffusion.timesteps import TimestepDistribution
from somite.errors import InputError
from somite.rng import seeded
from somite.types import Network, Output, right

PREDICTS = ("eps", "x0", "v", "logits")


class Knowing(Network):
    """Is told the target in model space and answers without a mistake, by the textbook definitions; `off` is added."""

    def __init__(self, schedule, predicts, x0=None, off=0.0):
        super().__init__()
        self.schedule, self.predicts, self.x0, self.off = schedule, predicts, x0, off
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond, state=None):
        a, s = (right(c, x) for c in self.schedule(t))
        eps = (x - a * self.x0) / s
        value = {"eps": eps, "x0": self.x0, "v": a * eps - s * self.x0, "logits": 60 * self.x0}[self.predicts]
        return Output(value + self.off)


class Small(Network):
    """Two convolutions, one of x and one of the image; counts its encodings and keeps what it was given."""

    def __init__(self, k=1, c=3):
        super().__init__()
        self.of_x, self.of_image = nn.Conv2d(k, k, 3, padding=1), nn.Conv2d(c, k, 3, padding=1)
        self.encoded, self.seen = 0, []

    def encode(self, cond):
        self.encoded += 1
        return {"features": self.of_image(cond["image"])}

    def forward(self, x, t, cond, state=None):
        self.seen.append((x.detach().clone(), t.clone()))
        return Output(self.of_x(x) + cond["features"])


class At(TimestepDistribution):
    def __init__(self, t):
        self.t = t

    def draw(self, count, total, device):
        return torch.full((count,), self.t)


def mask(b=4, side=32):
    return (torch.rand(b, 1, side, side) > 0.5).long()


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("t", [0, 10, 500, 999])
def test_a_network_without_mistakes_has_no_loss(predicts, t):
    schedule, target = linear(), mask()
    network = Knowing(schedule, predicts, 2.0 * target - 1)
    terms = {"noise": Noise(), "clean": Clean()} | ({"both": DiceCE()} if predicts == "logits" else {})
    found = Diffusion(network, schedule, terms, DDIM(1), predicts=predicts, timesteps=At(t)).loss(target, {})
    assert set(found) == {"loss", *terms}
    assert all(float(value) < 1e-6 for value in found.values()), found


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("t", [0, 50, 250, 500, 750, 999])
def test_noise_loss_is_snr_times_clean_loss(predicts, t):
    """Specs/04, 7.2: for any predictor, as long as nothing is clipped."""
    schedule, target = linear(), mask()
    network = Knowing(schedule, predicts, 0.3 * torch.randn(4, 1, 32, 32), 0.1)
    method = Diffusion(network, schedule, {"noise": Noise(), "clean": Clean()}, DDIM(1), predicts=predicts, timesteps=At(t))
    found = method.loss(target, {})
    assert float(found["noise"]) == pytest.approx(schedule.snr(t) * float(found["clean"]), rel=1e-5 if t < 999 else 1e-4)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v"])
def test_a_mistake_is_measured_in_the_units_of_what_is_predicted(predicts):
    """With an offset of 0.1 the loss is 0.01 in its own units, and follows from the definitions in the others."""
    schedule, target, t = linear(), mask(), 300
    a, s = schedule.at(t)
    terms = {"noise": Noise(), "clean": Clean()}
    network = Knowing(schedule, predicts, 2.0 * target - 1, 0.1)
    found = Diffusion(network, schedule, terms, DDIM(1), predicts=predicts, timesteps=At(t)).loss(target, {})
    noise = {"eps": 0.01, "x0": 0.01 * (a / s) ** 2, "v": 0.01 * a * a}[predicts]
    clean = {"eps": 0.01 * (s / a) ** 2, "x0": 0.01, "v": 0.01 * s * s}[predicts]
    assert (float(found["noise"]), float(found["clean"])) == pytest.approx((noise, clean), rel=1e-3)


def test_the_forward_process_has_the_right_moments():
    """x_t = alpha x0 + sigma eps: of a mask of ones the mean is alpha and the deviation sigma."""
    method = Diffusion(Small(), linear(), {}, DDIM(1))
    for t in (0, 250, 999):
        a, s = linear().at(t)
        ex = method.corrupt(torch.ones(1, 1, 200, 200).long(), torch.tensor([t]), torch.randn(1, 1, 200, 200))
        assert float(ex.x_t.mean()) == pytest.approx(a, abs=4 * s / 200)
        assert float(ex.x_t.std()) == pytest.approx(s, rel=0.02)


def test_losses_are_weighted_and_named():
    method = Diffusion(Small(), linear(), {"noise": Noise(2.0), "clean": Clean(0.5)}, DDIM(1), predicts="x0")
    found = method.loss(mask(), {"image": torch.rand(4, 3, 32, 32)})
    torch.testing.assert_close(found["loss"], 2 * found["noise"] + 0.5 * found["clean"])


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("sampler", [DDIM(5), DDIM(1), Ancestral(5), Diffusers(steps=5)])
def test_a_network_without_mistakes_returns_the_mask(predicts, sampler):
    schedule, target = linear(), mask()
    method = Diffusion(Knowing(schedule, predicts, 2.0 * target - 1), schedule, {}, sampler, predicts=predicts)
    torch.testing.assert_close(method.sample({}, tuple(target.shape)), target.float(), rtol=0, atol=0.02)


@pytest.mark.parametrize("sampler", [DDIM(1), Ancestral(1), Diffusers(steps=1)])
def test_one_step_goes_from_the_last_timestep_to_the_clean_estimate(sampler):
    method = Diffusion(Small(), linear(200), {}, sampler, predicts="x0")
    assert method.steps == 1
    first, last = method.trajectory({"image": torch.rand(2, 3, 8, 8)}, (2, 1, 8, 8))
    assert (first.t, last.t) == (199, -1)
    assert [t.tolist() for _, t in method.network.seen] == [[199, 199]]
    torch.testing.assert_close(last.x, first.pred.x0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [0, -1, 201])
def test_impossible_steps_are_refused_before_anything_is_sampled(steps):
    with pytest.raises(InputError, match="1 to 200"):
        Diffusion(Small(), linear(200), {}, DDIM(steps))


@pytest.mark.parametrize("predicts", ["v", "x0", "logits"])
@pytest.mark.parametrize("sampler", [DDIM(3), Ancestral(3), Diffusers(steps=3)])
def test_schedules_without_terminal_signal_can_be_sampled_and_trained(predicts, sampler):
    method = Diffusion(Small(), scaled_linear(zero_snr=True), {"clean": Clean()}, sampler, predicts=predicts, timesteps=At(999))
    cond = {"image": torch.rand(2, 3, 16, 16)}
    assert method.sample(cond, (2, 1, 16, 16)).isfinite().all()
    assert method.loss(mask(2, 16), cond)["loss"].isfinite()


def test_the_condition_is_encoded_once_a_case():
    method = Diffusion(Small(), linear(), {}, DDIM(6))
    sample = method.sample({"image": torch.rand(2, 3, 8, 8)}, (2, 1, 8, 8))
    assert (method.network.encoded, len(method.network.seen)) == (1, 6)
    assert not sample.requires_grad


@pytest.mark.parametrize("codec", [Signed(), Unit(), OneHot(4)])
@pytest.mark.parametrize("make", [lambda n, c: Diffusion(n, linear(), {}, DDIM(3), c, "logits"), lambda n, c: FeedForward(n, {}, c)])
def test_samples_are_probabilities_of_the_codecs_shape(codec, make):
    k = codec.channels
    p = make(Small(k), codec).sample({"image": torch.rand(2, 3, 8, 8)}, (2, 1, 8, 8))
    assert p.shape == (2, k, 8, 8)
    assert 0 <= float(p.min()) <= float(p.max()) <= 1


@pytest.mark.parametrize("sampler", [DDIM(4), Ancestral(4), Diffusers("LCMScheduler", 4)])
def test_members_are_the_same_whatever_batch_they_are_drawn_in(sampler):
    method = Diffusion(Small(), linear(), {}, sampler, predicts="x0")
    image, names = torch.rand(3, 3, 8, 8), ["a", "b", "c"]

    def drawn(rows):
        with seeded(0, [names[i] for i in rows]):
            return method.sample({"image": image[rows]}, (len(rows), 1, 8, 8))

    torch.testing.assert_close(drawn([2, 0]), drawn([0, 1, 2])[[2, 0]], rtol=0, atol=1e-5)


def test_feed_forward_has_nothing_to_denoise():
    network = Small()
    method = FeedForward(network, {"ce": CrossEntropy()})
    cond = {"image": torch.rand(2, 3, 8, 8)}
    loss, probability = method.loss(mask(2, 8), cond), method.sample(cond, (2, 1, 8, 8))
    assert all(float(x.abs().max()) == 0 and t.tolist() == [0, 0] for x, t in network.seen)
    logits = network.of_image(cond["image"]) + network.of_x.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(probability, logits.sigmoid())
    loss["loss"].backward()
    assert float(network.of_x.weight.grad.abs().max()) == 0  # what multiplies x learns nothing
    rest = [network.of_x.bias, network.of_image.weight, network.of_image.bias]
    assert all(float(p.grad.abs().max()) > 0 for p in rest)
    assert method.steps == 1


def test_one_network_serves_both_methods():
    network = Small()
    diffusion, feed_forward = Diffusion(network, linear(), {}, DDIM(1), predicts="logits"), FeedForward(network, {})
    assert diffusion.network is feed_forward.network
    assert set(diffusion.state_dict()) == set(feed_forward.state_dict())


def test_diffusion_gradients_reach_all_of_the_network():
    network = Small()
    method = Diffusion(network, linear(), {"noise": Noise()}, DDIM(1))
    method.loss(mask(2, 8), {"image": torch.rand(2, 3, 8, 8)})["loss"].backward()
    assert all(float(p.grad.abs().max()) > 0 for p in network.parameters())


@pytest.mark.parametrize(
    "make",
    [lambda: Diffusion(Small(), linear(), {"mask": DiceCE()}, DDIM(1)), lambda: FeedForward(Small(), {"mask": DiceCE()}, predicts="x0")],
)
def test_terms_on_logits_are_refused_at_once_where_there_are_none(make):
    with pytest.raises(InputError, match="needs logits"):
        make()
