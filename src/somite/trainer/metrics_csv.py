"""metrics.csv: one line a value (step, metric, value), appended as training goes; a resumed run rewinds it first."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..files import replacing

HEADER = ["step", "metric", "value"]


class MetricsCSV(Logger):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """The recipe is in recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(HEADER)
            writer.writerows([step, name, f"{value:.8g}"] for name, value in metrics.items() if name != "epoch")


def rewind(path: Path, step: int) -> None:
    """Forget what was logged after `step`: it will be logged again."""
    if path.is_symlink():
        path.unlink()  # it is appended to, which would write through a link
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3 and row != HEADER and int(row[0]) < step]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
