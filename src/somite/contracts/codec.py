"""What a codec must satisfy: there and back, at its own size, within its bound."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import pytest
import torch

from ..diffusion.codec import Codec
from ..diffusion.methods import Diffusion
from ..diffusion.samplers import DDIM
from ..diffusion.schedule import linear
from ..errors import InputError
from ..types import Network, Output


class CodecContract:
    """`make()` returns a codec, `targets()` a few batches of targets in data space, of odd sizes too; `tolerance` of a round trip."""

    tolerance = 1e-5

    def make(self) -> Codec:
        raise NotImplementedError

    def targets(self) -> list[torch.Tensor]:
        raise NotImplementedError

    def test_a_round_trip_gives_the_target_at_its_own_size(self):
        codec = self.make()
        for target in self.targets():
            shape = tuple(target.shape)
            back = codec.decode(codec.encode(target), shape)
            assert back.shape == (len(target), codec.maps, *shape[2:])
            torch.testing.assert_close(back, codec.probabilities(target), rtol=0, atol=self.tolerance)

    def test_the_shape_in_model_space_is_foretold(self):
        codec = self.make()
        for target in self.targets():
            z = codec.encode(target)
            assert tuple(z.shape) == codec.shape(tuple(target.shape))
            assert z.shape[1] == codec.channels
            assert z.is_floating_point()

    def test_no_target_leaves_the_bound(self):
        codec = self.make()
        largest = max(float(codec.encode(target).abs().max()) for target in self.targets())
        assert codec.bound is None or largest <= codec.bound + 1e-6

    def test_a_target_of_other_channels_is_refused_and_never_broadcast(self):
        codec, target = self.make(), self.targets()[0]
        wrong = (len(target), target.shape[1] + 1, *target.shape[2:])
        with pytest.raises(InputError):
            codec.shape(wrong)
        method = Diffusion(Told(torch.zeros(1)), linear(), {}, DDIM(1), codec)
        with pytest.raises(ValueError, match="the noise has"):
            method.corrupt(target, torch.zeros(len(target), dtype=torch.long), torch.randn(codec.shape(tuple(target.shape)))[..., :-1])

    def test_a_perfect_network_is_read_back_through_a_whole_sampling(self):
        """Diffusion of the encoded target by a network that knows it, clipped by the codec's bound, ends at the target."""
        codec = self.make()
        for target in self.targets():
            method = Diffusion(Told(codec.encode(target)), linear(), {}, DDIM(5), codec, predicts="x0")
            found = method.sample({}, tuple(target.shape))
            torch.testing.assert_close(found, codec.probabilities(target), rtol=0, atol=max(self.tolerance, 1e-4))


class Told(Network):
    """Answers with what it was told, whatever it is asked; counts the evaluations of a trajectory in its state."""

    def __init__(self, answer):
        super().__init__()
        self.answer = torch.nn.Parameter(answer.float())

    def forward(self, x, t, cond, state=None):
        return Output(self.answer, state=1 if state is None else state + 1)
