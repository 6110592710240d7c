"""One line of progress: steps, loss, sampled score and the time left; plain lines where the output is no terminal."""

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..wording import duration

FIRST = 10  # steps that are timed before the time of all is foretold


class Line(ProgressBar):
    """`score`: the name of the validation score."""

    def __init__(self, score: str) -> None:
        super().__init__()
        self.enabled, self.score = True, score
        self.began, self.steps = time.monotonic(), 0
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
        self.began, self.steps = time.monotonic(), 0
        if self.enabled and self.terminal:
            self.bar.start()
            self.task = self.bar.add_task(
                "", total=trainer.num_training_batches, completed=trainer.global_step * trainer.accumulate_grad_batches
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        self.foretell(trainer)
        if self.task is not None:
            self.bar.update(self.task, completed=batch_idx + 1, description=self.described(trainer))

    def foretell(self, trainer: Trainer) -> None:
        """After the first ten steps, once: what one takes, and so all that are left. The first of them, slow for other reasons, is not counted."""
        self.steps += 1
        if self.steps == 1:
            self.began = time.monotonic()
        if self.steps == FIRST:
            each = (time.monotonic() - self.began) / (FIRST - 1)
            left = int(trainer.num_training_batches) - trainer.global_step * trainer.accumulate_grad_batches
            if left > 0:
                self.print(f"{each:.3g} s a step, so about {duration(each * left)} for the {left:,} that are left, validation not counted")

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

    def described(self, trainer: Trainer) -> str:
        named = {"loss": "loss", "val/score": f"validation {self.score}"}
        known = trainer.callback_metrics
        return "  ".join(f"{name} {float(known[key]):.3f}" for key, name in named.items() if key in known)
