"""What a sampler must satisfy: from T-1 to what the network knows."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import pytest
import torch

from ..diffusion.samplers import Sampler
from ..diffusion.schedule import cosine, linear
from ..rng import seeded
from ..types import Output, Prediction


class SamplerContract:
    """`make(steps, **options)` returns a sampler."""

    def make(self, steps, **options) -> Sampler:
        raise NotImplementedError

    def walk(self, sampler, answer, schedule, bound=None, names="abc"):
        """All steps of a trajectory towards `answer`, and the state at each evaluation."""
        states = []

        def denoise(x, t, state):
            states.append(state)
            alpha, sigma = schedule.at(int(t[0]))
            return Prediction(answer, (x - alpha * answer) / sigma, Output(answer, state=(state or 0) + 1))

        with seeded(0, names[: len(answer)]):
            x = torch.stack(
                [torch.randn(answer.shape[1:], generator=torch.Generator().manual_seed(ord(name))) for name in names[: len(answer)]]
            )
            return list(sampler.trajectory(denoise, schedule, x, bound)), states

    @pytest.mark.parametrize("shape", [(2, 1, 5, 7), (2, 3, 4, 4), (1, 4, 3, 5, 2)], ids=str)
    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_it_starts_at_the_last_timestep_and_ends_at_what_the_network_knows(self, steps, shape):
        """Masks, images and latents of any number of channels."""
        answer = 2 * torch.rand(shape) - 1
        for schedule in (linear(), cosine(100)):
            walked, _ = self.walk(self.make(steps), answer, schedule, bound=1.0)
            assert walked[0].t == len(schedule) - 1
            assert walked[-1].t == -1
            assert len(walked) == steps + 1
            torch.testing.assert_close(walked[-1].x, answer, rtol=0, atol=0.05)

    def test_a_networks_state_makes_the_round_trip(self):
        answer = torch.zeros(1, 1, 4, 4)
        _, states = self.walk(self.make(4), answer, linear(), 1.0)
        assert states == [None, 1, 2, 3]
        _, fresh = self.walk(self.make(4, inherit_state=False), answer, linear(), 1.0)
        assert fresh == [None] * 4

    def test_it_clips_by_the_codec_by_a_number_or_not_at_all(self):
        answer = torch.full((1, 1, 4, 4), 3.0)
        for clip, bound, largest in (("codec", 0.5, 0.5), ("codec", None, 3.0), (2.0, 0.5, 2.0), (None, 0.5, 3.0)):
            walked, _ = self.walk(self.make(1, clip=clip), answer, linear(), bound)
            assert float(walked[0].pred.x0.max()) == pytest.approx(largest)

    def test_a_row_does_not_depend_on_its_batch(self):
        answer = 2 * torch.rand(3, 1, 4, 4) - 1
        whole, _ = self.walk(self.make(3), answer, linear(), 1.0, "abc")
        part, _ = self.walk(self.make(3), answer[[2, 0]], linear(), 1.0, "ca")
        torch.testing.assert_close(part[-1].x, whole[-1].x[[2, 0]], rtol=0, atol=1e-5)
