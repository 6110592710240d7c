"""Weights and inputs by the integer rule of tests/reference/pretrain/README.md, so that large ones need no file."""

import math

import numpy as np
import torch


def uniform(count, key):
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32((key * 2246822519 + 374761393) % 2**32)
    x ^= x >> np.uint32(15)
    x *= np.uint32(2246822519)
    x ^= x >> np.uint32(13)
    x *= np.uint32(3266489917)
    x ^= x >> np.uint32(16)
    return x / 2.0**32


def ramp(*shape):
    return torch.from_numpy(uniform(math.prod(shape), 7).astype(np.float32)).reshape(shape)


def value(name, shape, key):
    u = uniform(math.prod(shape), key)
    if name.endswith("weight") and len(shape) > 1:
        u = (2 * u - 1) * math.sqrt(3 / math.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        u = 0.8 + 0.4 * u
    elif name.endswith(("bias", "running_mean")):
        u = 0.2 * (u - 0.5)
    else:
        u = 2 * u - 1
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def state(shapes):
    """Names and shapes in the order of the official state dict -> its values."""
    floating = [name for name in shapes if not name.endswith("num_batches_tracked")]
    return {
        name: value(name, shape, floating.index(name)) if name in floating else torch.zeros((), dtype=torch.long)
        for name, shape in ((name, tuple(shape)) for name, shape in shapes.items())
    }


def filled(module):
    """A module whose state dict is in the official order, filled; in evaluation mode."""
    module.load_state_dict(state({name: tensor.shape for name, tensor in module.state_dict().items()}))
    return module.eval()
