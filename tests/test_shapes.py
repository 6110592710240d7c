"""Shapes are enforced while tests run, or the annotations would be wishes."""

import numpy as np
import pytest
import torch

from somite.data.record import write_mask
from somite.networks.medsegdiffnca import MedSegDiffNCA


def test_a_network_that_is_given_other_shapes_is_stopped():
    network = MedSegDiffNCA(channels=14, hidden=8, updates=1, levels=1, cbam=False)
    network(torch.zeros(2, 1, 8, 8), torch.tensor([1, 2]), {"image": torch.zeros(2, 3, 8, 8)})
    with pytest.raises(TypeError, match="t"):
        network(torch.zeros(2, 1, 8, 8), torch.tensor([[1, 2]]), {"image": torch.zeros(2, 3, 8, 8)})
    with pytest.raises(TypeError, match="t"):
        network(torch.zeros(2, 1, 8, 8), torch.tensor([1, 2, 3]), {"image": torch.zeros(2, 3, 8, 8)})


def test_a_mask_of_probabilities_is_no_mask(tmp_path):
    with pytest.raises(TypeError, match="mask"):
        write_mask(tmp_path / "x", np.zeros((4, 4)), None)
