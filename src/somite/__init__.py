"""somite: diffusion models for medical images. `somite.load(run).predict(image)` segments; the command line does the rest."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import InputError
    from .pipeline import Run, load

__version__ = "0.1.0"
__all__ = ["InputError", "Run", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Torch is imported when something that needs it is asked for, so that `somite --help` answers at once."""
    if name in ("load", "Run"):
        from . import pipeline

        return getattr(pipeline, name)
    if name == "InputError":
        from .errors import InputError

        return InputError
    raise AttributeError(f"module 'somite' has no attribute {name!r}")
