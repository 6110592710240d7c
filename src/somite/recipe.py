"""A recipe is one YAML file: class paths and their arguments, read into typed constructors by jsonargparse.

Every argument is overridable: `--method.sampler.steps=5`. No registry: a class path names any class; of recipes that come
with somebody else's run only somite's own classes are accepted.
"""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import takewhile
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .data.dataset import Data
from .diffusion.methods import Method
from .errors import InputError
from .store import find
from .tasks.task import Task
from .training import Training
from .trust import bounded
from .wording import meant

FRAME = ("Does not validate", "Subtypes:", "Errors:", "Problem with given class_path", "Expected a <class 'NoneType'>", "Given value type:")
PARSER_KEY = re.compile(r'Parser key "([^"]+)":')


@dataclass
class Recipe:
    task: Task
    data: Data
    method: Method
    training: Training


# What to begin with, by what decides where an object is, as measured (docs/results/compact.md, pretraining.md).
BEGIN = {
    "medsegdiffnca/small": "images whose objects show by colour or texture: skin, nuclei",
    "compact/feed-forward": "images where context finds the object: endoscopy",
    "ctpretrain/masked": "volumes, few of them with masks; then probe/fine-tuned",
    "classifier/small": "images with labels and no masks",
}


def path_of(name: str) -> Path:
    """The file of a bundled recipe ("medsegdiffnca/ph2") or of one's own (a path to a YAML file)."""
    own = Path(name)
    if own.suffix in (".yaml", ".yml"):
        if not own.is_file():
            raise InputError(f"the recipe {own} is not there; give a bundled one (somite recipes lists them) or the path of a YAML file")
        return own
    known = bundled()
    if name not in known:
        raise InputError(f"there is no recipe {name!r}{meant(name, known) or ';'} somite recipes lists those that there are")
    return known[name]


def bundled() -> dict[str, Path]:
    """Names and files of the recipes that come with somite."""
    root = Path(str(files("somite") / "recipes"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def header(path: Path) -> str:
    """The comment that a recipe opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False, prog="somite train RECIPE", default_env=False)
    made.add_argument("--config", action="config", help="a recipe file")
    made.add_subclass_arguments(Task, "task", required=True)
    made.add_class_arguments(Data, "data")
    made.add_subclass_arguments(Method, "method", required=True)
    made.add_class_arguments(Training, "training")
    return made


def parse(path: Path, overrides: Sequence[str] = ()) -> Namespace:
    """A recipe file with overrides, checked against the constructors but not yet built."""
    bounded(path)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parser().parse_args(["--config", str(path), *overrides])
    except (ArgumentError, yaml.YAMLError) as error:
        why = explained(error)
        way = mend(why)
        todo = f"; {way}" if way else f"{mistyped(error, path) or ';'} somite train RECIPE --help lists the options"
        name = next((name for name, file in bundled().items() if file == path), path)
        raise InputError(f"{name}: {why}{todo}") from error


def parse_data(overrides: Sequence[str]) -> Data:
    """Data alone, as `--data.root DIR --data.labels [0,1]` say, without a recipe."""
    alone = ArgumentParser(exit_on_error=False, prog="somite", default_env=False)
    alone.add_class_arguments(Data, "data")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            config = alone.parse_args(list(overrides))
    except (ArgumentError, yaml.YAMLError) as error:
        raise InputError(f"{explained(error)}; without a recipe only options of --data are understood") from error
    return instantiated(alone, config).data


def settled(config: Namespace, run: Path) -> Namespace:
    """A recipe about to be trained in the folder `run`, with what it leaves to others written out: what its backbone says of the data, and
    the names of classes. So a run knows them where the data and the backbone are not.
    """
    return with_classes(prepared_alike(config.clone(), run))


def prepared_alike(config: Namespace, run: Path) -> Namespace:
    """Of a network on another run's features that names no preprocessing: that run's, and its coordinates and body where none are named."""
    named = next((name for name, _ in config.method.items() if name.endswith(".backbone.source")), None)
    if named is None or config.data.preprocess is not None:
        return config
    backbone = config.method[named.removesuffix(".source")]
    try:
        source = find(backbone.source, backbone.digest, run)
    except InputError as error:
        raise InputError(f"{error}. A pretrained run is named by --backbone RUN; somite train ctpretrain/small makes one") from error
    if not (source / "recipe.yaml").is_file():
        return config  # a file of weights, of which nothing is known; a network that wants a run says so itself
    theirs = parse(source / "recipe.yaml").data
    for name in ("preprocess", "coordinates", "body"):
        if config.data[name] is None:
            config.data[name] = theirs[name]
    return config


def with_classes(config: Namespace) -> Namespace:
    """The names of the classes where the task needs labels, and how many they are for every `classes: null` of task and method."""
    alone = ArgumentParser(exit_on_error=False)
    alone.add_subclass_arguments(Task, "task")
    needs = alone.instantiate(Namespace(task=config.task)).task.needs
    if "labels" not in needs:
        return config
    names = Data(config.data.root, classes=config.data.classes).needing(needs).source.classes
    config.data.classes = list(names)
    for part in (config.task, config.method):
        for place in [name for name, value in part.items() if name.split(".")[-1] == "classes" and value is None]:
            part[place] = len(names)
    return config


def build(config: Namespace) -> Recipe:
    built = instantiated(parser(), config)
    return Recipe(built.task, built.data.needing(built.task.needs), built.method, built.training)


def instantiated(made: ArgumentParser, config: Namespace) -> Namespace:
    try:
        return made.instantiate(config)
    except ValueError as error:
        cause: BaseException | None = error  # jsonargparse wraps what a constructor says in its own words, once a level
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise cause or error from error


def dump(config: Namespace) -> str:
    """The resolved recipe as YAML: every default written out."""
    return parser().dump(config, skip_none=False, skip_link_targets=False)


def explained(error: BaseException) -> str:
    """What is wrong in one line. Of jsonargparse's tree of complaints: the option's full name, and the innermost of them."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    keys = [index for index, line in enumerate(lines) if PARSER_KEY.search(line)]
    if not keys:
        return " ".join(line.strip() for line in lines[:4])
    option = ".".join(PARSER_KEY.search(lines[index])[1] for index in keys)  # type: ignore[index]
    depth = indentation(lines[keys[-1]])
    inner = [line.strip(" -") for line in takewhile(lambda line: indentation(line) > depth, lines[keys[-1] + 1 :])]
    told = [line for line in inner if not line.startswith(FRAME)] or inner
    told = [line for line in told if line.startswith("No module named")] or told  # and so it is no file either
    return f"{option}: " + "; ".join(re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", line) for line in told)


def mend(why: str) -> str | None:
    """What to do about a class path that leads nowhere; None: it leads somewhere, or who knows."""
    lost = re.search(r"No module named '([\w.]+)'", why)
    if lost:
        name = lost[1]
        return (
            f"put the folder of {name.replace('.', '/')}.py on PYTHONPATH (PYTHONPATH=FOLDER somite ...), or install it; "
            "the author of a run has its files"
        )
    odd = re.search(r"module '([\w.]+)' has no attribute '\w+'", why)
    if odd and odd[1] in sys.modules:
        known = [name for name, one in vars(sys.modules[odd[1]]).items() if isinstance(one, type) and one.__module__ == odd[1]]
        return f"its classes are {', '.join(sorted(known))}" if known else None
    return None


def mistyped(error: BaseException, path: Path) -> str:
    """Which option of the recipe in this file was meant by one that there is not: `--steps` by the end of its name, `--training.stepz` by likeness."""
    wrong = re.search(r"unrecognized arguments: --([\w.-]+)", str(error))
    if wrong is None:
        return ""
    word = wrong[1].replace("-", ".")
    try:
        names = [f"--{name.replace('init_args.', '')}" for name in list(parse(path).keys())]
    except InputError:  # the file has a fault of its own
        return ""
    names.sort(key=lambda name: not name.startswith("--training."))  # --steps and --batch are training's before any other's
    return meant(next((name for name in names if name.endswith(f".{word}")), f"--{word}"), names)


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
