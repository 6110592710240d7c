"""somite: diffusion models for medical images. `somite.train`, then `somite.load(run).predict(image)`; the command line does the same."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import Run, doctor, load, train
    from .errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "Run", "__version__", "doctor", "load", "train"]


def __getattr__(name: str) -> object:
    """Torch is imported when something that needs it is asked for, so that `somite --help` answers at once."""
    if name in ("Run", "doctor", "load", "train"):
        from . import api

        return getattr(api, name)
    if name == "InputError":
        from .errors import InputError

        return InputError
    raise AttributeError(f"module 'somite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
