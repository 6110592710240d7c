"""One line of progress: steps, loss, sampled Dice and the time left; plain lines where the output is no terminal."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Line(ProgressBar):
    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self.bar = Progress(*columns, TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))
        self.task: TaskID | None = None

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if self.enabled:
            self.bar.console.print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled and self.terminal:
            self.bar.start()
            self.task = self.bar.add_task(
                "", total=trainer.num_training_batches, completed=trainer.global_step * trainer.accumulate_grad_batches
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        if self.task is not None:
            self.bar.update(self.task, completed=batch_idx + 1, description=self.described(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled and not self.terminal:
            print(f"step {trainer.global_step}: {self.described(trainer)}", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    @property
    def terminal(self) -> bool:
        return sys.stdout.isatty()

    @staticmethod
    def described(trainer: Trainer) -> str:
        named = {"loss": "loss", "val/dice": "validation Dice"}
        known = trainer.callback_metrics
        return "  ".join(f"{name} {float(known[key]):.3f}" for key, name in named.items() if key in known)
