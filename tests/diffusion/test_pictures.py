"""Masks as pictures: there and back, between colours, and what is refused."""

import itertools

import pytest
import torch

from somite.contracts import CodecContract
from somite.diffusion.codec import Signed
from somite.diffusion.pictures import Beside, Grey, Layers, Palette, palette
from somite.errors import InputError


class TestGrey(CodecContract):
    def make(self):
        return Grey()

    def targets(self):
        return [(torch.rand(3, 1, *space) > 0.5).long() for space in ((8, 8), (5, 7))]


@pytest.mark.parametrize("classes", [2, 3, 8, 9, 30])
class TestPalette:
    """The contract for several numbers of classes."""

    def test_it_is_a_codec(self, classes):
        class Contract(CodecContract):
            def make(self):
                return Palette(classes)

            def targets(self):
                return [torch.randint(classes, (3, 1, 5, 7)), torch.arange(classes).view(1, 1, 1, -1)]

        run(Contract())

    def test_its_colours_differ(self, classes):
        colours = palette(classes)
        assert len({tuple(colour) for colour in colours.tolist()}) == classes
        assert colours[0].tolist() == [-1, -1, -1]
        assert colours.abs().max() <= 1


class TestLayers(CodecContract):
    def make(self):
        return Layers(4)

    def targets(self):
        return [torch.randint(4, (3, 1, 5, 7)), torch.zeros(1, 1, 2, 2, dtype=torch.long)]


class TestBeside(CodecContract):
    def make(self):
        return Beside(Signed(channels=3), Palette(4))

    def targets(self):
        return [torch.cat([torch.rand(2, 3, 5, 7), torch.randint(4, (2, 1, 5, 7)).float()], 1)]


def run(contract):
    for name in dir(contract):
        if name.startswith("test_"):
            getattr(contract, name)()


def test_a_grey_picture_is_read_as_published():
    """The mean over the channels of what was clamped to [0, 1], channel by channel."""
    z = torch.tensor([3.0, 0.0, -2.0]).view(1, 3, 1, 1)
    assert Grey().decode(z, (1, 1, 1, 1)).item() == pytest.approx((1 + 0.5 + 0) / 3)


def test_between_two_colours_both_classes_have_a_share():
    codec = Palette(2)
    black, other = codec.colours
    for share in (0.25, 0.5, 0.75):
        z = ((1 - share) * black + share * other).view(1, 3, 1, 1)
        assert codec.decode(z, (1, 1, 1, 1)).flatten().tolist() == pytest.approx([1 - share, share], abs=1e-5)


def test_every_colour_of_the_cube_is_read_as_some_class():
    for classes in (2, 5, 9):
        codec = Palette(classes)
        cube = torch.tensor(list(itertools.product((-1.5, -1, -0.2, 0, 0.7, 1), repeat=3))).T.reshape(1, 3, 6, 36)
        shares = codec.decode(cube, (1, 1, 6, 36))
        torch.testing.assert_close(shares.sum(1), torch.ones(1, 6, 36))
        assert shares.min() >= 0


def test_what_layers_leave_is_background():
    z = torch.full((1, 6, 1, 1), -1.0)
    z[:, 3:] = 0.2  # of the second class 0.6
    assert Layers(3).decode(z, (1, 1, 1, 1)).flatten().tolist() == pytest.approx([0.4, 0, 0.6])


@pytest.mark.parametrize("make", [lambda: Palette(1), lambda: Layers(1), lambda: Grey(0)])
def test_what_is_no_picture(make):
    with pytest.raises(InputError):
        make()
