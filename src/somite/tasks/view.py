"""What a task wants shown: numbers with their meaning, figures and pictures. Reports lay it out and know no task's words."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

HIGHER, LOWER = "higher is better", "lower is better"


@dataclass
class Found:
    """The files of one evaluation; values of rows and tables are text where they were read from CSV. answers: the folder of the files
    that it wrote of its answers.
    """

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]]
    answers: Path


@dataclass(frozen=True)
class Meaning:
    name: str
    better: str
    text: str
    share: bool = True  # it lies in [0, 1]


@dataclass(frozen=True)
class Number:
    """A mean with its interval, as `intervals.as_json` gives it, and what it means."""

    meaning: Meaning
    found: dict[str, Any]
    large: bool = False  # shown at the top of the page


@dataclass(frozen=True)
class Breakdown:
    """A headline metric by parts of the set."""

    title: str
    column: str
    parts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """wide: it takes the whole width of the page."""

    title: str
    figure: Figure
    alt: str
    text: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Plots, and paragraphs beside them: a lead in bold (or nothing) and the rest."""

    id: str
    title: str
    plots: list[Plot]
    paragraphs: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """headline: the column of rows that cases are ranked by, larger is better, and its name in sentences. over: what the means are
    over, where that is more than cases. notes: paragraphs under the table. ranked: the column that cases are ranked by and its name, where
    that is not the headline.
    """

    headline: str
    name: str
    numbers: list[Number]
    over: str = ""
    notes: list[tuple[str, str]] = field(default_factory=list)
    breakdowns: list[Breakdown] = field(default_factory=list)
    ranked: tuple[str, str] | None = None

    @property
    def rank(self) -> tuple[str, str]:
        """The column that cases are ranked by, larger is better, and its name."""
        return self.ranked or (self.headline, self.name)


@dataclass(frozen=True)
class Panel:
    """A small picture of a case. photograph: stored as JPEG; else few colours, as PNG of so many bits a pixel."""

    name: str
    image: Image.Image
    photograph: bool = False
    bits: int = 8


@dataclass(frozen=True)
class Key:
    """An entry of the legend: a colour, or a scale from white to it between two ends."""

    colour: str
    text: str
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Pictures:
    """panels and facts, a list for each case; keys: the legend; note: how to read them. columns: panels in a row, where rows mean something."""

    panels: list[list[Panel]]
    facts: list[list[str]]
    keys: list[Key]
    note: str
    columns: int | None = None
