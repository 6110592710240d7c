"""Work over many cases that goes on where it was interrupted: each case's result in a file of its own until all are done."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .files import read_json, replacing, write_json
from .rng import derive


class Parts:
    """`about` is all that the results depend on, as JSON: a folder that holds parts of other work is emptied first."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.header = folder, folder / "about.json"
        self.about = json.loads(json.dumps(about, default=str))
        if not self.header.is_file() or read_json(self.header) != self.about:
            self.clear()

    def begin(self) -> None:
        """Nothing is written before there is something to keep."""
        if not self.header.is_file():
            write_json(self.header, self.about)

    def get(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON
        """What `make` gives, from the file where it was made before. Numbers survive JSON bit for bit."""
        path = self.folder / f"{derive(name):016x}.json"
        if path.is_file():
            return read_json(path)
        made = json.loads(json.dumps(make()))
        self.begin()
        write_json(path, made)
        return made

    def arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The same for arrays by name."""
        path = self.folder / f"{derive(name):016x}.npz"
        if not path.is_file():
            made = make()
            self.begin()
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **made)
            return made
        with np.load(path) as found:
            return dict(found)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def clear(folder: Path, pattern: str) -> None:
    """Remove the parts of work that is done, those of this name in a folder: another command's may lie beside them."""
    for parts in folder.glob(pattern):
        shutil.rmtree(parts, ignore_errors=True)
