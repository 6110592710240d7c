"""Truth: what the definitions say of states that can be counted, and the moments of the forward process."""

import pytest
import torch

from official_geca import small
from somite.diffusion.heredity import Chained, InSampling, Never
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import cosine, linear
from somite.diffusion.terms import Noise
from somite.errors import InputError
from somite.types import Network, Output


class Counting(Network):
    """Its state is how often it was asked; notes what it was asked with."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.asked = []

    def forward(self, x, t, cond, state=None):
        self.asked.append((t.clone(), x.detach().clone(), state, torch.is_grad_enabled()))
        return Output(self.scale * x, state=(state or 0) + 1)


def method(heredity=None, schedule=None, **options):
    return Diffusion(Counting(), schedule or linear(), {"noise": Noise()}, DDIM(4, **options), heredity=heredity, predicts="v")


TARGET = torch.zeros(64, 1, 4, 4)


@pytest.mark.parametrize(
    ("heredity", "states"), [(None, [None] * 4), (InSampling(), [None, 1, 2, 3]), (Never(), [None] * 4), (Chained(), [None, 1, 2, 3])]
)
def test_what_is_inherited_in_sampling(heredity, states):
    tested = method(heredity)
    list(tested.trajectory({}, tuple(TARGET.shape)))
    assert [state for _, _, state, _ in tested.network.asked] == states


@pytest.mark.parametrize("heredity", [None, InSampling(), Never(), Chained(share=0.0)])
def test_training_begins_anew_and_asks_once(heredity):
    tested = method(heredity)
    tested.loss(TARGET, {})
    ((_, _, state, gradient),) = tested.network.asked
    assert state is None
    assert gradient


def test_a_component_that_does_nothing_changes_no_draw():
    losses = []
    for heredity in (None, InSampling(), Never()):
        torch.manual_seed(5)
        losses.append(method(heredity).loss(TARGET, {})["loss"].item())
    assert len(set(losses)) == 1


@pytest.mark.parametrize("schedule", [linear(), cosine(50), linear(zero_snr=True)])
def test_a_chain_comes_down_from_larger_timesteps_without_gradient(schedule):
    tested = method(Chained(share=1.0, longest=4), schedule)
    lengths = set()
    for _ in range(40):
        tested.network.asked.clear()
        loss = tested.loss(TARGET, {})["loss"]
        assert loss.isfinite()
        chain = tested.network.asked
        lengths.add(len(chain) - 1)
        assert [state for _, _, state, _ in chain] == [None, *range(1, len(chain))]
        assert [gradient for *_, gradient in chain] == [False] * (len(chain) - 1) + [True]
        ts = torch.stack([t for t, *_ in chain])
        assert bool((ts[:-2] >= ts[1:-1]).all())
        assert bool(((ts[-2] > ts[-1]) | (ts[-1] == len(schedule) - 1)).all())
        assert all(x.isfinite().all() for _, x, _, _ in chain)
    assert lengths == {1, 2, 3, 4}


def test_a_share_of_the_batches_inherits():
    tested = method(Chained(share=0.3))
    inherited = []
    for _ in range(200):
        tested.network.asked.clear()
        tested.loss(TARGET[:2], {})
        inherited.append(len(tested.network.asked) > 1)
    assert sum(inherited) / 200 == pytest.approx(0.3, abs=0.1)  # three standard deviations


def test_a_chain_walks_the_forward_process():
    """x at each of its timesteps has the marginal N(alpha x0, sigma^2), and with x_t the correlation of the forward process."""
    schedule, heredity = linear(), Chained()
    tested = method(heredity)
    b = 20_000
    t = torch.full((b,), 300)
    ex = tested.corrupt(torch.ones(b, 1, 1, 1), t, torch.randn(b, 1, 1, 1))
    for later, x in heredity.climbed(ex, schedule, 2):
        alpha, sigma = schedule(later)
        residual = (x.flatten() - alpha) / sigma
        assert float(residual.mean()) == pytest.approx(0, abs=0.03)
        assert float(residual.std()) == pytest.approx(1, abs=0.03)
        a, s = schedule.at(300)
        before = (ex.x_t.flatten() - a) / s
        want = (alpha / a * s / sigma).double()  # correlation of the noise at t and at the later timestep
        assert float((residual * before - want).mean()) == pytest.approx(0, abs=0.03)


def test_training_with_a_chain_gives_every_weight_of_the_cells_a_gradient():
    network = small()
    tested = Diffusion(network, linear(), {"noise": Noise()}, DDIM(4), heredity=Chained(share=1.0))
    tested.codec.channels = 4
    tested.train().loss(torch.rand(2, 4, 8, 8), {"labels": torch.eye(5)[:2]})["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_hidden_numbers_make_the_round_trip_of_a_sampling():
    """With heredity the cells' hidden numbers go on; without it, and so with the first step, the answer is that of a fresh start."""
    torch.manual_seed(0)
    finals = []
    for heredity in (InSampling(), Never()):
        tested = Diffusion(small("toy", firing=None), linear(), {}, DDIM(3, clip=None), heredity=heredity)
        tested.codec.channels = 4
        torch.manual_seed(1)
        finals.append([step.pred.output.value for step in tested.eval().trajectory({"labels": torch.eye(5)[:2]}, (2, 4, 8, 8))])
    assert torch.equal(finals[0][0], finals[1][0])
    assert not torch.allclose(finals[0][1], finals[1][1], atol=1e-3)


@pytest.mark.parametrize(("options", "match"), [({"share": 1.1}, "share"), ({"longest": 0}, "longest")])
def test_options_out_of_range_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        Chained(**options)
