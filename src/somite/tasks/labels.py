"""What every task with labels asks of its data before training."""

import torch

from ..data.dataset import Data
from ..data.labelled import contradictions
from ..errors import InputError


def check_labels(data: Data) -> None:
    """Raises InputError for a class without a training case; images that are there twice, under different labels, are told."""
    train = data.cases("train")
    for name, having in zip(data.source.classes, torch.tensor([case.labels for case in train]).sum(0).tolist(), strict=True):
        if not having:
            raise InputError(f"{data.path} has no training case of the class {name!r}: add some, or leave it out (--data.classes)")
    for first, second in contradictions([*train, *data.cases("val")]):
        print(f"warning: {first.id} and {second.id} are the same image with different labels; one of them is wrong", flush=True)
