"""What training sees: an endless shuffled stream of samples in which sample n is a function of (seed, n) alone.

So a run that is stopped after k steps and started again sees the samples that it would have seen, and two processes
share the stream without talking.
"""

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Dataset, Sampler, default_collate

from ..errors import InputError
from ..rng import derive
from ..types import Tensor

Draw = tuple[int, int]  # (case index, seed of its slice, crop and augmentation)


class Stream(Sampler[list[Draw]]):
    """Batches `start` .. `total` - 1 of this process. Epochs are permutations; a batch may span two of them."""

    def __init__(self, cases: int, batch: int, total: int, seed: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.cases, self.batch, self.total, self.seed = cases, batch, total, seed
        self.start, self.rank, self.world = start, rank, world

    def __len__(self) -> int:
        """All batches of the run, those before `start` included: progress is counted from the run's beginning."""
        return self.total

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, torch.empty(0)
        for step in range(self.start, self.total):
            draws = []
            for n in self.samples(step):
                if n // self.cases != epoch:
                    epoch = n // self.cases
                    order = self.order(epoch)
                draws.append((int(order[n % self.cases]), derive(self.seed, "sample", n)))
            yield draws

    def samples(self, step: int) -> range:
        first = (step * self.world + self.rank) * self.batch
        return range(first, first + self.batch)

    def order(self, epoch: int) -> Tensor:
        return torch.randperm(self.cases, generator=torch.Generator().manual_seed(derive(self.seed, "epoch", epoch)))

    def cases_of(self, step: int) -> list[int]:
        """The indices of a batch's cases."""
        return [int(self.order(n // self.cases)[n % self.cases]) for n in self.samples(step)]


class TrainingSet(Dataset[dict[str, Tensor]]):
    """Draws to samples, by the function that knows how."""

    def __init__(self, draw: Callable[[int, int], dict[str, Tensor]]) -> None:
        self.draw = draw

    def __getitem__(self, key: Draw) -> dict[str, Tensor]:
        return self.draw(*key)


def together(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of samples, which must be equally large."""
    sizes = sorted({" x ".join(map(str, sample["image"].shape[1:])) for sample in samples})
    if len(sizes) > 1:
        raise InputError(
            f"training images of different sizes ({', '.join(sizes)}) make no batch; cut them with --data.crop, give one "
            "size for all as --data.preprocess.size [h, w], or set --training.batch 1"
        )
    return default_collate(samples)
