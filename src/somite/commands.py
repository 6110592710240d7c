"""What each command does, with the options that cli.py read."""

from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import calibration, demo, evaluation, pipeline, recipe
from .analysis.calibration import analyse_calibration
from .analysis.fingerprint import analyse_fingerprint
from .analysis.placement import analyse_placement
from .analysis.raters import analyse_raters
from .analysis.timesteps import analyse_timesteps
from .baselines.folds import fold_ensemble
from .baselines.plan import plan_recipe
from .data.sources import NUCLEI, find_inputs
from .errors import InputError
from .files import read_json, sha256, write_json
from .pipeline import FIRINGS, Run
from .report.card import write_card
from .report.html import write_report
from .study import fair_trial_study
from .study.engines import Engine, Pool, Ray, Submitit
from .train.run import finished, train
from .weights.mednca import import_mednca
from .weights.unets import import_unet
from .writing import check, names, write, written


def train_(options: Namespace) -> None:
    path = recipe.path_of(options.recipe)
    if options.help:
        print(recipe.header(path) + "\n")
        recipe.parser().print_help()
        return
    out = options.out or Path("runs") / options.recipe.removesuffix(".yaml").removesuffix(".yml")
    train(recipe.parse(path, options.overrides), out, options.recipe)
    if finished(out):
        write_card(pipeline.load(out, trust=True))


def evaluate(options: Namespace) -> None:
    if options.tolerance is not None and not options.tolerance >= 0:
        raise InputError(f"--tolerance {options.tolerance}: NSD's tolerance is a distance in mm or px; give a number from 0 on")
    opened = open_run(options)
    if options.data:
        if options.out is None:
            raise InputError("--data evaluates on other data than the run's own; name a folder for the results with --out")
        opened.recipe.data.move(options.data)
    else:
        opened.unseen(opened.recipe.data.cases(options.split))
    if options.folds and options.out is None:
        raise InputError("--with scores an ensemble of several runs, which none of them should hold; name a folder with --out")
    out = options.out or (options.run if options.split == "test" else options.run / options.split)
    if options.tolerance is not None:
        opened.recipe.task.tolerance = options.tolerance
    summary = evaluation.evaluate(opened, options.split, out, options.seed, tracked)
    print(evaluation.table(summary))
    if out == options.run:
        write_card(pipeline.load(options.run, options.trust, "cpu"))  # as trained, without this command's options
    print(f"report: {write_report(opened, out)}")


def predict(options: Namespace) -> None:
    kinds = options.save.split(",")
    check(kinds)
    cases = find_inputs(options.inputs, options.channel_files)
    opened = open_run(options)
    members, channels = opened.recipe.task.members, opened.method.codec.channels
    settings = {
        "run": str(options.run.resolve()),
        "weights": [sha256(run.path / "weights.safetensors") for run in opened.runs],
        "members": members,
        "seed": options.seed,
        "firing": options.firing,
        "precision": options.precision,
        **opened.sampling,
        "calibrated": sha256(calibration.path_of(options.run)) if options.calibrated else False,
        "save": sorted(kinds),
    }
    described = options.out / "prediction.json"
    if not options.overwrite:
        same_settings(described, settings)
    done = [case for case in cases if written(options.out, names(case.id, kinds, members * len(opened.runs), channels, opened.values))]
    todo = cases if options.overwrite else [case for case in cases if case not in done]
    if len(todo) < len(cases):
        print(f"{len(done)} of {len(cases)} are done already")
    for case in tracked(todo):
        result = opened.predict(case, seed=options.seed)
        write_json(described, settings)
        write(result, options.out, kinds)
    print(f"{len(cases)} cases in {options.out}")


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Outputs of two different settings never stand side by side in one folder."""
    before = read_json(path) if path.exists() else settings
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        raise InputError(
            f"{path.parent} holds predictions made with another {changed[0]} ({before.get(changed[0])}); "
            "choose another --out or add --overwrite"
        )


def calibrate(options: Namespace) -> None:
    opened = open_run(options)
    temperature = calibration.calibrate(opened, options.seed, tracked)
    if not 0.051 < temperature < 19.9:
        print("the temperature is at the limit of the search: these probabilities are (nearly) all 0 or 1, or carry no information")
    print(f"temperature {temperature:.3f} in {calibration.path_of(options.run)}; use it with --calibrated")


def compare(options: Namespace) -> None:
    rows, text = evaluation.comparison(options.first, options.second)
    print(text)
    if options.out:
        evaluation.write_rows(options.out, rows)


def import_(options: Namespace) -> None:
    if options.kind == "mednca":
        out = import_mednca(options.checkpoints, options.out)
    elif len(options.checkpoints) == 1:
        out = import_unet(options.kind, options.checkpoints[0], options.out, options.heads)
    else:
        raise InputError(f"somite import {options.kind} takes one checkpoint, got {len(options.checkpoints)}")
    print(f"imported into {out}; try: somite predict {out} IMAGE --out DIR")


def plan(options: Namespace) -> None:
    if options.out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {options.out}: a recipe is a YAML file; name it {options.out.stem}.yaml")
    made = plan_recipe(options.data, options.dims, options.fold, options.out, options.labels)
    print(f"planned in {made}; train it: somite train {made} --out RUN")


def analyse(options: Namespace) -> None:
    match options.analysis:
        case "timesteps":
            out = options.out or options.run / "timesteps"
            found = analyse_timesteps(
                open_run(options), options.split, out, options.count, options.draws, options.limit, seed=options.seed, progress=tracked
            )
        case "raters":
            out = options.out or options.run / "raters"
            found = analyse_raters(open_run(options), out, options.split, options.sizes, options.seed, options.limit, tracked)
        case "placement":
            out = options.out or options.run / "placement"
            opened = open_run(options)
            found = analyse_placement(
                opened, options.table, out, options.counts, options.members, options.split, options.seed, options.limit, tracked
            )
        case "fingerprint":
            roots = [NUCLEI if root == "nuclei" else Path(root) for root in options.data]
            found = analyse_fingerprint(roots, options.out, options.size, options.train, seed=options.seed, progress=tracked)
        case _:
            runs = [pipeline.load(path, options.trust) for path in options.runs]
            found = analyse_calibration(runs, options.out, options.split, options.sizes, options.seed, tracked)
    print("\n".join(str(path) for path in found.values()))


def study(options: Namespace) -> None:
    out = options.out or Path("runs") / options.name
    if options.engine == "pool":
        engine: Engine = Pool(options.workers)
    else:
        engine = Ray(options.workers, options.address) if options.engine == "ray" else Submitit(out / "slurm")
    print(fair_trial_study(options.data, out, engine, options.budget, options.seeds, options.only, options.threads, options.steps))
    print(f"table and verdict: {out / 'verdict.md'}")


def recipes(options: Namespace) -> None:
    for name, path in recipe.bundled().items():
        print(f"{name:28} {recipe.header(path).splitlines()[0]}")


def demo_(options: Namespace) -> None:
    demo.demo(options.out, options.seed, tracked)


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "demo": demo_,
    "train": train_,
    "evaluate": evaluate,
    "predict": predict,
    "calibrate": calibrate,
    "compare": compare,
    "import": import_,
    "plan": plan,
    "analyse": analyse,
    "study": study,
    "recipes": recipes,
}


def open_run(options: Namespace) -> Run:
    if options.folds and options.calibrated:
        raise InputError("--calibrated applies the temperature of one run, which no ensemble of folds has; leave it or --with out")
    opened = fold_ensemble([options.run, *options.folds], options.trust, options.device)
    sample_as_asked(opened, options)
    if options.firing:
        opened.fire(FIRINGS[options.firing]())
    if options.precision == "bf16":
        opened.compute_in(torch.bfloat16)
    if options.calibrated:
        calibration.apply(opened)
    return opened


def sample_as_asked(opened: Run, options: Namespace) -> None:
    if options.members is not None:
        if options.members < 1:
            raise InputError(f"--members {options.members}: an ensemble has at least one member")
        for run in opened.runs:
            run.recipe.task.members = options.members
    if options.benefit:
        opened.place(options.benefit, opened.method.steps if options.steps is None else options.steps)
    elif options.steps is not None:
        opened.take(options.steps)
    if options.readout:
        opened.read(options.readout)


T = TypeVar("T")


def tracked(items: Iterable[T]) -> Iterator[T]:
    """A progress bar with the time left."""
    items = list(items)
    columns = TextColumn("cases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns) as progress:
        yield from progress.track(items)
