"""The official GeCA program's stored runs, and its random draws replayed: see reference/geca/README.md."""

import json
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file

from somite import rng
from somite.networks.geca import GeCA
from somite.nn.automaton import Stochastic
from somite.weights.geca import translated

HERE = Path(__file__).parent / "reference" / "geca"
OFFICIAL = {"positions": "flat", "border": "null"}


def arrays(name):
    with np.load(HERE / f"{name}.npz") as found:
        return {key: torch.from_numpy(value) if value.ndim else value.item() for key, value in found.items()}


def small(weights="small", **options):
    """The official program's small GeCA in evaluation mode, firing as it does."""
    config = json.loads((HERE / "small_config.json").read_text())
    sizes = {"hidden": config["cell_hidden_chns"], "width": config["embed_dim"], "heads": config["heads"], "mlp": config["mlp_dim"]}
    network = GeCA(**sizes | {"classes": 5, "updates": 3, "firing": Stochastic()} | OFFICIAL | options)
    network.load_state_dict(translated(load_file(HERE / f"{weights}_weights.safetensors")))
    return network.eval()


@contextmanager
def replayed(normal=(), uniform=()):
    """What is drawn comes from these lists, in order; all of it, and in these shapes."""
    waiting = {"normal": list(normal), "uniform": list(uniform)}

    def draw(kind):
        def next_of(shape, device):
            found = waiting[kind].pop(0)
            assert found.shape == shape, (kind, found.shape, shape)
            return found

        return next_of

    with patch.object(rng, "normal", draw("normal")), patch.object(rng, "uniform", draw("uniform")):
        yield
    assert not waiting["normal"] and not waiting["uniform"]


def masks(uniform):
    """(m, b, 1, h, w) official draws, of which a cell acts from 0.5 on -> m draws (b, h, w), of which it acts below 0.5."""
    return [1 - u[:, 0] for u in uniform]
