"""A study is one file in `somite/studies`: its grid of recipes, the answers that are taken of each, and the claims that they test.

Jobs, engines, tables, the statistics of claims and the figure are shared. The file's name is the study's on the command line, its
STUDY the object that does it; nothing is registered.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..errors import InputError
from .jobs import ROWS, Job
from .masks import LOSSES
from .verdict import RULE, SHOWN, Claim, of_masks

B = TypeVar("B")
Rows = Sequence[dict[str, Any]]
Tables = dict[str, list[dict[str, Any]]]  # those that some job has written


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a study. only: cells, by the first of their keys or by all ("network" or "network/method").
    seeds, steps: in place of the budget's. threads: of each job.
    """

    data: str
    out: Path
    budget: str = "cpu"
    seeds: Sequence[int] | None = None
    only: tuple[str, ...] = ()
    threads: int = 1
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise InputError(f"--steps {self.steps}: training takes at least 1 step")
        if self.threads < 1:
            raise InputError(f"--threads {self.threads}: a job needs at least 1 thread")

    def chosen(self, budgets: Mapping[str, B]) -> B:
        """Raises InputError for a budget that there is not."""
        if self.budget not in budgets:
            raise InputError(f"--budget {self.budget}: choose from {', '.join(budgets)}")
        return budgets[self.budget]

    def seeded(self, count: int) -> list[int]:
        """The seeds that are asked for, each once, or the first `count`."""
        return list(dict.fromkeys(range(count) if self.seeds is None else self.seeds))

    def wants(self, cell: Sequence[str]) -> bool:
        return not self.only or cell[0] in self.only or "/".join(cell) in self.only

    def known(self, cells: Sequence[Sequence[str]]) -> None:
        """Raises InputError where `only` names no cell of these."""
        names = {name for cell in cells for name in (cell[0], "/".join(cell))}
        unknown = [name for name in self.only if name not in names]
        if unknown:
            parts = [", ".join(dict.fromkeys(cell[i] for cell in cells)) for i in range(len(cells[0]))]
            raise InputError(f"--only {unknown[0]}: no such cell; those that there are, one of each: {' / '.join(parts)}")


class Study(ABC):
    """title: of the verdict. columns: the keys of a job that tell its cell, beside the seed. metrics: the columns of rows that the table
    shows, with their names. rule: when a claim holds.

    `told` and `figure` are those of segmentations; a study of other things brings its own.
    """

    title: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("network", "method")
    metrics: ClassVar[dict[str, str]] = SHOWN
    rule: ClassVar[str] = RULE

    @abstractmethod
    def jobs(self, asked: Asked) -> list[Job]:
        """The grid. Raises InputError for what is asked and cannot be."""

    def prepare(self, asked: Asked) -> None:  # noqa: B027 - most studies stand on nothing
        """What jobs stand on, trained here and once, before the first of them: an autoencoder, a backbone. What is there is left as it is."""

    @abstractmethod
    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        """By the title of their list; p-values are adjusted within a list (`verdict.adjusted`). The first list is the command's answer."""

    def whole(self, asked: Asked) -> list[Job]:
        """Every cell, with the seeds that are asked for and the budget's, so that a part of a study rewrites no other part's rows."""
        every = [job for seeds in (None, asked.seeds) for job in self.jobs(replace(asked, only=(), seeds=seeds))]
        return list({job.folder: job for job in every}.values())

    def told(self, tables: Tables) -> list[str]:
        """What the verdict says before its claims, in Markdown: the table of all cells."""
        return of_masks(tables, self.columns, self.metrics)

    def figure(self, tables: Tables) -> Any:  # noqa: ANN401 - a matplotlib Figure, or None
        """One picture of the tables."""
        from .figures import forests

        return forests(tables[ROWS], tables.get(LOSSES, ()), self.columns)


def study_of(name: str) -> Study:
    """The study of that name on the command line ("fair-trial")."""
    return import_module(f"somite.studies.{name.replace('-', '_')}").STUDY
