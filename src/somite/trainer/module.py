"""The one LightningModule. It holds no mathematics: methods know losses, tasks know scores."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from ..diffusion.methods import Method
from ..errors import InputError
from ..rng import step_seed
from ..tasks.task import Glimpse, Task
from ..training import Training
from ..types import Sample

NAMED = 6  # files of a batch


class Module(LightningModule):
    """files_of: the files that the batch of a step was made of, by its index."""

    def __init__(self, method: Method, task: Task, training: Training, files_of: Callable[[int], list[str]] = lambda _: []) -> None:
        super().__init__()
        self.method, self.task, self.training_options, self.files_of = method, task, training, files_of
        self.glimpses: list[Glimpse] = []

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        # All that this step draws is a function of (seed, step, rank): this, and the data's stream, make resuming exact.
        step_seed(self.training_options.seed, batch_idx, self.global_rank)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        losses = self.method.loss(*self.task.split(batch))
        if not bool(losses["loss"].isfinite()):
            self.refuse_broken(batch_idx - 1)  # then it is not this batch's fault
            raise self.diverged(f"the loss of step {batch_idx} is {losses['loss'].item()}", batch_idx)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, prog_bar=False, batch_size=1)
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False, batch_size=1)
        return losses["loss"]

    def refuse_broken(self, batch_idx: int) -> None:
        """A gradient may be infinite where the loss is not: raises InputError if the step of this batch left such weights."""
        if not all(bool(weight.isfinite().all()) for weight in self.method.parameters() if weight.requires_grad):
            raise self.diverged(f"weights are NaN or infinite after step {batch_idx}", batch_idx)

    def diverged(self, what: str, batch_idx: int) -> InputError:
        files = self.files_of(batch_idx)
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        batch = f" (its batch: {', '.join(files[:NAMED])}{more})" if files else ""
        return InputError(
            f"{what}{batch}; the last checkpoint is good. Lower --training.rate, or use --training.precision 32-true if this was 16-mixed; "
            "if it comes again with the same files, look at them"
        )

    def on_validation_epoch_start(self) -> None:
        self.glimpses = []

    def validation_step(self, batch: tuple[Sample, str], batch_idx: int) -> None:
        sample, case = batch
        self.glimpses.append(self.task.glimpse(self.method, sample, case))

    def on_validation_epoch_end(self) -> None:
        scores = torch.tensor([len(self.glimpses), sum(g.score for g in self.glimpses)], device=self.device)
        count, total = torch.as_tensor(self.all_gather(scores)).reshape(-1, 2).sum(0).tolist()
        self.log("val/score", total / max(count, 1), prog_bar=True, rank_zero_only=False, sync_dist=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(renamed(checkpoint))

    def configure_optimizers(self):  # noqa: ANN201 - Lightning's union of everything
        options = self.training_options
        trained = [p for p in self.parameters() if p.requires_grad]
        if options.optimizer == "sgd":
            optimizer = torch.optim.SGD(trained, lr=options.rate, momentum=0.99, nesterov=True, weight_decay=options.weight_decay)
        else:
            optimizer = torch.optim.AdamW(decayed(trained, options.weight_decay), lr=options.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, options.rate_at)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def renamed(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What version 0.1.0 called by another name: its validation score was val/dice for every task."""
    kept = checkpoint.get("callbacks", {})
    return {"callbacks": {key.replace("val/dice", "val/score"): state for key, state in kept.items()}}


def decayed(trained: list[nn.Parameter], decay: float) -> list[dict]:
    """Weight decay for matrices and kernels; none for biases and norms."""
    wide = [p for p in trained if p.ndim > 1]
    narrow = [p for p in trained if p.ndim <= 1]
    groups = [{"params": wide, "weight_decay": decay}, {"params": narrow, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
