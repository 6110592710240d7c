import pytest
import torch

from somite.errors import InputError
from somite.nn.unet import UNet


@pytest.mark.parametrize(
    ("channels", "attention", "heads", "words"),
    [
        (48, (), 1, "channels 48 .* a level of 48, which is no multiple of 32"),
        (0, (), 1, "a level of 0"),
        (32, (1,), 3, "heads 3 does not divide the 32 channels"),
        (32, (), 3, "heads 3 does not divide the 64 channels"),  # the middle always attends
        (32, (), 0, "heads 0"),
        (32, (), -2, "heads -2"),
    ],
)
def test_sizes_that_cannot_work_are_told_at_once(channels, attention, heads, words):
    with pytest.raises(InputError, match=words):
        UNet(1, 1, channels, (1, 2), 1, attention, heads)


def test_sizes_that_work_are_not_refused():
    unet = UNet(1, 2, 32, (1, 3), 1, (2,), 3)  # 32 channels have no attention, 96 have three heads
    assert unet(unet.stem(torch.zeros(1, 1, 8, 8)), torch.tensor([3])).shape == (1, 2, 8, 8)
