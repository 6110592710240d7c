"""How a run is trained, as a recipe says it."""

import math
from typing import Any, Literal

from .errors import InputError


class Training:
    """How many steps of which optimiser, an exponential moving average of the weights, early stopping on sampled Dice.

    steps: optimiser steps in all. batch: examples a process and step, times `accumulate`. rate: peak learning rate;
    warmup: steps to reach it; floor: what share of it remains at the end; decay: half a cosine, or nnU-Net's (1 - share)^0.9.
    optimizer: AdamW, or SGD with Nesterov's momentum 0.99 and weight decay for all weights as nnU-Net uses it. ema: decay of the averaged weights (0: none),
    which validation and inference use. clip: largest gradient norm. validate: steps between validations;
    patience: validations without a better score before stopping (None: never). checkpoint: steps between checkpoints to
    resume from; a validation saves one too. precision: "bf16-mixed" or "16-mixed" for mixed precision. workers: processes
    that prepare data. lightning: any further arguments of lightning.Trainer, for example devices, num_nodes or strategy.
    """

    def __init__(
        self,
        steps: int = 10_000,
        batch: int = 8,
        accumulate: int = 1,
        rate: float = 1e-4,
        warmup: int = 100,
        floor: float = 0.0,
        weight_decay: float = 0.0,
        ema: float = 0.999,
        clip: float | None = 1.0,
        validate: int = 500,
        patience: int | None = None,
        checkpoint: int = 200,
        precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
        workers: int = 0,
        seed: int = 0,
        lightning: dict[str, Any] | None = None,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        decay: Literal["cosine", "poly"] = "cosine",
    ) -> None:
        wrong = [
            f"{k} {v}"
            for k, v in {"steps": steps, "batch": batch, "accumulate": accumulate, "validate": validate, "checkpoint": checkpoint}.items()
            if v < 1
        ]
        if wrong:
            raise InputError(f"--training.{wrong[0]}: must be at least 1")
        if not 0 <= ema < 1:
            raise InputError(f"--training.ema {ema}: the decay of the moving average lies in [0, 1); 0.999 is usual")
        self.steps, self.batch, self.accumulate, self.rate = steps, batch, accumulate, rate
        self.warmup, self.floor, self.weight_decay, self.ema, self.clip = warmup, floor, weight_decay, ema, clip
        self.validate, self.patience, self.checkpoint = min(validate, steps), patience, checkpoint
        self.precision, self.workers, self.seed, self.lightning = precision, workers, seed, lightning or {}
        self.optimizer, self.decay = optimizer, decay

    def rate_at(self, step: int) -> float:
        """The share of the peak rate at an optimiser step: (step + 1) / warmup, then down to `floor` as `decay` says."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)
        left = (1 - done) ** 0.9 if self.decay == "poly" else 0.5 * (1 + math.cos(math.pi * done))
        return self.floor + (1 - self.floor) * left
