"""The one door to randomness.

Everything random in somite draws from torch's generators through `normal` and `uniform`. Outside of any context
these are torch's global generators, which training re-seeds at every step (`step_seed`), so that a run that was
killed resumes bit for bit. Inside `seeded(seed, names)` row i of every draw comes from a generator of its own,
seeded by (seed, names[i]): a member of an ensemble is the same whether it is drawn alone or in a batch.

What must be known of one place without the rest (`placed`) is a hash of a key and that place; keys are drawn as all else is.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from .types import Shape


def derive(*key: object) -> int:
    """A 63-bit seed from any printable key: equal keys give equal seeds on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Rows:
    """One generator for each row of a batch, made on the device where it is first needed."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds
        self._generators: dict[torch.device, list[Generator]] = {}

    def on(self, device: torch.device) -> list[Generator]:
        if device not in self._generators:
            self._generators[device] = [Generator(device).manual_seed(seed) for seed in self.seeds]
        return self._generators[device]


class Parts(Rows):
    """A generator for each part of a row, seeded by the row's own generator when it is first needed."""

    def __init__(self, whole: Rows, rows: Sequence[int]) -> None:
        super().__init__([])
        self.whole, self.rows = whole, rows

    def on(self, device: torch.device) -> list[Generator]:
        if device not in self._generators:
            own = self.whole.on(device)
            seeds = [int(torch.randint(2**62, (), generator=own[row], device=device)) for row in self.rows]
            self._generators[device] = [Generator(device).manual_seed(seed) for seed in seeds]
        return self._generators[device]


_rows: ContextVar[Rows | None] = ContextVar("rows", default=None)


@contextmanager
def seeded(seed: int, names: Sequence[object]) -> Iterator[None]:
    """Draw row i from the stream (seed, names[i]); torch's global generators are left as they were."""
    token = _rows.set(Rows([derive(seed, name) for name in names]))
    try:
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, *names))  # for what draws without this module, dropout say
            yield
    finally:
        _rows.reset(token)


@contextmanager
def parts(rows: Sequence[int]) -> Iterator[None]:
    """The batch within is of parts of rows, such as windows: part i draws from a stream of its own that row rows[i] began. Nothing
    changes outside of `seeded`, nor for rows whose parts draw nothing.
    """
    whole = _rows.get()
    if whole is None:
        yield
        return
    token = _rows.set(Parts(whole, rows))
    try:
        yield
    finally:
        _rows.reset(token)


def step_seed(seed: int, step: int, rank: int) -> None:
    """Make all that training draws in this step a function of (seed, step, rank)."""
    torch.manual_seed(derive("train", seed, step, rank))


def generators(device: torch.device) -> list[Generator] | None:
    """The rows' generators, for libraries that take them (diffusers does); None outside of `seeded`."""
    rows = _rows.get()
    return None if rows is None else rows.on(device)


def mark(device: torch.device) -> list[Tensor]:
    """Where the streams of random numbers are now, for `rewind`."""
    rows = generators(device)
    return [everyones(device).get_rng_state()] if rows is None else [g.get_state() for g in rows]


def rewind(marked: list[Tensor], device: torch.device) -> None:
    """What was drawn since `mark` is drawn again."""
    rows = generators(device)
    if rows is None:
        everyones(device).set_rng_state(marked[0])
    else:
        for generator, state in zip(rows, marked, strict=True):
            generator.set_state(state)


def everyones(device: torch.device) -> Any:  # noqa: ANN401 - a module
    """What holds torch's global generator of a device."""
    return torch if device.type == "cpu" else torch.get_device_module(device)


def normal(shape: Shape, device: torch.device) -> Tensor:
    """Standard normal noise of this shape; axis 0 is the batch."""
    return _draw(torch.randn, shape, device)


def uniform(shape: Shape, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1) of this shape; axis 0 is the batch."""
    return _draw(torch.rand, shape, device)


def keys(rows: int, device: torch.device) -> list[int]:
    """A 62-bit number for each row, from its stream: keys for `placed`."""
    return _draw(partial(torch.randint, 2**62), (rows,), device).tolist()


def placed(key: int, count: int, start: Sequence[int], stop: Sequence[int], device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), float64 with 53 random bits, at the places from `start` to before `stop`: each is a function of the
    key, a count and its place. A splitmix64 (Steele, Lea & Flood 2014) for each axis, begun at what the axis before it gave.
    """
    number = mixed(torch.tensor(key, device=device), torch.tensor(count, device=device))
    for a, b in zip(start, stop, strict=True):
        number = mixed(number[..., None], torch.arange(a, b, device=device))
    return unsigned(number, 11).double() * 2.0**-53


def mixed(seed: Tensor, at: Tensor) -> Tensor:
    """Number `at` of splitmix64's stream that begins at `seed`: 64-bit integers that wrap around."""
    z = seed + (at + 1) * (0x9E3779B97F4A7C15 - 2**64)
    z = (z ^ unsigned(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ unsigned(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ unsigned(z, 31)


def unsigned(z: Tensor, by: int) -> Tensor:
    """z shifted to the right, with zeros coming in."""
    return (z >> by) & (2 ** (64 - by) - 1)


def _draw(draw, shape: Shape, device: torch.device) -> Tensor:  # noqa: ANN001
    rows = generators(device)
    if rows is None:
        return draw(shape, device=device)
    if len(rows) != shape[0]:
        raise ValueError(f"the batch has {shape[0]} rows but the random door was opened for {len(rows)} names")
    drawn = [draw(shape[1:], generator=g, device=device) for g in rows]
    return drawn[0][None] if len(drawn) == 1 else torch.stack(drawn)
