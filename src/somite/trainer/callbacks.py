"""What happens beside the training step: checkpoints to resume from, the best weights, pictures, warnings, progress."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import save
from torch import Tensor

from ..files import replacing
from .module import Module
from .pictures import glimpse_sheet


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint is whole or not there: a kill while writing leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class Resumable(Callback):
    """Saves last.ckpt every `every` steps and after each validation, so that no validation is lost or made twice."""

    def __init__(self, path: Path, every: int, validate: int) -> None:
        self.path, self.every, self.validate = path, every, validate

    def on_train_batch_end(self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0 or (step % self.every != 0 and step % self.validate != 0):
            return
        module.refuse_broken(batch_idx)
        if step % self.validate != 0:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)


class Best(Callback):
    """Writes the method's (averaged) weights as safetensors whenever the sampled validation score is the best so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.score, self.step = path, -math.inf, 0

    def on_validation_epoch_end(self, trainer: Trainer, module: Module) -> None:
        self.fresh = not trainer.sanity_checking
        self.state = {k: v.detach().cpu().clone() for k, v in module.method.state_dict().items()}

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        score = float(trainer.callback_metrics["val/score"])
        if self.fresh and score > self.score:
            self.score, self.step = score, trainer.global_step
            write_weights(self.path, self.state)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.step = state_dict["score"], state_dict["step"]


class Look(Callback):
    """A sheet of validation samples after each validation, and a warning in words if they have collapsed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        glimpses = module.glimpses
        if trainer.sanity_checking or not glimpses:
            return
        sheet = glimpse_sheet(glimpses[:8])
        with replacing(self.folder / f"step-{trainer.global_step:06d}.png") as path:
            sheet.save(path, format="PNG")
        warning = module.task.diagnose(glimpses)
        if warning:
            trainer.progress_bar_callback.print(warning) if trainer.progress_bar_callback else print(warning)


class Averaged(WeightAveraging):
    """Exponential moving average of the weights whose decay grows as (1 + n) / (10 + n) to `decay`, as in EMA of Tensorflow.

    Without the growth the average of a short run would still be its random start.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
            kept = min(decay, (1 + float(count)) / (10 + float(count)))
            return averaged + (1 - kept) * (current - averaged)

        super().__init__(avg_fn=average)


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in state.items()}))
