"""The run that a command names, sampled as its options say."""

from argparse import Namespace

import torch

from . import calibration, control, quality
from .analysis.placement import placed
from .baselines.folds import fold_ensemble
from .environment import has_bfloat16
from .errors import InputError
from .export.admit import deterministic
from .pipeline import Run

SHORT = (
    "sampler",
    "steps",
    "readout",
    "firing",
    "tile",
    "convolutions",
    "tolerance",
    "heredity",
    "updates",
    "guidance",
    "extractor",
    "overlap",
)  # options of sampling by the command line's names


def open_run(options: Namespace) -> Run:
    """The run or folds that a command names, sampled as its options say."""
    if options.folds and options.calibrated:
        raise InputError("--calibrated applies the temperature of one run, which no ensemble of folds has; leave it or --with out")
    opened = fold_ensemble([options.run, *options.folds], options.trust, options.device)
    asked = {name: getattr(options, name) for name in SHORT if getattr(options, name) is not None}
    if options.precision == "bf16":
        asked["arithmetic"] = arithmetic(next(opened.method.parameters()).device)
    opened = opened.at(options.members, options.seed, **asked)
    if options.benefit:
        opened = placed(opened, options.benefit)
    return calibration.calibrated(opened) if options.calibrated else opened


def as_calibrated(options: Namespace) -> tuple[Run, quality.Judge | None]:
    """The run as it answers for its user: with the threshold that was chosen for it, and by what its answers are judged, unless --plain
    leaves them out.
    """
    opened = open_run(options)
    if options.plain:
        return opened, None
    opened = control.applied(opened)
    return opened, quality.judge(opened)


def as_program(options: Namespace) -> Run:
    """The run as it answers where nothing is drawn but noise, with the threshold that was chosen for that."""
    opened = deterministic(open_run(options))
    return opened if options.plain else control.applied(opened)


def arithmetic(device: torch.device) -> str:
    if has_bfloat16(device):
        return "bfloat16"
    print(
        "this processor has no bfloat16 arithmetic, and imitating it is many times slower: computing in float32 instead of --precision bf16"
    )
    return "float32"
