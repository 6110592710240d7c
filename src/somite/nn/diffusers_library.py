"""The diffusers library, which only some parts of somite need."""

from types import ModuleType

from ..errors import InputError


def diffusers_for(what: str) -> ModuleType:
    """The library. Raises InputError where it is missing; `what` needs it."""
    try:
        import diffusers
    except ImportError as error:
        raise InputError(f"{what} needs the diffusers library: pip install 'somite[diffusers]'") from error
    return diffusers
