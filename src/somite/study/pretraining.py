"""What a study asks of a pretrained run: nothing, because others are asked in its place."""

from dataclasses import dataclass

from ..evaluation import Row
from ..pipeline import Run
from .jobs import ROWS, Asks, Keys


@dataclass(frozen=True)
class Pretrained(Asks):
    """The run is there, and that is all."""

    def tables(self, run: Run, keys: Keys) -> dict[str, list[Row]]:
        return {ROWS: []}
