"""Med-NCA's released checkpoints (github.com/MECLabTUDA/M3D-NCA, MIT, (c) 2023 John Kalkhof) become a run folder.

A checkpoint is one level: p0, p1 (c, c, 3, 3) perceive, fc0 (h, 3c) thinks, fc1 (c, h) acts. The official code convolves
images whose two axes are swapped, so the kernels are transposed here.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from ..errors import InputError
from ..recipe import build, parse, path_of
from .foreign import write_run
from .importer import Asked, Importer, State

ORIGIN = "Med-NCA, Kalkhof et al. 2023 (arXiv 2302.03473); github.com/MECLabTUDA/M3D-NCA, Tutorial_MedNCA_Hippocampus"
WANTED = {"fc0.weight", "fc0.bias", "fc1.weight", "p0.weight", "p0.bias", "p1.weight", "p1.bias"}
LICENCE = "MIT, (c) 2023 John Kalkhof, if these are the files released there; otherwise that of their author"


class MedNCAImporter(Importer):
    """The sizes of the cells come from the checkpoints. What these do not say is the hippocampus tutorial's: one image channel, 16
    updates a level, slices of 64 x 64. Where yours was trained otherwise, change recipe.yaml.
    """

    kind, system, files = "mednca", "Med-NCA", 2

    def recognises(self, names: Collection[str]) -> bool:
        return {*names} == WANTED

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        sizes = [checked(weights, path) for weights, path in zip(states, paths, strict=True)]
        if sizes[0] != sizes[1]:
            first, second = (f"{path} has {c} channels and {h} hidden units" for path, (c, h) in zip(paths, sizes, strict=True))
            raise InputError(f"{first}, {second}; both levels are of one size, so give those of one training")
        (channels, hidden), _ = sizes
        config = parse(path_of("mednca/hippocampus"), [f"--method.network.channels={channels}", f"--method.network.hidden={hidden}"])
        method = build(config).method
        method.load_state_dict({f"network.levels.{i}.{k}": v for i, weights in enumerate(states) for k, v in translated(weights).items()})
        return write_run(out, config, method, paths, ORIGIN, LICENCE)


IMPORTERS = [MedNCAImporter()]


def checked(weights: State, path: Path) -> tuple[int, int]:
    """(channels, hidden), inferred from fc1 and then demanded of everything else."""
    missing, odd = sorted(WANTED - {*weights}), sorted({*weights} - WANTED)
    if missing or odd:
        differ = "; ".join(f"{word} {', '.join(names[:4])}" for word, names in (("it lacks", missing), ("it has", odd)) if names)
        raise InputError(f"{path} is no level of a Med-NCA: {differ}")
    if weights["fc1.weight"].ndim != 2:
        shape = tuple(weights["fc1.weight"].shape)
        raise InputError(f"{path} is no level of a Med-NCA: fc1.weight has shape {shape}, wanted (channels, hidden)")
    c, h = weights["fc1.weight"].shape
    shapes = {"fc0.weight": (h, 3 * c), "fc0.bias": (h,)}
    for name in ("p0", "p1"):
        shapes |= {f"{name}.weight": (c, c, 3, 3), f"{name}.bias": (c,)}
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise InputError(f"{path} is no level of a Med-NCA: {name} has shape {tuple(weights[name].shape)}, wanted {shape}")
    for name, value in weights.items():
        if not value.isfinite().all():
            raise InputError(f"{path} is damaged: {name} holds NaN or infinite values; copy it again from its origin")
    return c, h


def translated(weights: State) -> State:
    """The official names and axes -> an Automaton's."""
    return {
        "perceive.weight": torch.cat([weights["p0.weight"], weights["p1.weight"]]).transpose(2, 3),
        "perceive.bias": torch.cat([weights["p0.bias"], weights["p1.bias"]]),
        "think.weight": weights["fc0.weight"],
        "think.bias": weights["fc0.bias"],
        "act.weight": weights["fc1.weight"],
    }
