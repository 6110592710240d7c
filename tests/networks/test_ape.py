"""Equal to the official APE (tests/reference/pretrain/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hashed import ramp, state
from somite.contracts import NetworkContract
from somite.errors import InputError
from somite.networks.ape import APE, STRIDE
from somite.nn.frozen import Start

HERE = Path(__file__).parents[1] / "reference" / "pretrain"
SUMMARY = json.loads((HERE / "summary.json").read_text())
SHAPES = json.loads((HERE / "state_dict_keys.json").read_text())["ape"]
TINY = {"widths": (8, 16, 32), "depths": (2, 2, 2)}


class TestAPE(NetworkContract):
    mask_channels = 3
    image_channels = 1
    spaces = {3: [(16, 16, 16), (13, 5, 22)]}  # noqa: RUF012

    def make(self, dims):
        return APE((4, 8, 12), (1, 2, 1), output="linear")

    def given(self, b, space):
        x, t, cond = super().given(b, space)
        seen = torch.rand(b, 1, *(n // STRIDE for n in space)).round()
        return x, t, {**cond, "seen": seen}


@pytest.fixture(scope="module")
def official():
    return torch.load(HERE / "F_ape_tiny.pt", weights_only=True)


@pytest.fixture(scope="module")
def tiny(official):
    network = APE(**TINY)
    network.fpn.load_state_dict(official["fpn_state"])
    network.head.load_state_dict(official["head_state"])
    return network.eval()


@torch.no_grad()
def test_fact_4_the_official_pyramid_and_coordinates(tiny, official):
    for level, cells in enumerate(tiny.fpn(official["x"])):
        torch.testing.assert_close(cells, official[f"pyr{level}"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tiny.cells(official["x"]), official["y"], rtol=1e-4, atol=1e-4)


def test_fact_2_names_shapes_and_number_of_weights():
    with torch.device("meta"):
        network = APE()
    assert {name: [*tensor.shape] for name, tensor in network.state_dict().items()} == SHAPES
    assert len(SHAPES) == 231
    assert sum(p.numel() for p in network.parameters()) == 31_384_351


@pytest.mark.slow
@torch.no_grad()
def test_the_whole_network_gives_the_official_coordinates():
    network = APE()
    network.load_state_dict(state(SHAPES))
    shape, total, first = SUMMARY["F_APE_full_96_96_64"]
    found = network.eval().cells(ramp(1, 1, 96, 96, 64))
    assert [*found.shape] == shape
    torch.testing.assert_close(found.flatten()[:4], torch.tensor(first), rtol=1e-4, atol=1e-4)
    assert float(found.double().sum()) == pytest.approx(total, rel=1e-4)


@torch.no_grad()
def test_every_voxel_has_coordinates_between_those_of_the_cells(tiny):
    def found(*space):
        image = torch.rand(1, 1, *space)
        return tiny.cells(image), tiny(torch.zeros(1, 3, *space), torch.tensor([0]), {"image": image}).value

    cells, whole = found(20, 16, 12)
    wanted = F.interpolate(cells, scale_factor=4, mode="trilinear", align_corners=False)
    torch.testing.assert_close(whole, wanted, rtol=1e-5, atol=1e-5)
    cells, whole = found(18, 15, 7)
    assert cells.shape == (1, 3, 4, 3, 1)
    assert whole.shape == (1, 3, 18, 15, 7)
    assert float(whole.min()) > 0
    assert float(whole.max()) < 1


@torch.no_grad()
def test_what_is_hidden_is_not_looked_at(tiny):
    image, seen = torch.rand(1, 1, 16, 16, 16), torch.ones(1, 1, 4, 4, 4)
    seen[..., 2:] = 0
    other = image.clone()
    other[..., 8:] = torch.rand(1, 1, 16, 16, 8)
    assert torch.equal(tiny.cells(image, seen), tiny.cells(other, seen))
    assert not torch.allclose(tiny.cells(image), tiny.cells(other))
    assert not torch.allclose(tiny.cells(image), tiny.cells(image, seen))
    assert torch.equal(tiny.cells(image), tiny.cells(image, torch.ones_like(seen)))


def test_training_starts_from_released_weights(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "ape.pt")
    again = APE(**TINY, start=Start(str(tmp_path / "ape.pt")))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in tiny.state_dict().items())
    with pytest.raises(InputError, match="no APE of this size"):
        APE((8, 16, 24), (2, 2, 2), start=Start(str(tmp_path / "ape.pt")))


def test_what_does_not_fit_is_refused(tiny):
    with pytest.raises(InputError, match="depths_up"):
        APE((8, 16), (1,))
    for image in (torch.zeros(1, 1, 3, 8, 8), torch.zeros(1, 2, 8, 8, 8)):
        with pytest.raises(InputError, match="at least 4 voxels"):
            tiny.cells(image)
