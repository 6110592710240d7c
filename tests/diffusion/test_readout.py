"""What is read at the end of a sampling. The official fusion is compared with the authors' in tests/networks/test_unet_diffusers.py."""

import pytest
import torch

from somite.diffusion.codec import Signed, Unit
from somite.diffusion.readout import Auxiliary, Fused, Sampled, fused
from somite.diffusion.samplers import Step
from somite.errors import InputError
from somite.types import Output, Prediction

LEFT = torch.zeros(1, 1, 4, 4)
LEFT[..., :2] = 1


def last(sample, cal):
    """The end of a sampling whose model space is {-1, 1}, with a map beside it."""
    x = 2 * sample - 1
    return Step(-1, x, Prediction(x, x, Output(x, aux={"cal": cal})))


def test_each_answer_is_what_its_name_says():
    end = last(0.8 * LEFT, 0.6 * LEFT)
    torch.testing.assert_close(Sampled()(end, Signed(), (1, 1, 4, 4)), 0.8 * LEFT)
    torch.testing.assert_close(Auxiliary("cal")(end, Signed(), (1, 1, 4, 4)), 0.6 * LEFT)
    torch.testing.assert_close(Fused()(end, Signed(), (1, 1, 4, 4)), 0.7 * LEFT)  # Dice of the left half and 0.6 of it: 0.75, so the mean


def test_where_sample_and_map_disagree_the_map_is_kept():
    end = last(1 - LEFT, 0.6 * LEFT)
    torch.testing.assert_close(Fused()(end, Signed(), (1, 1, 4, 4)), 0.6 * LEFT + 0.25 * (1 - LEFT))


def test_the_fusion_of_an_image_does_not_depend_on_its_neighbours_unless_official():
    alike, apart = last(LEFT, LEFT), last(1 - LEFT, LEFT)
    both = last(torch.cat([LEFT, 1 - LEFT]), torch.cat([LEFT, LEFT]))
    torch.testing.assert_close(
        Fused()(both, Signed(), (1, 1, 4, 4)), torch.cat([Fused()(alike, Signed(), (1, 1, 4, 4)), Fused()(apart, Signed(), (1, 1, 4, 4))])
    )
    samples, maps = torch.cat([LEFT, 1 - LEFT]), 0.6 * torch.cat([LEFT, LEFT])
    end = Step(-1, samples, Prediction(samples, samples, Output(samples, aux={"cal": maps})))
    torch.testing.assert_close(Fused(official=True)(end, Unit(), (1, 1, 4, 4)), fused(samples, maps))
    assert not torch.equal(fused(samples, maps)[:1], fused(LEFT, 0.6 * LEFT))


def test_a_network_without_the_map_says_so():
    end = Step(-1, LEFT, Prediction(LEFT, LEFT, Output(LEFT, aux={"rgb": LEFT})))
    with pytest.raises(InputError, match=r"no map 'cal' to read \(it has: rgb\)"):
        Fused()(end, Signed(), (1, 1, 4, 4))
