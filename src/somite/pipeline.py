"""A trained run, ready to use: `run = somite.load("runs/demo"); result = run.predict("image.png", members=10)`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .data.record import Case, Record, stem
from .diffusion.methods import Method
from .diffusion.readout import READOUTS
from .diffusion.timesteps import benefit_knots
from .errors import InputError
from .nn.automaton import Automaton, Expected, Firing, Stochastic
from .predict.ensemble import Result
from .predict.fusion import decide
from .recipe import Recipe, build, only_own, parse
from .tasks.task import Scored


@dataclass
class Run:
    """A run folder in memory. `recipe.method.network` is the bare network.

    `folds`: further runs of a cross-validation; every run segments with its own preprocessing, and all members are fused.
    """

    path: Path
    recipe: Recipe
    folds: tuple["Run", ...] = ()

    @property
    def method(self) -> Method:
        return self.recipe.method

    def predict(self, image: np.ndarray | str | Path | Case, members: int | None = None, seed: int = 0) -> Result:
        """Segment one image or volume.

        image: a path (PNG, JPG, TIFF, NIfTI) or an array: (h, w), (h, w, 3) or (h, w, 4) as images are usually held, or
        (c, h, w), or (c, x, y, z); unsigned integers are scaled by their type's range, other numbers must be what the
        recipe expects. Alpha must be opaque.
        members: ensemble size (default: the recipe's). The result lies in the input's own geometry, and is a function of
        (seed, name of the case, members); an array's name is "array", a file's its name without suffix.
        """
        if members is not None and members < 1:
            raise InputError(f"--members {members}: an ensemble has at least one member")
        return self.segment(self.record(image), members, seed)

    def segment(self, case: Case | Record, members: int | None = None, seed: int = 0) -> Result:
        """`predict` for a case of the run's data, or one that has been read; with folds, `members` of each."""
        record = self.recipe.data.read(case) if isinstance(case, Case) else case
        results = [one.recipe.task.predict(one.method, one.recipe.data.preprocess, record, seed, members) for one in self.runs]
        if not self.folds:
            return results[0]
        # nnU-Net averages the folds' logits; here: probabilities, as of every ensemble in somite, so that calibration compares.
        found = np.concatenate([result.members for result in results])
        probability = self.recipe.task.fusion(found)
        return Result(record, decide(probability), probability, found.std(0), found)

    def evaluate(self, cases: Iterable[Case], seed: int = 0) -> Iterator[Scored]:
        """Score labelled cases; with folds, cases that are `unseen`, such as those of "test"."""
        task, data = self.recipe.task, self.recipe.data
        if not self.folds:
            yield from task.evaluate(self.method, data, cases, seed)
        else:
            yield from (task.score(self.segment(case, seed=seed)) for case in cases)

    def unseen(self, cases: Iterable[Case]) -> None:
        """Raises InputError where a fold was trained or validated on one of these cases, which may not score the ensemble."""
        if not self.folds:
            return
        wanted = {case.id for case in cases}
        for run in self.runs:
            for split in ("train", "val"):
                both = sorted(wanted & {case.id for case in run.recipe.data.cases(split)})
                if both:
                    raise InputError(
                        f"{both[0]} is a {split} case of {run.path}; score folds on cases that none has seen: --split test, or --data"
                    )

    @property
    def runs(self) -> tuple["Run", ...]:
        return (self, *self.folds)

    def record(self, image: np.ndarray | str | Path | Case) -> Record:
        if isinstance(image, np.ndarray):
            array = as_channels(image)
            return Record(Case("array", (), None, "array"), "array", array, None, self.values, None, None)
        return self.recipe.data.read(image if isinstance(image, Case) else Case(stem(Path(image)), (Path(image),), None, stem(Path(image))))

    @property
    def values(self) -> tuple[int, ...] | None:
        labels = self.recipe.data.labels
        return None if labels is None else tuple(labels)

    def take(self, steps: int) -> None:
        """Sample with another number of reverse steps."""
        for run in self.runs:
            run.method.take(steps)

    def read(self, readout: str) -> None:
        """Which answer of the network counts: "sample", or MedSegDiff's "cal" or "fused"."""
        for run in self.runs:
            run.method.readout = READOUTS[readout]()

    def place(self, benefit: str | Path, steps: int) -> None:
        """Sample at `steps` timesteps, placed by the benefit of the image that `somite analyse timesteps` measured."""
        knots = benefit_knots(benefit)
        for run in self.runs:
            run.method.place(knots, steps)

    @property
    def sampling(self) -> dict[str, Any]:
        """What an answer depends on beside weights, members and seed."""
        told = {"steps": self.method.steps, "readout": type(self.method.readout).__name__, "arithmetic": self.arithmetic}
        placed = {} if self.method.placed is None else {"timesteps": self.method.placed}
        return {**told, **placed, **({"folds": [str(run.path) for run in self.runs]} if self.folds else {})}

    def fire(self, firing: Firing) -> None:
        """How the cells of an automaton act at inference. Raises InputError for networks without cells."""
        for automaton in self.automata("--firing"):
            automaton.firing = firing

    def compute_in(self, arithmetic: torch.dtype) -> None:
        """The precision of an automaton's matrix products; its cells stay in float32."""
        for automaton in self.automata("--precision"):
            automaton.arithmetic = arithmetic

    @property
    def arithmetic(self) -> list[str]:
        """How an automaton's cells fire and compute, level by level; empty for other networks."""
        cells = [module for module in self.recipe.method.modules() if isinstance(module, Automaton)]
        return [f"{type(one.firing).__name__} {one.arithmetic}".replace("torch.", "") for one in cells]

    def automata(self, option: str) -> list[Automaton]:
        found = [module for run in self.runs for module in run.method.modules() if isinstance(module, Automaton)]
        if not found:
            raise InputError(f"{option} is for cellular automata, and this run's network has no cells; leave it out")
        return found


FIRINGS = {"stochastic": Stochastic, "expected": Expected}


def load(path: str | Path, trust: bool = False, device: str | None = None) -> Run:
    """Open a run folder (recipe.yaml and weights.safetensors).

    trust: build classes from outside somite that the recipe names; only for runs whose origin you know.
    device: "cpu", "cuda", ...; by default the GPU where there is one. Raises InputError for what is missing or broken.
    """
    path = Path(path)
    if not (path / "recipe.yaml").is_file():
        raise InputError(f"{path} is not a run folder: it has no recipe.yaml; somite train makes one")
    if not trust:
        only_own(path / "recipe.yaml")
    recipe = build(parse(path / "recipe.yaml"))
    recipe.method.load_state_dict(weights(path, recipe))
    recipe.method.to(usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))).eval()
    return Run(path, recipe)


def usable(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"--device {device} cannot be used here ({why}); leave --device out to take what there is") from error


def weights(path: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    file = path / "weights.safetensors"
    if not file.is_file():
        raise InputError(
            f"{file} is missing: train on with `somite train` (weights are written at the first validation), or restore it from a copy"
        )
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is broken ({error}); restore it from a copy, or train again") from error
    wanted = recipe.method.state_dict()
    odd = sorted({*wanted} ^ {*found}) + [k for k in wanted if k in found and wanted[k].shape != found[k].shape]
    if odd:
        raise InputError(
            f"{file} does not fit {path / 'recipe.yaml'}: {len(odd)} entries differ, the first is {odd[0]}; both must come from the same run"
        )
    return found


def as_channels(array: np.ndarray) -> np.ndarray:
    """(h, w), (h, w, 3|4), (c, h, w) or (c, x, y, z) -> (c, *s) float32; integers scaled to [0, 1] by their type's range."""
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] not in (1, 3):
        array = np.moveaxis(opaque(array), -1, 0)
    if array.ndim not in (3, 4):
        raise InputError(f"an array of shape {array.shape} is no image; give (h, w), (h, w, 3), (c, h, w) or (c, x, y, z)")
    scale = np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.unsignedinteger) else 1
    array = (array / np.float32(scale)).astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError("the array holds NaN or infinite values; replace them before predicting")
    return array


def opaque(array: np.ndarray) -> np.ndarray:
    """(h, w, 3 or 4) -> (h, w, 3). Raises InputError where alpha says that colours are not what they seem."""
    full = np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.integer) else 1
    if (array[..., 3:] != full).any():
        raise InputError("the array has transparent pixels, whose colour is undefined; flatten it onto a background")
    return array[..., :3]
