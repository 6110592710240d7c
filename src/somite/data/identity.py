"""What two objects must have in common to do the same: their class and their attributes, through and through."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

FRAME = frozenset(vars(nn.Module()))  # what every module has: its hooks, and tables of what is in its state dict
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(*values: object) -> str:
    """A SHA-256 that is equal for equal values on every machine; of networks the weights count, and not whether they are in training."""
    total = hashlib.sha256()
    for part in parts(values, ()):
        total.update(part if isinstance(part, bytes) else part.encode() + b"\x1f")
    return total.hexdigest()


def parts(value: Any, within: tuple[int, ...]) -> Iterator[str | bytes]:  # noqa: ANN401
    """within: what it lies in, so that nothing is gone into twice."""
    inner = (*within, id(value))
    match value:
        case _ if id(value) in within:
            yield "itself"
        case None | bool() | int() | float() | complex() | str() | bytes() | PurePath() | Enum():
            yield f"{type(value).__name__} {value!r}"
        case Tensor():
            yield from parts(value.detach().cpu().numpy(), inner)
        case np.ndarray():
            yield f"array {value.dtype} {value.shape}"
            yield np.ascontiguousarray(value).tobytes()
        case Mapping():
            yield f"mapping {len(value)}"
            for key in sorted(value, key=repr):
                yield from parts(key, inner)
                yield from parts(value[key], inner)
        case list() | tuple() | range() | set() | frozenset():
            ordered = sorted(value, key=identity) if isinstance(value, set | frozenset) else value
            yield f"{type(value).__name__} {len(value)}"
            for one in ordered:
                yield from parts(one, inner)
        case type() | FunctionType() | ModuleType():
            yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        case _:
            yield from members(value, inner)


def members(value: object, within: tuple[int, ...]) -> Iterator[str | bytes]:
    yield f"{type(value).__module__}.{type(value).__qualname__}"
    own = getattr(value, "__dict__", None)
    if isinstance(value, nn.Module):
        own = {name: one for name, one in vars(value).items() if name not in FRAME} | {"weights": value.state_dict()}
    yield from parts({"shown": ADDRESS.sub("", repr(value))} if own is None else own, within)
