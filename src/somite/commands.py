"""What each command does, with the options that cli.py read."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import calibration, control, demo, evaluation, pipeline, quality, recipe, store
from .baselines.fit import plan_recipe
from .checkup.doctor import doctor
from .checkup.finding import some
from .cohort import DESCRIBED, FAILED, TABLE, answered, described, written
from .commands_analyses import analyse
from .data.sources import find_inputs, passed_over
from .distil.lesson import Lesson
from .distil.teach import distil
from .engines import Engine, Pool, Ray, Submitit
from .errors import InputError
from .export import export_run
from .files import read_json
from .generation import asked, generate
from .opening import as_calibrated, as_program, open_run
from .overview.advice import beginning, following
from .overview.folder import read
from .pipeline import Run
from .places import own, zoo
from .progress import tracked
from .publish import push, reduced
from .report.card import write_card
from .report.html import write_report
from .report.several import write_several
from .sampling import class_path, place_of
from .study.run import run_study
from .study.study import Asked, study_of
from .tasks.synthesis import Synthesis
from .tasks.task import Task
from .trainer.run import finished, train
from .web import make_site, serve
from .web.runtime import runtime
from .weights.importer import import_run, importers
from .wording import count

LONG = 100  # hours; beyond them a plan says how to make it shorter
FIRST = 3  # cases to look at that are named; quality.csv has all
FEW = 5  # validation cases; what is fitted on fewer is mostly chance
MANY = 10  # bad inputs that are named one by one


def train_(options: Namespace) -> None:
    path = recipe.path_of(options.recipe)
    if options.help:
        print(recipe.header(path) + "\n")
        recipe.parser().print_help()
        return
    out = options.out or Path("runs") / options.recipe.removesuffix(".yaml").removesuffix(".yml")
    train(recipe.parse(path, spelled(path, options.overrides)), out, options.recipe)
    if finished(out):
        write_card(pipeline.load(out, trust=True))
        print(f"next: {following(read(out))}")


def distil_(options: Namespace) -> None:
    path = recipe.path_of(options.into)
    told = tuple(spelled(path, options.overrides))
    lesson = Lesson(path, options.out, options.into, told, options.unlabelled, options.weight, options.temperature)
    distil(lambda: open_run(options), lesson, options.compare, tracked)


def spelled(path: Path, overrides: Sequence[str]) -> list[str]:
    """`--backbone RUN` as the recipe's own argument, wherever in its networks that is."""
    told = list(overrides)
    for i, text in enumerate(told):
        if text == "--backbone" or text.startswith("--backbone="):
            place = place_of(yaml.safe_load(recipe.dump(recipe.parse(path))), "backbone")
            if place is None:
                raise InputError(f"{path.stem} reads no other run's features; leave --backbone out, or train one of probe/...")
            told[i] = text.replace("--backbone", f"--{place}.source", 1)
    return told


def evaluate(options: Namespace) -> None:
    opened, judging = as_calibrated(options)
    if options.data:
        if options.out is None:
            raise InputError("--data evaluates on other data than the run's own; name a folder for the results with --out")
        opened = opened.on(options.data)
    elif opened.data.root is None:
        raise InputError(f"{options.run} came without its data; name a data set with --data DIR, and a folder for the results with --out")
    else:
        opened.unseen(opened.recipe.data.cases(options.split))
    if options.folds and options.out is None:
        raise InputError("--with scores an ensemble of several runs, which none of them should hold; name a folder with --out")
    out = options.out or (own(options.run) if options.split == "test" else own(options.run) / options.split)
    if not options.plain:
        for path in (control.path_of(opened.path), quality.path_of(opened.path)):
            calibration.unseen(path, opened.recipe.data.cases(options.split))
    summary = evaluation.evaluate(opened, options.split, out, tracked, judging)
    print(evaluation.table(summary))
    if out == options.run:
        write_card(pipeline.load(options.run, options.trust, "cpu"))  # as trained, without this command's options
    print(f"report: {write_report(opened, out)} (it explains each number)")


def predict(options: Namespace) -> None:
    cases = find_inputs(options.inputs, options.channel_files, print)
    opened, judging = as_calibrated(options)
    task, kinds = opened.recipe.task, chosen(options.save, opened.recipe.task)
    settings = described(opened, kinds, judging)
    if not options.overwrite:
        same_settings(options.out / DESCRIBED, settings)
    codec, members = opened.method.codec, opened.sampling.members * len(opened.runs)
    for case in cases:
        task.admit(case, kinds)
    files = {case.id: task.files(case.id, kinds, opened.recipe.data, codec, members) for case in cases}
    if judging is not None:
        files = {case: [*names, f"{case}{quality.ENDING}"] for case, names in files.items()}
    done = {case.id for case in cases if written(options.out, files[case.id])}
    if done and not options.overwrite:
        print(f"{len(done)} of {len(cases)} are done already")
    engine, there = spreading(options, opened), set() if options.overwrite else done
    outcomes = answered(opened, cases, options.out, kinds, settings, engine, there, tracked, judging)
    bad = [one for one in outcomes if one.state == FAILED]
    if len(bad) == len(cases) == 1:
        raise InputError(bad[0].reason)
    task.gather(options.out)
    first = cases[0].id
    made = ", ".join(name if len(cases) == 1 else name.replace(first, "CASE", 1) for name in files[first])
    print(f"{count(len(cases) - len(bad), 'case')} in {options.out} ({made}); what became of each: {options.out / TABLE}")
    if others := passed_over(options.inputs):
        print(f"not read: {some(others)}: save photographs as PNG or JPG, and name folders within folders one by one")
    if judging is not None:
        look_first(options.out)
    if bad:
        told = list(dict.fromkeys(one.reason for one in bad))
        more = f"; and {len(told) - MANY} more" if len(told) > MANY else ""
        raise InputError(f"{len(bad)} of {len(cases)} inputs could not be answered, all others are done: {'; '.join(told[:MANY])}{more}")


def look_first(out: Path) -> None:
    """Says which cases of a folder are likely to be the worst."""
    rows = quality.gather(out)
    told = ", ".join(f"{row['id']} ({row['predicted']:.2f}, {row['low']:.2f} to {row['high']:.2f})" for row in rows[:FIRST])
    print(f"look at these first, by their predicted score: {told}; all: {out / quality.TABLE}")


def spreading(options: Namespace, run: Run) -> Engine | None:
    """Whose workers do it; None: this process."""
    if options.engine == "pool" and options.workers == 1:
        return None
    return engine_of(options, options.out, gpus=int(next(run.method.parameters()).is_cuda))


def engine_of(options: Namespace, out: Path, gpus: int = 0) -> Engine:
    if options.engine == "ray":
        return Ray(options.workers, options.address, gpus)
    return Submitit(out / "slurm") if options.engine == "slurm" else Pool(options.workers)


def sample(options: Namespace) -> None:
    size = None if options.size is None else (options.size[0], options.size[1])
    run = open_run(options)
    labels, names = asked(run, options.count, options.labels)
    paths = generate(run, options.out, options.count, labels, names, size, options.first, tracked, spreading(options, run))
    print(f"{len(paths)} images in {options.out}; all of them: {options.out / 'sheet.png'}")


def chosen(save: str | None, task: Task) -> list[str]:
    """The outputs that --save names, or the task's usual ones."""
    kinds = list(task.by_default) if save is None else save.split(",")
    unknown = [kind for kind in kinds if kind not in task.saves]
    if unknown:
        raise InputError(f"--save {unknown[0]}: there is no such output; choose from {', '.join(task.saves)}")
    return kinds


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
    own(options.run)
    opened = open_run(options)
    asked = options.control or ("" if options.quality else "temperature")
    if asked == "temperature":
        if options.calibrated:
            raise InputError("--calibrated applies a temperature, and is for --control RISK=SHARE and --quality; leave it out to fit one")
        fit_temperature(opened)
    elif asked == "none":
        control.path_of(options.run).unlink(missing_ok=True)
        print(f"masks of {options.run} are at 0.5 again")
    elif asked:
        found = control.control(opened, control.wanted(asked, options.delta), tracked)
        name, cost = found["risk"].upper(), found["cost"]
        print(f"masks where the probability reaches {found['threshold']:.4g}: {found['guarantee']}")
        print(f"{name} of {found['groups']} validation patients: {found['on_validation']:.3f}, and {found['at_half']:.3f} at 0.5")
        print(f"what it costs: their {cost['risk'].upper()} is {cost['on_validation']:.3f}, and {cost['at_half']:.3f} at 0.5")
        print(f"in {control.path_of(options.run)}; evaluate and predict take it unless --plain is given")
    if options.quality:
        found = quality.calibrate(control.applied(opened), options.sign, options.level, tracked)
        print(
            f"a score foretold by {found['sign']} is off by {found['mean_error']:.3f} on average, and by {found['half_width']:.3f} at most in "
            f"{found['level']:.0%} of new patients' cases; in {quality.path_of(options.run)}, evaluate and predict tell it unless --plain is given"
        )


def fit_temperature(opened: Run) -> None:
    temperature = calibration.calibrate(opened, tracked)
    cases = len(opened.recipe.data.cases("val"))
    if cases < FEW:
        print(f"it was fitted on {count(cases, 'validation case')}, which is too few to rely on it")
    if not 0.051 < temperature < 19.9:
        print("the temperature is at the limit of the search: these probabilities are (nearly) all 0 or 1, or carry no information")
    print(f"temperature {temperature:.3f} in {calibration.path_of(opened.path)}; use it with --calibrated")


def compare(options: Namespace) -> None:
    rows, text = evaluation.comparison(options.first, options.second)
    print(text)
    if options.out:
        evaluation.write_rows(options.out, rows)


def report(options: Namespace) -> None:
    asked = (options.runs, options.out, options.split, options.cases, options.trust, options.device)
    print(f"report: {write_several(*asked, tracked)}")


def import_(options: Namespace) -> None:
    kinds = {one.kind for one in importers()}
    first, *rest = options.checkpoints
    kind = first if first in kinds else None
    paths = [Path(path) for path in (options.checkpoints if kind is None else rest)]
    out = import_run(paths, options.out, kind, options.heads, options.raw, options.autoencoder)
    makes_images = recipe.parse(out / "recipe.yaml").task.class_path == class_path(Synthesis)
    print(f"imported into {out}; try: {f'somite sample {out}' if makes_images else f'somite predict {out} IMAGE'} --out DIR")


def export(options: Namespace) -> None:
    out = export_run(as_program(options), options.out, options.format)
    print(f"exported into {out}; its README.md says how to use it" if out.is_dir() else f"exported into {out}")


def web(options: Namespace) -> None:
    out = make_site(as_program(options), options.out or own(options.run) / "web", lambda: runtime(options.runtime))
    print(
        f"the page is {out / 'index.html'}; browsers open it from a server alone: somite web {options.run} --serve, or put the folder on one"
    )
    if options.serve:
        serve(out, options.port, say=print)


def pack(options: Namespace) -> None:
    put = store.pack(recipe.parse(own(options.run) / "recipe.yaml"), options.run)
    told = f"{len(put)} frozen parts are in {options.run / store.FOLDER}" if put else "its recipe names no frozen part"
    print(f"{options.run} is whole: {told}; copy the folder wherever you like")


def push_(options: Namespace) -> None:
    if options.about and not options.about.is_file():
        raise InputError(f"--about {options.about} is not there; give a Markdown file on the data")
    about = options.about.read_text(encoding="utf-8") if options.about else ""
    run = pipeline.load(options.run, options.trust, "cpu")
    if options.dry_run:
        print(f"{reduced(run, options.dry_run, options.repository, about, options.licence)} holds what would be pushed; nothing was")
        return
    address = push(run, options.repository, options.public, about, options.licence)
    print(f"pushed to {address}; open it: somite predict {options.repository} IMAGE")


def zoo_(options: Namespace) -> None:
    for name, folder in zoo().items():
        print(f"{name:20} {recipe.header(folder / 'recipe.yaml').splitlines()[0]}")


def plan(options: Namespace) -> None:
    if options.out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {options.out}: a recipe is a YAML file; name it {options.out.stem}.yaml")
    made = plan_recipe(
        options.data, options.dims, options.fold, options.out, options.labels, memory=options.memory, hours=options.hours, say=print
    )
    print(f"planned in {made.path}: {made.steps:,} steps of {made.seconds:.3g} s on this machine, about {spell(made.hours)}")
    if made.hours > LONG and options.hours is None:
        print("--hours 24 plans what this machine can train in a day: fewer steps, and smaller patches where that is not enough")
    print(f"train it: somite train {made.path} --out RUN")


def spell(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def study(options: Namespace) -> None:
    out = options.out or Path("runs") / options.name
    engine = engine_of(options, out)  # a job of a study always has a process of its own
    asked = Asked(options.data, out, options.budget, options.seeds, tuple(options.only), options.threads, options.steps)
    print(run_study(study_of(options.name), asked, engine))
    print(f"table and verdict: {out / 'verdict.md'}")


def recipes(options: Namespace) -> None:
    for name, path in recipe.bundled().items():
        print(f"{name:28} {recipe.header(path).splitlines()[0]}")
    print("\nbegin with")
    for name, what in recipe.BEGIN.items():
        print(f"{name:28} {what}")


def demo_(options: Namespace) -> None:
    demo.demo(options.out, options.seed, tracked)


def doctor_(options: Namespace) -> int:
    """Returns the exit code: whether something forbids training."""
    found = doctor(options.data, options.recipe, options.overrides, options.quick, options.full, options.workers, tracked)
    print(found)
    if options.json:
        found.write(options.json)
    if found.good and options.recipe is None and (way := beginning(found.summary, options.overrides)):
        print(f"\nnext: {way}")
    return 0 if found.good else 1


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "demo": demo_,
    "doctor": doctor_,
    "train": train_,
    "distil": distil_,
    "evaluate": evaluate,
    "predict": predict,
    "sample": sample,
    "calibrate": calibrate,
    "compare": compare,
    "report": report,
    "import": import_,
    "export": export,
    "web": web,
    "pack": pack,
    "push": push_,
    "plan": plan,
    "analyse": analyse,
    "study": study,
    "recipes": recipes,
    "zoo": zoo_,
}
