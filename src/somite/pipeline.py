"""A trained run, ready to use: `run = somite.load("runs/demo"); result = run.predict("image.png", members=10)`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from jsonargparse import Namespace
from safetensors import SafetensorError
from safetensors.torch import load_file

from .data.arrays import as_channels
from .data.dataset import Data
from .data.record import Case, Record, stem
from .diffusion.methods import Method
from .errors import InputError
from .nn.automaton import Cellular
from .places import folder_of
from .predict.ensemble import Model
from .recipe import Recipe, build, dump, parse
from .sampling import Sampling, overrides
from .store import located
from .tasks.task import Answer
from .trust import no_links, only_own

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Run:
    """A run folder in memory, and how it samples. Nothing is set on it: `at` gives another run of the same weights and data.

    `recipe.method.network` is the bare network. `folds`: further runs of a cross-validation; every run answers with its own
    preprocessing, and all members are fused. home: the data that it was trained on, where it was opened `on` others.
    """

    path: Path
    recipe: Recipe
    sampling: Sampling
    config: Namespace = field(repr=False)  # the resolved recipe, with the sampling's overrides
    folds: tuple["Run", ...] = ()
    home: Data | None = None

    @property
    def source(self) -> str:
        """The resolved recipe as YAML."""
        return dump(self.config)

    @property
    def method(self) -> Method:
        return self.recipe.method

    @property
    def data(self) -> Data:
        """The data that it is asked about."""
        return self.recipe.data

    @property
    def trained_on(self) -> Data:
        return self.home or self.data

    @property
    def runs(self) -> tuple["Run", ...]:
        return (self, *self.folds)

    def at(self, members: int | None = None, seed: int | None = None, **options: Any) -> "Run":  # noqa: ANN401
        """The same weights, sampled otherwise: steps=5, readout="cal", firing="expected" ... (`sampling.OPTIONS`).

        Raises InputError for an option that this run's recipe has no argument for, or a value that it refuses.
        """
        folds = tuple(fold.at(members, seed, **options) for fold in self.folds)
        changed = overrides(yaml.safe_load(self.source), **options) if options else {}
        return replace(self.under(changed, members, seed), folds=folds)

    def under(self, changed: dict[str, str], members: int | None = None, seed: int | None = None) -> "Run":
        """The same weights under overrides of the recipe's task and method."""
        sampling = self.sampling.but(members, seed, changed)
        if not changed:
            return replace(self, sampling=sampling)
        odd = [name for name in changed if not name.startswith(("--task.", "--method."))]
        if odd:
            raise InputError(f"{odd[0]} is no option of sampling; those begin with --task or --method")
        config = parse(self.path / "recipe.yaml", sampling.overrides)
        recipe = replace(built(located(config, self.path, lambda _: None)), data=self.recipe.data)
        with_weights(recipe.method, self.method.state_dict(), f"{', '.join(changed)}: these weights")
        recipe.method.to(next(self.method.parameters()).device).eval()
        return replace(self, recipe=recipe, sampling=sampling, config=config)

    def on(self, root: str) -> "Run":
        """The same run on another data set, with the run's own preprocessing."""
        return replace(self, recipe=replace(self.recipe, data=self.data.moved(root)), home=self.trained_on)

    def predict(
        self,
        image: "np.ndarray | Tensor | Image | str | Path | Case",
        members: int | None = None,
        seed: int | None = None,
        keep: bool = True,
    ) -> Answer:
        """Answer for one image or volume; a segmentation's answer is a `Result`: mask, probability, spread, members.

        image: a path (PNG, JPG, TIFF, NIfTI), a PIL image, or an array or tensor: (h, w), (h, w, 3) or (h, w, 4) as images are
        usually held, or (c, h, w), or (c, x, y, z); unsigned integers are scaled by their type's range, other numbers must be
        what the recipe expects. Alpha must be opaque.
        members: ensemble size (default: the recipe's). keep: False keeps no member apart, which saves the memory of large volumes.
        The result lies in the input's own geometry, and is a function of (seed, name of the case, members); an array's name is
        "array", a file's its name without suffix.
        """
        return self.at(members, seed).answer(self.record(image), keep)

    def answer(self, case: Case | Record, keep: bool = False) -> Answer:
        """What the run makes of a case of its data, or of one that has been read; with folds, `members` of each."""
        record = self.recipe.data.read(case) if isinstance(case, Case) else case
        return self.recipe.task.answer([run.model(record) for run in self.runs], record, self.sampling, keep)

    def model(self, record: Record) -> Model:
        task, data = self.recipe.task, self.recipe.data
        sample = data.sample(record, task.given)
        return Model(self.method, data.preprocess, task.cond(sample), task.shape(sample))

    def record(self, image: "np.ndarray | Tensor | Image | str | Path | Case") -> Record:
        if isinstance(image, Case):
            return self.recipe.data.read(image)
        if isinstance(image, str | Path):
            name = stem(Path(image))
            return self.recipe.data.read(Case(name, (Path(image),), None, name))
        data = self.recipe.data
        return Record(
            Case("array", (), None, "array"), "array", as_channels(image), None, data.values, None, None, tuple(data.classes or ())
        )

    def unseen(self, cases: list[Case]) -> None:
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
    def told(self) -> dict[str, Any]:
        """The sampling for people and files: everything that an answer depends on beside the weights."""
        cells = [module for module in self.method.modules() if isinstance(module, Cellular)]
        placed = {} if self.method.placed is None else {"timesteps": self.method.placed}
        return {
            "members": self.sampling.members,
            "seed": self.sampling.seed,
            "steps": self.method.steps,
            "readout": type(self.method.readout).__name__,
            "firing": sorted({type(one.firing).__name__ for one in cells}),
            "precision": sorted({str(one.arithmetic).removeprefix("torch.") for one in cells}),
            **placed,
            "overrides": list(self.sampling.overrides),
            **({"folds": [str(run.path) for run in self.runs]} if self.folds else {}),
        }


def load(path: str | Path, trust: bool = False, device: str | None = None) -> Run:
    """Open a run: a folder (recipe.yaml and weights.safetensors), one that comes with somite ("zoo/nuclei"), or the hub's ("org/name").

    trust: build classes from outside somite that the recipe names; only for runs whose origin you know.
    device: "cpu", "cuda", ...; by default the GPU where there is one. Raises InputError for what is missing or broken.
    """
    path = folder_of(path)
    if not (path / "recipe.yaml").is_file():
        raise InputError(f"{path} is not a run folder: it has no recipe.yaml; somite train makes one")
    check = (lambda _: None) if trust else only_own
    check(path / "recipe.yaml")
    if not trust:
        no_links(path)
    config = parse(path / "recipe.yaml")
    recipe = built(located(config, path, check))
    with_weights(recipe.method, weights(path), f"{path / 'weights.safetensors'} and recipe.yaml")
    recipe.method.to(usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))).eval()
    return Run(path, recipe, Sampling(recipe.task.members), config)


def built(config: Namespace) -> Recipe:
    """A recipe whose random start does not matter: torch's global generators stay as they are."""
    with torch.random.fork_rng():
        return build(config)


def with_weights(method: Method, state: dict[str, "Tensor"], what: str) -> None:
    """The method takes over these very tensors. Raises InputError where names or shapes differ."""
    wanted = method.state_dict()
    odd = sorted({*wanted} ^ {*state}) + [k for k in wanted if k in state and wanted[k].shape != state[k].shape]
    if odd:
        raise InputError(f"{what} do not fit: {len(odd)} entries differ, the first is {odd[0]}; both must come from the same run")
    method.load_state_dict(state, assign=True)


def usable(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"--device {device} cannot be used here ({why}); leave --device out to take what there is") from error


def weights(path: Path) -> dict[str, "Tensor"]:
    file = path / "weights.safetensors"
    if not file.is_file():
        raise InputError(
            f"{file} is missing: train on with `somite train` (weights are written at the first validation), or restore it from a copy"
        )
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is broken ({error}); restore it from a copy, or train again") from error
    bad = next((name for name, value in found.items() if not value.isfinite().all()), None)
    if bad:
        raise InputError(f"{file} holds NaN or infinite weights, first in {bad}; restore it from a copy, or train again")
    return found
