"""paper.md from template.md and the committed results: every number of the paper is read from docs/results as this runs.

python paper/render.py            writes paper.md
python paper/render.py --check    exits with 1 where paper.md is not what the results say
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
NUMBER = r"[+-]?\d+(?:\.\d+)?"


def render(template: str, results: Path = RESULTS) -> str:
    """Raises LookupError where the results have not, or not just once, what the template asks for."""
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return made.from_string(template).render(lookups(results))


def lookups(results: Path) -> dict[str, Callable[..., str]]:
    """What a template may ask of a folder of results."""

    def page(name: str) -> str:
        return (results / name).read_text(encoding="utf-8")

    def cell(name: str, row: str, column: str, under: str = "") -> str:
        """Of a page's table: the mean and interval (or the bare number) in a column of the row that begins with these cells.

        under: the heading of the table, where the page has several that would do.
        """
        return interval_of(one_cell(section(page(name), under), row, column), name)

    def told(name: str, pattern: str) -> str:
        """What stands in the place of {} in a page's running text."""
        start, _, end = pattern.partition("{}")
        found = set(
            re.findall(re.escape(start) + rf"({NUMBER}(?: \[{NUMBER}, {NUMBER}\])?)" + re.escape(end), " ".join(page(name).split()))
        )
        if len(found) != 1:
            raise LookupError(f"{name} says {pattern!r} {len(found)} times")
        return found.pop()

    def measured(name: str, *keys: str, digits: int = 1) -> str:
        """A number of a JSON file, rounded."""
        value: Any = json.loads(page(name))
        for key in keys:
            value = value[key]
        return f"{value:.{digits}f}"

    return {"cell": cell, "told": told, "measured": measured}


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    if not heading:
        return text
    parts = [part for part in re.split(r"^#+ ", text, flags=re.MULTILINE) if part.startswith(heading + "\n")]
    if len(parts) != 1:
        raise LookupError(f"{len(parts)} headings are {heading!r}; want one")
    return parts[0]


def one_cell(text: str, row: str, column: str) -> str:
    wanted, found, names = split(row), [], None
    for line in text.splitlines():
        cells = split(line) if line.startswith("|") else None
        if cells is None:
            names = None
        elif names is None:
            names = cells
        elif cells[: len(wanted)] == wanted and column in names:
            found.append(cells[names.index(column)])
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows begin with {row!r} and have a column {column!r}; want one")
    return found[0]


def split(line: str) -> list[str]:
    return [cell.strip().replace("*", "") for cell in line.strip().strip("|").split("|")]


def interval_of(text: str, name: str) -> str:
    """Without what is said beside it, such as the number of seeds."""
    found = re.match(rf"{NUMBER}(?: \[{NUMBER}, {NUMBER}\])?", text)
    if not found:
        raise LookupError(f"{name}: {text!r} is no number")
    return found.group()


def main() -> int:
    text = render((HERE / "template.md").read_text(encoding="utf-8"))
    paper = HERE / "paper.md"
    if "--check" in sys.argv[1:]:
        same = paper.is_file() and paper.read_text(encoding="utf-8") == text
        print("paper.md says what the results say" if same else "paper.md and the results disagree: make paper, and read what changed")
        return 0 if same else 1
    paper.write_text(text, encoding="utf-8")
    print(f"written: {paper}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
