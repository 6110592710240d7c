"""Weights and inputs that follow from a name alone, so that two programs can be given the same ones without a file.

A tensor is a stream of NumPy's legacy normal numbers (frozen since 2011), seeded by the CRC-32 of its name and scaled by kind.
"""

import zlib

import numpy as np
import torch
from torch import Tensor, nn


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return random.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)


def data(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(normal(name, shape))


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    r = normal(name, shape)
    if name.endswith("running_mean"):
        value = np.float32(0.1) * r
    elif name.endswith("running_var"):
        value = np.float32(1) + np.float32(0.1) * np.abs(r)
    elif name.endswith("complex_weight"):
        value = np.float32(0.05) * r
        value[..., 0] += np.float32(1)
    elif len(shape) == 1:
        value = np.float32(0.1) * r + np.float32(name.endswith("weight"))
    else:
        value = r / np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(np.ascontiguousarray(value))


def filled(network: nn.Module, prefix: str = "unet.") -> nn.Module:
    """The network with the weights that its published names give."""
    state = network.state_dict()
    network.load_state_dict({name: weight(name.removeprefix(prefix), tuple(value.shape)) for name, value in state.items()})
    return network.eval()
