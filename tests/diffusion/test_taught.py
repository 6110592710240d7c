"""Truth: torch's divergences and cross-entropy, gradients, and a teacher whose answers are written in a line."""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

from known import Linear
from somite.contracts import TermContract
from somite.diffusion.classwise import OneClassAtATime
from somite.diffusion.codec import Logits, OneHot, Signed, Unit
from somite.diffusion.methods import Diffusion, FeedForward
from somite.diffusion.organs import Independent
from somite.diffusion.pictures import Grey, Layers, Palette
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.diffusion.taught import Taught, alike
from somite.diffusion.terms import Clean, CrossEntropy, DiceCE, Noise
from somite.errors import InputError
from somite.types import Noised, Output, Prediction


def said(k=1, b=3, size=(4, 5)):
    return torch.rand(b, 1, *size) if k == 1 else torch.randn(b, k, *size).softmax(1)


def example(soft, logits=None, x0=None, snr=None):
    nothing = torch.zeros_like(soft)
    x0 = nothing if x0 is None else x0
    pred = Prediction(x0, nothing, Output(x0), logits)
    return pred, Noised(nothing, nothing, nothing, nothing, torch.zeros(len(soft)).long(), snr=snr, soft=soft, soft_x0=2 * soft - 1)


class TestContract(TermContract):
    def make(self):
        return Taught()

    def example(self, perfect=False):
        pred, ex, value, var = super().example(perfect)
        ex.soft, ex.soft_x0 = pred.logits.detach().sigmoid() if perfect else said(size=(6, 5)), ex.x0
        return pred, ex, value, var

    def test_an_example_does_not_depend_on_its_neighbours(self):
        pred, ex, *_ = self.example()
        one = slice(1, 2)
        alone = example(ex.soft[one], pred.logits[one])
        torch.testing.assert_close(self.make()(*alone), self.make()(pred, ex)[one])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_of_one_map_it_is_the_divergence_of_bernoullis(temperature):
    soft, logits = said(), 2 * torch.randn(3, 1, 4, 5)
    teacher = Bernoulli(logits=torch.log(soft / (1 - soft)) / temperature)
    wanted = temperature**2 * kl_divergence(teacher, Bernoulli(logits=logits / temperature)).mean((1, 2, 3))
    torch.testing.assert_close(Taught(1.0, temperature)(*example(soft, logits)), wanted)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_of_classes_it_is_the_divergence_of_categoricals(temperature):
    soft, logits = said(4), 2 * torch.randn(3, 4, 4, 5)
    teacher = Categorical(logits=soft.log().movedim(1, -1) / temperature)
    wanted = temperature**2 * kl_divergence(teacher, Categorical(logits=logits.movedim(1, -1) / temperature)).mean((1, 2))
    torch.testing.assert_close(Taught(1.0, temperature)(*example(soft, logits)), wanted)


def test_its_gradient_is_that_of_torchs_cross_entropy_of_soft_targets():
    soft, logits = said(4), torch.randn(3, 4, 4, 5, requires_grad=True)
    (ours,) = torch.autograd.grad(Taught()(*example(soft, logits)).mean(), logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, soft), logits)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_zero_where_the_network_says_what_the_teacher_says(k, temperature):
    logits = 3 * torch.randn(2, k, 5, 5)
    soft = logits.sigmoid() if k == 1 else logits.softmax(1)
    assert Taught(1.0, temperature)(*example(soft, logits)).abs().max() < 1e-5


def test_a_teacher_that_is_certain_is_as_good_as_a_mask():
    mask = (torch.rand(3, 1, 6, 6) > 0.5).float()
    logits = torch.randn(3, 1, 6, 6, requires_grad=True)
    values = Taught(1.0, 2.0)(*example(mask, 2 * logits))
    torch.testing.assert_close(values, 4 * F.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean((1, 2, 3)))
    assert torch.autograd.grad(values.sum(), logits)[0].isfinite().all()


def test_without_logits_it_is_the_error_of_the_target_or_of_the_noise_whichever_is_less():
    x0, schedule, t = torch.randn(3, 1, 4, 4).tanh(), linear(), torch.tensor([0, 300, 900])
    soft, eps = said(size=(4, 4)), torch.randn(3, 1, 4, 4)
    alpha, sigma = (c.view(-1, 1, 1, 1) for c in schedule(t))
    guess = 0.5 * torch.randn_like(x0)
    wanted_x0 = ((guess - (2 * soft - 1)) ** 2).mean((1, 2, 3))
    x_t = alpha * x0 + sigma * eps
    wanted_eps = (((x_t - alpha * guess) / sigma - (x_t - alpha * (2 * soft - 1)) / sigma) ** 2).mean((1, 2, 3))
    snr = (alpha / sigma).flatten() ** 2
    assert snr[0] > 1 > snr[2]
    torch.testing.assert_close(Taught()(*example(soft, x0=guess, snr=snr)), torch.minimum(wanted_x0, wanted_eps), rtol=1e-4, atol=1e-6)


def test_bad_settings_are_told():
    with pytest.raises(InputError, match="must be above 0"):
        Taught(temperature=0)
    pred, ex = example(said())
    with pytest.raises(InputError, match=r"set --method\.predicts logits"):
        Taught(temperature=2.0)(pred, ex)
    ex.soft = None
    with pytest.raises(InputError, match="somite distil"):
        Taught()(pred, ex)
    with pytest.raises(InputError, match="3 maps, but this method's codec has 2"):
        alike(said(3), 2)


CODECS = [Signed(), Signed(0.5), Unit(), Logits(), Logits(0.8), Grey(), OneHot(3), Independent(3), Palette(5), Layers(3)]


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: type(c).__name__)
def test_a_certain_teacher_has_the_place_of_the_mask(codec):
    target = torch.randint(max(codec.maps, 2), (2, 1, 5, 4))
    torch.testing.assert_close(codec.place(codec.probabilities(target)), codec.encode(target))


@pytest.mark.parametrize("codec", [Signed(), Unit(), Grey(), OneHot(3)], ids=lambda c: type(c).__name__)
def test_the_place_of_probabilities_is_read_back_as_these(codec):
    soft = said(codec.maps, 2)
    torch.testing.assert_close(codec.decode(codec.place(soft), (2, 1, 4, 5)), soft)


def test_one_map_and_two_are_told_apart():
    soft = said()
    torch.testing.assert_close(alike(alike(soft, 2), 1), soft)
    torch.testing.assert_close(alike(soft, 2).sum(1), torch.ones(3, 4, 5))


def feed_forward(**terms):
    return FeedForward(Linear(), terms)


def diffusion(predicts="logits", **terms):
    return Diffusion(Linear(), linear(), terms, DDIM(1), predicts=predicts)


def batch(b=4, size=(6, 6), known=None):
    image = torch.rand(b, 3, *size)
    soft = Linear(known=True)(None, None, {"image": image}).value.sigmoid().detach()
    known = torch.ones(b, 1) if known is None else torch.tensor(known)[:, None]
    return (torch.rand(b, 1, *size) > 0.5).float(), {"image": image, "soft": soft, "known": known}


@pytest.mark.parametrize("make", [feed_forward, diffusion])
def test_what_a_network_learns_from_the_teacher_alone_is_the_teacher(make):
    method = make(taught=Taught(1.0))
    mask, cond = batch(size=(12, 12))
    optimizer = torch.optim.LBFGS(method.parameters(), max_iter=200, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = method.loss(mask, cond)["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(method.network.slope, Linear(known=True).slope, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "make", [feed_forward, diffusion, lambda **terms: diffusion("x0", **terms), lambda **terms: diffusion("v", **terms)]
)
def test_a_mask_that_nobody_knows_trains_nothing(make):
    kinds = {"mask": Clean(), "more": Noise()} if make not in (feed_forward, diffusion) else {"mask": DiceCE(), "more": CrossEntropy()}
    method = make(**kinds)
    mask, cond = batch(known=[0.0, 0.0, 0.0, 0.0])
    method.loss(mask, cond)["loss"].backward()
    assert not any(p.grad.any() for p in method.parameters())
    method = make(**kinds, taught=Taught())
    method.loss(mask, cond)["loss"].backward()
    assert any(p.grad.any() for p in method.parameters())


def test_an_example_counts_the_same_whoever_else_has_a_mask():
    method = feed_forward(mask=CrossEntropy())
    mask, cond = batch()
    alone = [method.loss(mask[i : i + 1], {name: part[i : i + 1] for name, part in cond.items()})["loss"] for i in range(4)]
    some = {**cond, "known": torch.tensor([[1.0], [0.0], [1.0], [0.0]])}
    torch.testing.assert_close(method.loss(mask, some)["loss"], (alone[0] + alone[2]) / 4)


def test_without_a_teacher_nothing_has_changed():
    mask, cond = batch()
    plain = {"image": cond["image"]}
    for make in (feed_forward, diffusion):
        method = make(mask=DiceCE())
        torch.manual_seed(3)
        with_masks = method.loss(mask, cond)["loss"]
        torch.manual_seed(3)
        assert torch.equal(with_masks, method.loss(mask, plain)["loss"])


@pytest.mark.parametrize("official", [False, True])
def test_one_class_at_a_time_is_taught_the_share_of_its_class(official):
    asked = {}

    class Watching(FeedForward):
        def loss(self, target, cond):
            asked.update(cond)
            return {"loss": torch.zeros(())}

    method = OneClassAtATime(Watching(Linear(), {"mask": CrossEntropy()}), 3, official)
    soft = said(3, 6)
    method.loss(torch.randint(3, (6, 1, 4, 5)), {"image": torch.rand(6, 3, 4, 5), "soft": soft, "known": torch.ones(6, 1)})
    for i, label in enumerate(asked["class"].tolist()):
        torch.testing.assert_close(asked["soft"][i, 0], 1 - soft[i, 0] if label == 0 else soft[i, label])
