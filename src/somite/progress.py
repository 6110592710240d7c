"""A bar for what takes long."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def tracked(items: Iterable[T], what: str = "cases", total: int | None = None) -> Iterator[T]:
    """The items, with a progress bar and the time left. total: how many they are, where they are made while they are asked for."""
    items = list(items) if total is None else items
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns) as progress:
        yield from progress.track(items, total=total)
