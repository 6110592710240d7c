"""Truth: the definition (Ho & Salimans 2022, eq. 6) on networks whose two answers are known; the official GeCA's runs stand in
tests/networks/test_geca.py.
"""

import pytest
import torch

from somite import rng
from somite.contracts import NetworkContract
from somite.diffusion.guidance import Guided
from somite.diffusion.heredity import InSampling
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM
from somite.diffusion.schedule import linear
from somite.errors import InputError
from somite.networks.geca import GeCA
from somite.rng import seeded
from somite.sampling import overrides
from somite.types import Network, Output


class Told(Network):
    """Answers with its label's sum plus noise, and notes what it was asked with."""

    def __init__(self, noise=0.0, stateful=True):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.noise, self.stateful, self.asked = noise, stateful, []

    def forward(self, x, t, cond, state=None):
        self.asked.append((cond["labels"].clone(), state))
        level = cond["labels"].sum(1).view(-1, 1, 1, 1)
        value = self.scale * level.expand_as(x) + self.noise * rng.normal(tuple(x.shape), x.device)
        return Output(value, var=value / 2, state=(float(level[0, 0, 0, 0]), state) if self.stateful else None)


LABELS = torch.tensor([[0.0, 1, 1], [1, 0, 0]])


def answer(network, labels=LABELS, state=None):
    x = torch.zeros(len(labels), 4, 5, 6)
    with torch.no_grad(), seeded(0, "ab"):
        return network(x, torch.zeros(len(labels), dtype=torch.long), network.encode({"labels": labels}), state)


class TestGuided(NetworkContract):
    mask_channels = 4
    spaces = {2: [(8, 8), (6, 9)]}  # noqa: RUF012

    def make(self, dims):
        return Guided(GeCA(width=16, heads=2, mlp=24, hidden=5, updates=2, classes=3), guidance=2.0)

    def given(self, b, space):
        x, t, _ = super().given(b, space)
        return x, t, {"labels": torch.randint(2, (b, 3)).float()}


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 4.0])
def test_the_answer_is_extrapolated_from_null_to_given(guidance):
    out = answer(Guided(Told(), guidance).eval())
    torch.testing.assert_close(out.value, guidance * LABELS.sum(1).view(2, 1, 1, 1).expand(2, 4, 5, 6))
    torch.testing.assert_close(out.var, LABELS.sum(1).view(2, 1, 1, 1).expand(2, 4, 5, 6) / 2)


def test_channels_beyond_those_guided_are_the_given_conditions():
    out = answer(Guided(Told(), 3.0, channels=3).eval())
    torch.testing.assert_close(out.value[:, :, 0, 0], LABELS.sum(1)[:, None] * torch.tensor([3.0, 3, 3, 1]))


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_shared_draws_cancel(shared, rows):
    """Without labels both answers ask the same, so only differing draws can part them; the streams then go on."""
    network = Guided(Told(noise=1.0), 11.0, shared_draws=shared).eval()
    alone = answer(network.network, torch.zeros(2, 3)).value
    guided = answer(network, torch.zeros(2, 3)).value if rows else globally(network)
    if not rows:
        torch.manual_seed(3)
        alone = torch.randn(2, 4, 5, 6)
    assert torch.allclose(guided, alone, atol=1e-4) == shared


def globally(network):
    torch.manual_seed(3)
    x = torch.zeros(2, 4, 5, 6)
    with torch.no_grad():
        return network(x, torch.zeros(2, dtype=torch.long), network.encode({"labels": torch.zeros(2, 3)})).value


def test_each_answer_keeps_its_own_state_along_a_trajectory():
    told = Told()
    method = Diffusion(Guided(told, 2.0), linear(), {}, DDIM(3, clip=None), heredity=InSampling()).eval()
    list(method.trajectory({"labels": LABELS}, (2, 1, 4, 4)))
    given, null = told.asked[::2], told.asked[1::2]
    assert [state for _, state in given] == [None, (2.0, None), (2.0, (2.0, None))]
    assert [state for _, state in null] == [None, (0.0, None), (0.0, (0.0, None))]
    assert all(torch.equal(labels, LABELS) for labels, _ in given) and not any(labels.any() for labels, _ in null)


def test_guidance_one_asks_once():
    told = Told()
    out = answer(Guided(told, 1.0).eval())
    assert len(told.asked) == 1
    assert out.state == ((2.0, None), None)
    assert answer(Guided(Told(stateful=False), 1.0).eval()).state is None


@pytest.mark.parametrize(("forget", "share"), [("example", 0.3), ("entry", 0.09)])
def test_training_forgets_labels(forget, share):
    """An example of two labels loses both with probability drop, or drop^2 where each is forgotten by itself."""
    network = Guided(Told(), drop=0.3, forget=forget).train()
    kept = network.encode({"labels": torch.ones(20_000, 2)})["labels"]
    assert float((kept.sum(1) == 0).float().mean()) == pytest.approx(share, abs=0.02)
    assert float((kept.sum(1) == 1).float().mean()) == pytest.approx(0.0 if forget == "example" else 0.42, abs=0.02)
    x = torch.zeros(2, 1, 4, 4)
    assert network(x, torch.zeros(2, dtype=torch.long), {"labels": LABELS}).value[0, 0, 0, 0] == 2  # unguided


def test_a_network_that_never_forgot_is_not_guided():
    assert Guided(Told(), guidance=1, drop=0)
    with pytest.raises(InputError, match=r"guidance 1\.5 needs a network that was trained without its labels"):
        Guided(Told(), guidance=1.5, drop=0)


@pytest.mark.parametrize("drop", [-0.1, 1.0])
def test_a_share_of_labels_is_a_share(drop):
    with pytest.raises(InputError, match="lies in"):
        Guided(Told(), drop=drop)


def test_what_is_forgotten_must_be_there():
    with pytest.raises(InputError, match="guidance forgets labels, but the condition has image"):
        Guided(Told()).encode({"image": torch.zeros(2, 3, 4, 4)})


def test_the_scale_is_an_option_of_sampling():
    guided = {"class_path": "somite.diffusion.guidance.Guided", "init_args": {"guidance": 1.5}}
    tree = {"method": {"class_path": "somite.diffusion.methods.Diffusion", "init_args": {"network": guided}}}
    assert overrides(tree, guidance=3.0) == {"--method.network.guidance": "3.0"}
    bare = {"class_path": "somite.networks.geca.GeCA", "init_args": {}}
    with pytest.raises(InputError, match="not guided"):
        overrides({"method": {"class_path": "somite.diffusion.methods.Diffusion", "init_args": {"network": bare}}}, guidance=3.0)
