"""Images for training alone, beside the data's own: those that `somite sample` drew, say, or of another hospital."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from . import labelled
from .record import Case
from .sources import find

MARK = "extra-"  # before the ids, so that none meets one of the data's own


@dataclass(frozen=True)
class Extra:
    """root: a folder in any layout that `Data` reads; all its cases join the training split, whatever splits it names.

    ratio: only the first of them by id, so many for each of the data's own training cases; None is all. alone: in place of these. Labels
    must be those of the data.
    """

    root: str
    ratio: float | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        if self.ratio is not None and self.ratio <= 0:
            raise InputError(f"--data.extra.ratio {self.ratio:g}: must be above 0; leave --data.extra out to train on the data alone")

    def cases(self, needs: Collection[str], classes: Sequence[str], own: int) -> list[Case]:
        """Beside `own` cases. classes: of the data's labels, in their order."""
        root, masks = Path(self.root), "mask" in needs
        found = (labelled.find(root, masks, classes) if "labels" in needs else find(root, masks)).all
        count = len(found) if self.ratio is None else math.ceil(self.ratio * own)
        if len(found) < count:
            raise InputError(
                f"{root} has {len(found)} images, and --data.extra.ratio {self.ratio:g} asks for {count} beside {own}; add some, or ask for fewer"
            )
        return [replace(case, id=f"{MARK}{case.id}", group=f"{MARK}{case.group}") for case in found[:count]]
