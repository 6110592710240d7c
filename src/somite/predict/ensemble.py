"""A method and a case in, an ensemble of segmentations out: what evaluation and the pipeline both call."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.preprocess import Preprocess
from ..data.record import Record
from ..diffusion.methods import Method
from ..rng import seeded
from .fusion import Fusion, decide


@dataclass
class Result:
    """What is known of one case, in its own geometry; k is 1 for a binary mask (the spread and the members likewise)."""

    record: Record  # the case: its id, image and geometry
    mask: np.ndarray  # (*s) uint8 label indices
    probability: np.ndarray  # (k, *s) float32
    spread: np.ndarray  # (k, *s) float32, standard deviation over the members
    members: np.ndarray  # (m, k, *s) float32 probabilities


def predict(
    method: Method,
    preprocess: Preprocess,
    record: Record,
    members: int,
    fusion: Fusion,
    seed: int = 0,
    batch: int = 10,
) -> Result:
    """`members` independent samples of one case, each a function of (seed, case, slice, member) whatever the batch."""
    image = preprocess.image(record)  # (n, c, *s)
    maps = sample(method, image, record.case.id, members, seed, batch)  # (m, n, k, *s)
    native = np.stack([preprocess.restore(one, record) for one in maps])  # (m, k, *native)
    probability = fusion(native)
    return Result(record, decide(probability), probability, native.std(0), native)


def sample(method: Method, image: Tensor, case: str, members: int, seed: int, batch: int) -> Tensor:
    """(n, c, *s) -> (m, n, k, *s) probabilities on the CPU, `batch` pairs of slice and member at a time.

    A slice's members stand side by side, so that a batch encodes it once for all of them.
    """
    device = next(method.parameters()).device
    pairs = [(row, member) for row in range(len(image)) for member in range(members)]
    parts = []
    for at in range(0, len(pairs), batch):
        chunk = pairs[at : at + batch]
        rows = sorted({row for row, _ in chunk})
        cond = {"image": image[rows].to(device)}
        with torch.no_grad(), seeded(seed, [f"{case}/{row}/{member}" for row, member in chunk]):
            parts.append(method.sample(cond, (len(chunk), 1, *image.shape[2:]), [rows.index(row) for row, _ in chunk]).float().cpu())
    out = torch.cat(parts)
    return out.view(len(image), members, *out.shape[1:]).transpose(0, 1)
