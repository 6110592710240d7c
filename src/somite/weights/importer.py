"""What an importer is: one published program, told by the names in its checkpoints, whose weights become a run folder."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from torch import Tensor

from ..checkpoint import tensors
from ..errors import InputError
from .foreign import check_free

State = dict[str, Tensor]


class Importer(ABC):
    """kind: on the command line; several importers may share one, for versions of a program. system: its name for people. files: how
    many checkpoints make one network.
    """

    kind: ClassVar[str]
    system: ClassVar[str]
    files: ClassVar[int] = 1

    @abstractmethod
    def recognises(self, names: Collection[str]) -> bool:
        """Whether a checkpoint with entries of these names is this program's."""

    @abstractmethod
    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, heads: int | None) -> Path:
        """A run folder at `out`. Raises InputError for a checkpoint that is damaged or of another size."""

    def differs(self, names: Collection[str]) -> str:
        """How a checkpoint that is not this program's can be told."""
        return f"it has other entries than {self.system}'s"


def importers() -> list[Importer]:
    """All that this folder's files name in their IMPORTERS."""
    folder = [str(Path(__file__).parent)]
    modules = [import_module(f"{__package__}.{info.name}") for info in iter_modules(folder)]
    return [one for module in modules for one in getattr(module, "IMPORTERS", ())]


def import_run(paths: Sequence[Path], out: Path, kind: str | None = None, heads: int | None = None) -> Path:
    """A run folder at `out` from the checkpoints of a published program, whichever it is, or of the one named `kind`.

    Raises InputError where no importer knows the checkpoint, or another one than was named.
    """
    known, out = importers(), Path(out)
    check_free(out)
    asked = [one for one in known if kind in (None, one.kind)]
    count = sorted({one.files for one in asked})
    if len(paths) not in count:
        wanted = f"{count[0]} checkpoint{'s' if count[0] > 1 else ''}" if len(count) == 1 else "1 checkpoint, or the 2 levels of a Med-NCA"
        raise InputError(f"somite import{f' {kind}' if kind else ''} takes {wanted}, got {len(paths)}; see docs/how-to/import.md")
    states = [without_prefix(tensors(Path(path))) for path in paths]
    found = next((one for one in known if one.recognises(states[0]) and one.files == len(paths)), None)
    if found in asked and found is not None:
        return found.convert(states, [Path(path) for path in paths], out, heads)
    first = ", ".join([*states[0]][:3])
    if found is not None:
        raise InputError(f"{paths[0]} is no {kind}: {asked[0].differs(states[0])}; it looks like {found.kind}: somite import {found.kind}")
    if kind is not None and asked[0].files > 1:  # such a program says itself what its levels lack
        return asked[0].convert(states, [Path(path) for path in paths], out, heads)
    systems = ", ".join(dict.fromkeys(one.system for one in asked))
    raise InputError(f"{paths[0]} is no checkpoint of {systems}: its first names are {first}")


def without_prefix(state: State) -> State:
    """Without what torch's DataParallel puts before every name."""
    return {name.removeprefix("module."): value for name, value in state.items()}
