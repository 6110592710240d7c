"""The whole way in Python: `run = somite.train("medsegdiffnca/small", data="images", out="runs/mine")`, then `run.evaluate()`, `run.report()`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import control, evaluation, pipeline, quality
from .checkup import doctor as checkup
from .checkup.doctor import Checkup
from .places import own
from .publish import push
from .recipe import parse, path_of
from .report.card import write_card
from .report.html import write_report
from .tasks.task import Answer
from .trainer.run import train as train_run


@dataclass(frozen=True)
class Run(pipeline.Run):
    """A run folder in memory, with all that can be done with it: `predict`, `evaluate`, `report`, and `at` for another sampling."""

    def evaluate(
        self, split: str = "test", out: str | Path | None = None, progress: Callable[[Iterable], Iterable] = iter
    ) -> dict[str, Any]:
        """Score a split into a folder (by default the run's own for "test", else RUN/SPLIT): rows.csv, metrics.json and more.

        Returns what metrics.json holds: `["metrics"]["dice"]` has "mean", "low" and "high". Goes on where it was interrupted.
        """
        self.unseen(self.recipe.data.cases(split))
        return evaluation.evaluate(self, split, self._folder(split, out), progress)

    def report(self, split: str = "test", out: str | Path | None = None) -> Path:
        """Write report.html from an evaluation in the same folder; returns its path. Raises InputError without one."""
        folder = self._folder(split, out)
        path = write_report(self, folder)
        if folder == self.path:
            write_card(pipeline.load(self.path, trust=True, device="cpu"))  # as trained, without this run's sampling; it was opened before
        return path

    def controlled(self) -> "Run":
        """The same run with its masks at the threshold of `somite calibrate --control`, as `somite predict` takes it; as it is where there is
        none.
        """
        return control.applied(self)

    def quality(self, answer: Answer) -> dict[str, float] | None:
        """How good an answer of this run is likely to be (`somite calibrate --quality`): the sign that says so, the predicted score and its
        interval, "low" and "high"; None where nothing was calibrated. The answer must bring its members (`keep`).
        """
        judging = quality.judge(self)
        return None if judging is None else judging(answer)

    def push(self, repository: str, public: bool = False, about: str = "", licence: str | None = None) -> str:
        """Give the run to the Hugging Face hub, private unless `public`; returns its address.

        about: of what data it was trained on, in Markdown, for its card; the first line stands for it in lists. licence: as the hub names
        licences, "cc-by-4.0". Raises InputError where the hub refuses.
        """
        return push(self, repository, public, about, licence)

    def _folder(self, split: str, out: str | Path | None) -> Path:
        if out is not None:
            return Path(out)
        return own(self.path) if split == "test" else own(self.path) / split


def load(path: str | Path, trust: bool = False, device: str | None = None) -> Run:
    """Open a run: a folder, one that comes with somite ("zoo/nuclei"), or the Hugging Face hub's ("org/name", "org/name@revision").

    trust: build classes from outside somite that its recipe names; only for runs whose origin you know.
    device: "cpu", "cuda", ...; by default the GPU where there is one. Raises InputError for what is missing or broken.
    """
    opened = pipeline.load(path, trust, device)
    return Run(**{field.name: getattr(opened, field.name) for field in fields(opened)})


def train(recipe: str | Path, data: str | Path | None = None, out: str | Path | None = None, **overrides: Any) -> Run:  # noqa: ANN401
    """Train a recipe (a bundled one by name, or a YAML file) and open the run; called again it goes on, or opens what is done.

    data: images and masks, as `--data.root`. out: the run folder (default: runs/RECIPE). overrides: any option of the recipe, with two
    underscores for a dot: training__steps=500, method__sampler__steps=10. Raises InputError as the command line does.
    """
    name = str(recipe)
    given = {} if data is None else {"data.root": data}
    given |= {key.replace("__", "."): value for key, value in overrides.items()}
    folder = Path(out) if out is not None else Path("runs") / name.removesuffix(".yaml").removesuffix(".yml")
    train_run(parse(path_of(name), [f"--{key}={written(value)}" for key, value in given.items()]), folder, name)
    return load(folder, trust=True)


def doctor(data: str | Path, recipe: str | Path | None = None, quick: bool = False, full: bool = False, **overrides: Any) -> Checkup:  # noqa: ANN401
    """Check a data set before training: `.good`, `.findings` (the most important first), `.write(json)`; printed, it is the command's text.

    recipe: also try a step of it, for time and memory here. quick: pixels of a sample alone; full: of all files. overrides: as of `train`,
    data__labels=[0, 1, 2]. Raises InputError where there are no data to look at.
    """
    told = [f"--{key.replace('__', '.')}={written(value)}" for key, value in overrides.items()]
    return checkup.doctor(data, recipe, told, quick, full)


def written(value: object) -> str:
    """As the command line has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
