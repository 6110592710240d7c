"""What an importer is: one published program, told by the names in its checkpoints, whose weights become a run folder."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from torch import Tensor

from ..checkpoint import tensors
from ..errors import InputError
from ..nn.latent_diffusion_names import FIRST_STAGE, UNET
from .foreign import check_free

State = dict[str, Tensor]
TEXT = ("cond_stage_model.transformer.", "cond_stage_model.model.transformer.")  # Stable Diffusion's text encoders


@dataclass(frozen=True)
class Asked:
    """What the user says of a checkpoint. heads: of attention, where they are not the published ones. raw: its weights as trained last,
    not their average. autoencoder: whose latents it makes, a file, folder, run or hub id, where that is not the published one.
    """

    heads: int | None = None
    raw: bool = False
    autoencoder: str | None = None


class Importer(ABC):
    """kind: on the command line; several importers may share one, for versions of a program. system: its name for people. files: how
    many checkpoints make one network. averaged: whether a checkpoint holds both raw and averaged weights. latent: whether it makes latents
    of an autoencoder that is not in it.
    """

    kind: ClassVar[str]
    system: ClassVar[str]
    files: ClassVar[int] = 1
    averaged: ClassVar[bool] = False
    latent: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, names: Collection[str]) -> bool:
        """Whether a checkpoint with entries of these names is this program's."""

    @abstractmethod
    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        """A run folder at `out`. Raises InputError for a checkpoint that is damaged or of another size."""

    def differs(self, names: Collection[str]) -> str:
        """How a checkpoint that is not this program's can be told."""
        return f"it has other entries than {self.system}'s"


def importers() -> list[Importer]:
    """All that this folder's files name in their IMPORTERS."""
    folder = [str(Path(__file__).parent)]
    modules = [import_module(f"{__package__}.{info.name}") for info in iter_modules(folder)]
    return [one for module in modules for one in getattr(module, "IMPORTERS", ())]


def import_run(
    paths: Sequence[Path], out: Path, kind: str | None = None, heads: int | None = None, raw: bool = False, autoencoder: str | None = None
) -> Path:
    """A run folder at `out` from the checkpoints of a published program, whichever it is, or of the one named `kind`; the rest as in `Asked`.

    Raises InputError where no importer knows the checkpoint, or another one than was named.
    """
    known, out, asked = importers(), Path(out), Asked(heads, raw, autoencoder)
    check_free(out)
    named = [one for one in known if kind in (None, one.kind)]
    count = sorted({one.files for one in named})
    if len(paths) not in count:
        wanted = f"{count[0]} checkpoint{'s' if count[0] > 1 else ''}" if len(count) == 1 else "1 checkpoint, or the 2 levels of a Med-NCA"
        raise InputError(f"somite import{f' {kind}' if kind else ''} takes {wanted}, got {len(paths)}; see docs/how-to/import.md")
    states = [without_prefix(tensors(Path(path))) for path in paths]
    found = next((one for one in known if one.recognises(states[0]) and one.files == len(paths)), None)
    if found is not None and found not in named:
        raise InputError(f"{paths[0]} is no {kind}: {named[0].differs(states[0])}; it looks like {found.kind}: somite import {found.kind}")
    if found is None and kind is not None and named[0].files > 1:
        found = named[0]  # such a program says itself what its levels lack
    if found is None:
        systems = ", ".join(dict.fromkeys(one.system for one in named))
        raise InputError(f"{paths[0]} is no checkpoint of {systems}: {looks(states[0])}")
    if raw and not found.averaged:
        raise InputError(
            f"--raw: a checkpoint of {found.system} holds its weights once, raw or averaged as its program saved it; leave --raw out"
        )
    if autoencoder and not found.latent:
        raise InputError(f"--autoencoder {autoencoder}: a run of {found.system} needs none from elsewhere; leave --autoencoder out")
    return found.convert(states, [Path(path) for path in paths], out, asked)


def looks(names: Collection[str]) -> str:
    """What a checkpoint that no importer knows can be told to be."""
    if any(name.startswith(TEXT) for name in names):
        return (
            "it looks like Stable Diffusion, which answers to text; of its parts the autoencoder is of use (--method.codec.weights.source)"
        )
    if any(name.startswith(UNET) for name in names):
        return (
            "it looks like a latent diffusion model without a vision encoder, such as lsun_churches256, from which SDSeg's training can start "
            "(--method.network.unet_start.weights)"
        )
    if any(name.startswith(("decoder.up.", "decoder.up_blocks.", f"{FIRST_STAGE}decoder.up.")) for name in names):
        return "it looks like an autoencoder alone, such as kl-f8, which a recipe of SDSeg takes (--method.codec.weights.source)"
    return f"its first names are {', '.join([*names][:3])}"


def without_prefix(state: State) -> State:
    """Without what torch's DataParallel puts before every name."""
    return {name.removeprefix("module."): value for name, value in state.items()}
