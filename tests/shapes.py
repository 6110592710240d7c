"""The shapes in annotations, enforced while tests run: `--jaxtyping-packages=...,shapes.checked` in pyproject.toml.

Only functions that name a shape are checked, so that a stand-in may take the place of a class.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

whole = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int where a float is wanted, as everywhere in Python


def checked(function: Callable) -> Callable:
    hints = getattr(function, "__annotations__", {}).values()
    return whole(function) if any(named(hint) for hint in hints) else function


def named(hint: Any) -> bool:
    """Whether an annotation names an array's shape, also within a union or a tuple."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(named(part) for part in get_args(hint))
