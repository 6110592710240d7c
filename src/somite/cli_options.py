"""Options that several commands of the command line share."""

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from .errors import InputError
from .wording import meant

WRONG_COMMAND = re.compile(r"argument COMMAND: invalid choice: '(.*)' \(choose from (.*)\)$")
NAME = re.compile(r"[\w-]+")


class Parser(argparse.ArgumentParser):
    """Errors of one line."""

    def error(self, message: str) -> NoReturn:
        wrong = WRONG_COMMAND.match(message)
        if wrong:  # the list of all commands hides what is wrong
            raise InputError(
                f"there is no command {wrong[1]!r}{meant(wrong[1], re.findall(NAME, wrong[2])) or ';'} somite --help lists them"
            )
        raise InputError(f"{message}; {self.prog} --help shows how")


# Options of commands that open a run. Each command offers those that it heeds, so that the parser refuses the others.
OPTIONS: dict[str, dict[str, Any]] = {
    "run": {"type": Path, "help": "a run folder, one of `somite zoo`, or org/name[@revision] on the Hugging Face hub"},
    "--with": {
        "dest": "folds",
        "type": Path,
        "nargs": "+",
        "default": [],
        "metavar": "RUN",
        "help": "further folds, for one ensemble",
    },
    "--members": {"type": int, "help": "ensemble size (default: the recipe's)"},
    "--steps": {"type": int, "help": "reverse steps (default: the recipe's)"},
    "--benefit": {"type": Path, "metavar": "CSV", "help": "place the steps by the benefit.csv of `analyse timesteps`"},
    "--sampler": {"choices": ["ddim", "ancestral", "dpm-solver++"], "help": "another way through the same steps (default: the recipe's)"},
    "--readout": {"choices": ["sample", "cal", "fused"], "help": "which answer of MedSegDiff counts"},
    "--seed": {"type": int, "default": 0, "help": "results are a function of (seed, case); default 0"},
    "--firing": {
        "choices": ["stochastic", "expected", "hashed"],
        "help": "cellular automata: random cells, their mean field, or random cells that do not depend on the tile",
    },
    "--tile": {"type": int, "metavar": "CELLS", "help": "cellular automata: large images in windows of so many cells a side, to the bit"},
    "--precision": {"choices": ["32", "bf16"], "default": "32", "help": "arithmetic of cellular automata"},
    "--convolutions": {"choices": ["winograd", "direct"], "help": "SDSeg on a CPU: fast (default), or torch's own"},
    "--overlap": {"type": float, "metavar": "SHARE", "help": "of windows, where the run cuts images into windows (default: the recipe's)"},
    "--calibrated": {"action": "store_true", "help": "apply the temperature that `somite calibrate` fitted"},
    "--plain": {
        "action": "store_true",
        "help": "leave out what `somite calibrate` chose: masks at 0.5 in place of a controlled threshold, no foretold quality",
    },
    "--device": {"help": "cpu, cuda, cuda:1 ... (default: the GPU where there is one)"},
    "--trust": {"action": "store_true", "help": "build classes from outside somite that the run names"},
}
RUN = ("run", "--seed", "--firing", "--tile", "--precision", "--convolutions", "--device", "--trust")  # whatever the network is asked
SAMPLING = ("--members", "--steps", "--sampler", "--benefit", "--readout", "--overlap")  # how a case is segmented

PROGRAM = ("--steps", "--sampler", "--readout", "--calibrated", "--plain", "--trust")  # how a run is sampled that becomes one program


def offer(command: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        command.add_argument(name, **OPTIONS[name])


def engines(command: argparse.ArgumentParser) -> None:
    """Who does the work of a command that consists of many independent pieces."""
    told = "processes here, a Ray cluster, or a Slurm array, which see these folders too (default: pool)"
    command.add_argument("--engine", choices=["pool", "ray", "slurm"], default="pool", help=told)
    command.add_argument("--workers", type=int, default=1, help="pieces at a time (pool and local ray; default: 1)")
    command.add_argument("--address", help="of a running Ray cluster")
