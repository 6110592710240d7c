"""Learning from two views: against the losses taken voxel by voxel, and by what is learned."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from somite.diffusion.views import Contrast, Positions, info_nce
from somite.errors import InputError
from somite.networks.ape import APE
from somite.networks.vox2vec import Projector, Vox2Vec
from somite.nn.coordinates import Displacements, Distances
from somite.types import Network, Output

SPACE = (16, 16, 16)


AXES = torch.stack(torch.meshgrid(*[torch.arange(48.0)] * 3, indexing="ij")) / 48


class Pointwise(Network):
    """The least that can say where a voxel lies, if its brightness does."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 3, 1)

    def forward(self, x, t, cond, state=None):
        return Output(self.conv(cond["image"]))


def scans(b, n=40, body=AXES):
    """Two crops of a body of 2 mm a voxel, as bright as it says, each a little brighter or darker by itself; n voxels that both show."""
    corners = torch.randint(0, 33, (b, 3))
    shift = torch.randint(-4, 5, (b, 3)).clamp(-corners, 32 - corners)
    voxels = torch.randint(4, 12, (b, n, 3))
    images = []
    for corner in (corners, corners + shift):
        crops = [body[:, i : i + 16, j : j + 16, k : k + 16] for i, j, k in corner.tolist()]
        images.append(torch.stack(crops) + 0.02 * torch.randn(b, 1, 1, 1, 1))
    mm = 2.0 * (corners[:, None] + voxels).transpose(1, 2)
    return mm, {"image": images[0], "other": images[1], "voxels": voxels, "other_voxels": voxels - shift[:, None]}


def positions(by):
    torch.manual_seed(0)
    return Positions(APE((8, 16), (1, 1), image_channels=3, output="linear" if isinstance(by, Displacements) else "sigmoid"), by)


@pytest.mark.parametrize("by", [Displacements(), Distances()], ids=lambda by: type(by).__name__)
@torch.no_grad()
def test_the_loss_is_of_what_is_said_at_the_voxels(by):
    method, (mm, cond) = positions(by).eval(), scans(2)
    losses = method.loss(mm, cond)
    one = method.sample(cond, (2, 3, *SPACE))
    other = method.sample({"image": cond["other"]}, (2, 3, *SPACE))
    wanted = []
    for i in range(2):
        first = torch.stack([one[i, :, a, b, c] for a, b, c in cond["voxels"][i].tolist()])
        second = torch.stack([other[i, :, a, b, c] for a, b, c in cond["other_voxels"][i].tolist()])
        wanted.append(sum(by(first, second, mm[i].T).values()))
    torch.testing.assert_close(losses["loss"], sum(wanted) / 2, rtol=1e-4, atol=1e-5)
    assert losses["loss"] == sum(value for name, value in losses.items() if name != "loss")


def test_displacements_teach_where_a_voxel_lies():
    torch.manual_seed(0)
    method = Positions(Pointwise(), Displacements())
    optimizer = torch.optim.Adam(method.parameters(), 0.1)
    for _ in range(40):
        mm, cond = scans(4)
        optimizer.zero_grad()
        method.loss(mm, cond)["loss"].backward()
        optimizer.step()
    mm, cond = scans(12)
    found = method.eval().sample(cond, (12, 3, *SPACE))
    rows = torch.arange(12)[:, None]
    i, j, k = cond["voxels"].unbind(2)
    said = found[rows, :, i, j, k]
    for axis in range(3):
        assert spearmanr(said[..., axis].flatten(), mm[:, axis].flatten()).statistic >= 0.95


def test_distances_train_their_scale_too():
    method, (mm, cond) = positions(Distances()), scans(1)
    method.loss(mm, cond)["loss"].backward()
    assert dict(method.named_parameters())["by.scale"].grad.any()


def test_contrast_learns_to_tell_voxels_apart():
    torch.manual_seed(0)
    method = Contrast(Vox2Vec(base=4, levels=2, image_channels=3), Projector(12, 16))
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    mm, cond = scans(2, 16, torch.rand(3, 48, 48, 48))
    for _ in range(20):
        loss = method.loss(mm, cond)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.6 * math.log(2 * 32 - 1)  # the loss of vectors that are all alike


@torch.no_grad()
def test_all_other_vectors_of_both_views_are_negatives():
    first, second = (torch.nn.functional.normalize(torch.randn(5, 4)) for _ in range(2))
    both, total = [*first, *second], 0.0
    for i, anchor in enumerate(both):
        score = [(anchor @ vector / 0.1).exp() for j, vector in enumerate(both) if j != i]
        total -= ((anchor @ both[(i + 5) % 10] / 0.1).exp() / sum(score)).log() / 10
    assert float(info_nce(first, second)) == pytest.approx(float(total), rel=1e-4)


def test_what_does_not_fit_is_refused():
    mm, cond = scans(1)
    with pytest.raises(InputError, match="lacks other, voxels"):
        positions(Displacements()).loss(mm, {"image": cond["image"], "other_voxels": cond["other_voxels"]})
    method = Contrast(Vox2Vec(base=4, levels=2, image_channels=3), Projector(12, 4))
    with pytest.raises(InputError, match="train a probe"):
        method.sample(cond, (1, 3, *SPACE))
