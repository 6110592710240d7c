"""What a network must satisfy."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import pytest
import torch
from safetensors.torch import load, save

from ..rng import seeded
from ..types import Network, Output


def alive(network):
    """Weights that start at zero hide everything behind them: give them values."""
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1 and not p.any():
                p.normal_(std=0.1)
    return network


class NetworkContract:
    """`make(dims)` returns a tiny network for images of `image_channels` and masks of `mask_channels`.

    spaces: sizes to run, by dimension, the first of them even and square; odd ones where the network takes them. A network of one
    dimension leaves the other out. The first is trained on, in batches of 2 and 4: where it shrinks to one pixel in front of a
    normalisation over the batch, nothing before that learns, so take one that leaves the deepest level 2 x 2 or more.
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
                given = self.given(b, space)
                out = self.run(network, *given)
                told = f"of {b} images of {space}"
                assert out.value.shape == given[0].shape, f"{told}, x of {tuple(given[0].shape)} gave {tuple(out.value.shape)}"
                assert out.value.isfinite().all(), told
                assert all(len(aux) == b and aux.isfinite().all() for aux in out.aux.values())

    def test_gradients_reach_every_parameter(self):
        for dims in self.spaces:
            network = self.network(dims).train()
            x, t, cond = self.given(4, self.spaces[dims][0])
            out = network(x, t, network.encode(cond))
            torch.stack([(part**2).sum() for part in (out.value, *out.aux.values())]).sum().backward()
            for name, p in network.named_parameters():
                if not p.requires_grad:
                    continue
                told = f"{name}, at {self.spaces[dims][0]}"
                assert p.grad is not None, f"{told}: not used"
                assert p.grad.isfinite().all(), f"{told}: the gradient is not finite"
                assert p.grad.any(), f"{told}: the gradient is zero; see `spaces`"

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
            trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
            optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
            before = {name: p.detach().clone() for name, p in trained.items()}
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = network(x, t, network.encode(cond))
                loss = torch.stack([(part.float() ** 2).mean() for part in (out.value, *out.aux.values())]).sum()
            loss.backward()
            assert loss.isfinite()
            odd = [name for name, p in trained.items() if not p.grad.isfinite().all()]
            assert not odd, f"the gradient of {odd} is not finite in bfloat16"
            optimizer.step()
            still = [name for name, p in trained.items() if torch.equal(before[name], p)]
            assert not still, f"{still} did not move in bfloat16, at {x.shape[2:]} in a batch of 2; see `spaces`"
