"""What every network must satisfy, to be inherited: `class TestMine(NetworkContract)` with a `make`."""

import pytest
import torch
from safetensors.torch import load, save

from somite.rng import seeded
from somite.types import Network, Output


def alive(network):
    """Weights that start at zero hide everything behind them: give them values."""
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1 and not p.any():
                p.normal_(std=0.1)
    return network


class NetworkContract:
    """`make(dims)` returns a tiny network for images of `image_channels` and masks of `mask_channels`.

    spaces: sizes to run, by dimension, the first of them even and square; odd ones where the network takes them.
    """

    image_channels = 3
    mask_channels = 1
    spaces = {2: [(16, 16), (13, 18), (9, 11)], 3: [(8, 8, 8), (9, 7, 10)]}  # noqa: RUF012
    tolerance = 1e-5

    def make(self, dims) -> Network:
        raise NotImplementedError

    def given(self, b, space):
        return torch.randn(b, self.mask_channels, *space), torch.randint(1000, (b,)), {"image": torch.rand(b, self.image_channels, *space)}

    def network(self, dims):
        torch.manual_seed(1)
        return alive(self.make(dims))

    def cases(self):
        return [(dims, space) for dims, spaces in self.spaces.items() for space in spaces]

    def run(self, network, x, t, cond, names=None) -> Output:
        with torch.no_grad(), seeded(0, names or list(range(len(x)))):
            return network(x, t, network.encode(cond))

    def test_any_batch_and_size(self):
        for dims, space in self.cases():
            network = self.network(dims).eval()
            for b in (1, 2, 5):
                out = self.run(network, *self.given(b, space))
                assert out.value.shape == (b, self.mask_channels, *space)
                assert out.value.isfinite().all()
                assert all(len(aux) == b and aux.isfinite().all() for aux in out.aux.values())

    def test_gradients_reach_every_parameter(self):
        for dims in self.spaces:
            network = self.network(dims).train()
            x, t, cond = self.given(4, self.spaces[dims][0])
            out = network(x, t, network.encode(cond))
            sum((part**2).sum() for part in (out.value, *out.aux.values())).backward()
            for name, p in network.named_parameters():
                assert p.grad is not None, name
                assert p.grad.isfinite().all(), name
                assert p.grad.any(), name

    def test_evaluation_is_a_function_of_the_seed(self):
        for dims in self.spaces:
            network, given = self.network(dims).eval(), self.given(2, self.spaces[dims][0])
            first = self.run(network, *given).value
            torch.rand(7)
            assert torch.equal(self.run(network, *given).value, first)

    def test_a_batch_is_its_rows(self):
        for dims, space in self.cases():
            network = self.network(dims).eval()
            x, t, cond = self.given(3, space)
            whole = self.run(network, x, t, cond, ["a", "b", "c"])
            for rows, names in (([1], ["b"]), ([2, 0], ["c", "a"])):
                part = self.run(network, x[rows], t[rows], {k: v[rows] for k, v in cond.items()}, names)
                torch.testing.assert_close(part.value, whole.value[rows], rtol=self.tolerance, atol=self.tolerance)
                for key, aux in part.aux.items():
                    torch.testing.assert_close(aux, whole.aux[key][rows], rtol=self.tolerance, atol=self.tolerance)

    @pytest.mark.parametrize("training", [False, True])
    def test_nothing_given_is_changed(self, training):
        for dims in self.spaces:
            network = self.network(dims).train(training)
            x, t, cond = self.given(2, self.spaces[dims][0])
            before = x.clone(), t.clone(), {k: v.clone() for k, v in cond.items()}
            self.run(network, x, t, cond)
            assert torch.equal(x, before[0])
            assert torch.equal(t, before[1])
            assert set(cond) == set(before[2])
            assert all(torch.equal(cond[k], v) for k, v in before[2].items())

    def test_weights_survive_safetensors(self):
        for dims in self.spaces:
            network, given = self.network(dims).eval(), self.given(2, self.spaces[dims][0])
            other = self.make(dims).eval()
            other.load_state_dict(load(save({k: v.contiguous() for k, v in network.state_dict().items()})))
            assert torch.equal(self.run(other, *given).value, self.run(network, *given).value)

    def test_it_trains_in_bfloat16(self):
        for dims in self.spaces:
            network = self.network(dims).train()
            x, t, cond = self.given(2, self.spaces[dims][0])
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
            before = [p.detach().clone() for p in network.parameters()]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = network(x, t, network.encode(cond))
                loss = sum((part.float() ** 2).mean() for part in (out.value, *out.aux.values()))
            loss.backward()
            assert loss.isfinite()
            assert all(p.grad.isfinite().all() for p in network.parameters())
            optimizer.step()
            assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
