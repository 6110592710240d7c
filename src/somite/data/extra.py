"""Images for training alone, beside the data's own: those that `somite sample` drew, say, or of another hospital."""

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

    count: only the first so many, by id; None is all. alone: in place of the data's own training cases. Labels must be those of the data.
    """

    root: str
    count: int | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise InputError(f"--data.extra.count {self.count}: take at least 1 image, or leave --data.extra out")

    def cases(self, needs: Collection[str], classes: Sequence[str]) -> list[Case]:
        """In the order of their ids. classes: of the data's own labels, in their order."""
        root, masks = Path(self.root), "mask" in needs
        found = (labelled.find(root, masks, classes) if "labels" in needs else find(root, masks)).all
        if self.count is not None and len(found) < self.count:
            raise InputError(f"{root} has {len(found)} images where --data.extra.count asks for {self.count}; draw more, or ask for fewer")
        return [replace(case, id=f"{MARK}{case.id}", group=f"{MARK}{case.group}") for case in found[: self.count]]
