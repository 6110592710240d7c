"""A plan that fits: how long a training step of it takes on this machine, and what can be planned for the hours and the memory there are.

nnU-Net plans for a GPU of 8 GB and trains 250,000 steps whatever they cost; on a CPU such a plan can take months.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from ..diffusion.methods import Method
from ..errors import InputError
from ..files import write_text
from ..recipe import Recipe, build, parse
from ..types import Cond
from .plan import BUDGET, STEPS, Fingerprint, NoRoomError, Plan, fingerprint, header, plan, recipe

REFERENCE = 8.0  # GB, of the GPU that nnU-Net's budgets are for
LEAST = 2000  # steps; a plan that takes fewer is made smaller instead
LEVELS = 3  # that MONAI's DynUNet has at least
SOON = 2.0  # seconds; a first step that takes longer is not repeated for a steadier time


@dataclass(frozen=True)
class Fit:
    """A planned recipe in `path`, what a step of it takes here, and how many it has."""

    path: Path
    seconds: float
    steps: int

    @property
    def hours(self) -> float:
        return self.steps * self.seconds / 3600


def plan_recipe(
    root: str | Path,
    dims: Literal[2, 3],
    fold: int | None,
    out: Path,
    labels: Sequence[int] | None = None,
    mask_threshold: int | None = None,
    budget: int | None = None,
    memory: float | None = None,
    hours: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Fit:
    """Plan for the data in `root` and write the recipe that trains fold `fold` of five (None: the data's own split) to `out`.

    budget: voxels of a batch, as of `plan`; memory: GB, which scales nnU-Net's own. hours: of training on this machine; the steps become
    fewer, down to 2000, and then the patches smaller. Raises InputError where nothing fits.
    """
    if memory is not None and memory <= 0:
        raise InputError(f"--memory {memory:g}: give the memory that training may take, in GB")
    if hours is not None and hours <= 0:
        raise InputError(f"--hours {hours:g}: give the time that training may take")
    found = fingerprint(root, labels, mask_threshold)
    room = budget or round(BUDGET[dims] * (1 if memory is None else memory / REFERENCE))
    while True:
        made = planned(found, dims, room, memory, hours)
        write(found, made, fold, out, STEPS)
        say(f"timing a training step of patch {' x '.join(map(str, made.patch))}, batch {made.batch}")
        seconds = timed(build(parse(out)), made)
        steps = STEPS if hours is None else min(STEPS, int(hours * 3600 / seconds))
        if hours is None or steps >= LEAST:
            write(found, made, fold, out, steps)
            return Fit(out, seconds, steps)
        room = min(room, made.batch * prod(made.patch)) // 2


def planned(found: Fingerprint, dims: Literal[2, 3], room: int, memory: float | None, hours: float | None) -> Plan:
    try:
        made = plan(found, dims, room)
    except NoRoomError as error:
        raise InputError(nothing(found, memory, hours)) from error
    if made.levels < LEVELS:
        raise InputError(nothing(found, memory, hours))
    return made


def nothing(found: Fingerprint, memory: float | None, hours: float | None) -> str:
    limits = [f"--{name} {value:g}" for name, value in (("memory", memory), ("hours", hours)) if value is not None]
    return f"{' '.join(limits) or 'this budget'}: no plan for {found.root} fits; give more, or --dims 2"


def write(found: Fingerprint, made: Plan, fold: int | None, out: Path, steps: int) -> None:
    tree: dict[str, Any] = recipe(found, made, fold, steps)
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=160)
    write_text(out, "\n".join([*header(found, made, fold, out), text]))


def timed(made: Recipe, planned: Plan) -> float:
    """Seconds of a training step where training would run: one example, times the batch."""
    with torch.random.fork_rng():
        image = torch.randn(1, made.data.preprocess.channels, *planned.patch)
        mask = torch.zeros(1, 1, *planned.patch, dtype=torch.long)
    try:
        return planned.batch * step_seconds(made.method, mask, {"image": image})
    except torch.OutOfMemoryError as error:
        raise InputError(f"a patch of {planned.patch} does not fit into the memory of this device; plan with less (--memory)") from error


def step_seconds(method: Method, target: Tensor, cond: Cond) -> float:
    """Of a training step with these, on the GPU where there is one: the second of two steps, or the first where that is slow."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method, target = method.to(device).train(), target.to(device)
    cond = {name: part.to(device) for name, part in cond.items()}
    optimizer = torch.optim.SGD(method.parameters(), 1e-3)

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        method.loss(target, cond)["loss"].backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    first = step()
    return first if first > SOON else step()
