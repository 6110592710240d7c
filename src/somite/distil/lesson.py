"""What is asked for, and the pupil's recipe that follows from it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from ..data.soft import Soft
from ..diffusion.taught import Taught
from ..errors import InputError
from ..recipe import dump, parse
from ..sampling import arguments, class_path, place_of

SOFT = "soft"  # the folder of the teacher's answers, in the pupil's run folder


@dataclass(frozen=True)
class Lesson:
    """into: the pupil's recipe, `name` to people, with `overrides`. weight: the share of the teacher in the loss, from 0 to 1; the recipe's own
    terms share the rest as they did. unlabelled: a folder of further images. out: the pupil's run folder.
    """

    into: Path
    out: Path
    name: str = ""
    overrides: tuple[str, ...] = ()
    unlabelled: Path | None = None
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise InputError(
                f"--weight {self.weight:g}: the teacher's share of the loss lies above 0 and up to 1, which leaves the masks out"
            )
        if not self.temperature > 0:
            raise InputError(f"--temperature {self.temperature:g}: must be above 0; 1 leaves the teacher as sure as it is")

    @property
    def soft(self) -> Soft:
        return Soft(str(self.out / SOFT), None if self.unlabelled is None else str(self.unlabelled))

    @property
    def untaught(self) -> Namespace:
        """The recipe without a teacher."""
        return parse(self.into, self.overrides)

    @property
    def taught(self) -> Namespace:
        """The same with the teacher's answers in its data and its loss."""
        tree = yaml.safe_load(dump(self.untaught))
        place = place_of(tree, "method.terms")
        if place is None:
            raise InputError(f"{self.into}: its method has no terms of a loss to which a teacher's could be added; choose another recipe")
        terms = {name: rest(term, 1 - self.weight) for name, term in within(tree, place).items()}
        terms["taught"] = {"class_path": class_path(Taught), "init_args": {"weight": self.weight, "temperature": self.temperature}}
        soft = {"folder": self.soft.folder, "unlabelled": self.soft.unlabelled}
        return parse(self.into, [*self.overrides, f"--{place}={json.dumps(terms)}", f"--data.soft={json.dumps(soft)}"])


def rest(term: dict[str, Any], share: float) -> dict[str, Any]:
    """A term of a recipe with so much of its weight."""
    given = arguments(term)
    return {**term, "init_args": {**given, "weight": given["weight"] * share}} if "weight" in given else term


def within(tree: dict[str, Any], place: str) -> Any:  # noqa: ANN401 - a part of a recipe
    at: Any = tree
    for name in place.split("."):
        at = arguments(at)[name]
    return at
