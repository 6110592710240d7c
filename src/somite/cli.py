"""The command line. Torch is imported by the command that needs it, so that help answers at once."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import InputError

DESCRIPTION = "Diffusion models for medical images: train on your own data, get masks with calibrated uncertainty and an honest report."
FOOTER = "exit codes: 0 done, 2 your input needs a change (one line says which), 1 a fault of somite's. Research use only."


class Parser(argparse.ArgumentParser):
    """Errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help shows how")


def parser() -> Parser:
    made = Parser(prog="somite", description=DESCRIPTION, epilog=FOOTER)
    made.add_argument("--version", action="store_true", help="print the version")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    demo = commands.add_parser("demo", help="train, predict, evaluate and report on the bundled real images (minutes)")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=0)

    train = commands.add_parser("train", add_help=False, help="train a recipe on your data; the same line again resumes")
    train.add_argument("recipe", nargs="?", help="a bundled recipe (see `somite recipes`) or a YAML file")
    train.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    train.add_argument("-h", "--help", action="store_true", help="with a recipe: every option that can be overridden")
    train.epilog = "Every argument of the recipe is an option, e.g. --data.root DIR --training.steps 5000 --method.sampler.steps 10."

    evaluate = commands.add_parser("evaluate", help="score a run on its own data: rows.csv, metrics.json, report.html")
    common(evaluate)
    evaluate.add_argument("--split", default="test", help="default: test")
    evaluate.add_argument("--data", help="another data set in place of the run's own")
    evaluate.add_argument("--out", type=Path, help="default: the run folder (for --split test), else RUN/SPLIT")

    predict = commands.add_parser("predict", help="masks for images, volumes or folders of them")
    common(predict)
    predict.add_argument("inputs", nargs="+", type=Path, help="PNG, JPG, TIFF or NIfTI files, or folders of them")
    predict.add_argument("--out", type=Path, required=True, help="folder for the outputs")
    predict.add_argument("--save", default="mask,probability,spread", help="of mask,probability,spread,members")
    predict.add_argument("--overwrite", action="store_true", help="make outputs again that are there already")

    compare = commands.add_parser("compare", help="paired differences of two evaluated runs, case by case")
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)
    compare.add_argument("--out", type=Path, help="also write the table as CSV")

    import_ = commands.add_parser("import", help="published weights become a run")
    import_.add_argument("kind", choices=["mednca"])
    import_.add_argument("checkpoints", nargs="+", type=Path, help="mednca: model0.pth model1.pth")
    import_.add_argument("--out", type=Path, required=True)

    commands.add_parser("recipes", help="list the bundled recipes")
    return made


def common(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="a run folder")
    command.add_argument("--members", type=int, help="ensemble size (default: the recipe's)")
    command.add_argument("--steps", type=int, help="reverse steps (default: the recipe's)")
    command.add_argument("--seed", type=int, default=0, help="results are a function of (seed, case); default 0")
    command.add_argument("--firing", choices=["stochastic", "expected"], help="cellular automata: random cells, or their mean field")
    command.add_argument("--precision", choices=["32", "bf16"], default="32", help="arithmetic of cellular automata")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU where there is one)")
    command.add_argument("--trust", action="store_true", help="build classes from outside somite that the run names")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except InputError as error:
        message = str(error).rpartition("InputError: ")[2]  # a worker process sends its traceback along
        print(f"error: {message.strip()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from where it was", file=sys.stderr)
        return 130
    except OSError as error:
        from .files import full_disk

        explained = full_disk(error)
        if explained is None:
            raise
        print(f"error: {explained}", file=sys.stderr)
        return 2


def run(argv: list[str]) -> int:
    made = parser()
    options, overrides = made.parse_known_args(argv)
    if options.version:
        from . import __version__

        print(__version__)
        return 0
    if options.command is None:
        made.print_help()
        return 0
    if overrides and options.command != "train":
        raise InputError(f"unknown option {overrides[0]}; somite {options.command} --help lists those that there are")
    command = {"train": lambda o: train(o, overrides)}.get(options.command) or COMMANDS[options.command]
    command(options)
    return 0


def train(options: argparse.Namespace, overrides: list[str]) -> None:
    if options.help or options.recipe is None:
        return train_help(options.recipe)
    from .recipe import parse, path_of
    from .train.run import train

    out = options.out or Path("runs") / options.recipe.removesuffix(".yaml").removesuffix(".yml")
    train(parse(path_of(options.recipe), overrides), out)
    return None


def train_help(recipe: str | None) -> None:
    if recipe is None:
        print("usage: somite train RECIPE [--data.root DIR] [--out RUN] [--any.option VALUE ...]\n")
        print("Trains a recipe; the same line again resumes a run that was stopped. Every argument of a recipe is an option:")
        print("--data.root DIR, --training.steps 5000, --method.sampler.steps 10, --data.preprocess.size 256, ...\n")
        print("somite recipes                list the recipes\nsomite train RECIPE --help    all options of one recipe")
        return
    from .recipe import parser, path_of

    path = path_of(recipe)
    print(header(path) + "\n")
    parser().print_help()


def evaluate(options: argparse.Namespace) -> None:
    from .evaluation import evaluate, table
    from .report.html import write_report

    opened = open_run(options)
    if options.data:
        opened.recipe.data.move(options.data)
    out = options.out or (options.run if options.split == "test" else options.run / options.split)
    summary = evaluate(opened, options.split, out, options.seed, tracked)
    print(table(summary))
    print(f"report: {write_report(opened, out)}")


def predict(options: argparse.Namespace) -> None:
    from .data.sources import find_inputs
    from .files import write_json
    from .writing import check, names, write, written

    kinds = options.save.split(",")
    check(kinds)
    cases = find_inputs(options.inputs)
    opened = open_run(options)
    members, channels = opened.recipe.task.members, opened.method.codec.channels
    settings = {
        "run": str(options.run.resolve()),
        "members": members,
        "steps": opened.method.steps,
        "seed": options.seed,
        "firing": options.firing,
        "precision": options.precision,
        "save": sorted(kinds),
    }
    described = options.out / "prediction.json"
    same_settings(described, settings, options.overwrite)
    done = [case for case in cases if written(options.out, names(case.id, kinds, members, channels, opened.values))]
    todo = cases if options.overwrite else [case for case in cases if case not in done]
    if len(todo) < len(cases):
        print(f"{len(done)} of {len(cases)} are done already")
    for case in tracked(todo):
        result = opened.predict(case, seed=options.seed)
        write_json(described, settings)
        write(result, options.out, kinds)
    print(f"{len(cases)} cases in {options.out}")


def same_settings(path: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Outputs of two different settings never stand side by side in one folder."""
    if path.exists() and not overwrite:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise InputError(f"{path.parent} holds predictions made with another {changed[0]} ({before.get(changed[0])}); choose another --out or add --overwrite")


def compare(options: argparse.Namespace) -> None:
    from .evaluation import comparison, write_rows

    rows, text = comparison(options.first, options.second)
    print(text)
    if options.out:
        write_rows(options.out, rows)


def import_(options: argparse.Namespace) -> None:
    from .weights.mednca import import_mednca

    print(f"imported into {import_mednca(options.checkpoints, options.out)}; try: somite predict {options.out} IMAGE --out DIR")


def recipes(options: argparse.Namespace) -> None:
    root = Path(__file__).parent / "recipes"
    for path in sorted(root.rglob("*.yaml")):
        name = path.relative_to(root).with_suffix("").as_posix()
        print(f"{name:28} {header(path).splitlines()[0]}")


def demo(options: argparse.Namespace) -> None:
    from .demo import demo

    demo(options.out, options.seed, tracked)


COMMANDS = {"demo": demo, "evaluate": evaluate, "predict": predict, "compare": compare, "import": import_, "recipes": recipes}


def open_run(options: argparse.Namespace) -> Any:  # noqa: ANN401 - pipeline.Run, which must not be imported up here
    import torch

    from .pipeline import FIRINGS, load

    opened = load(options.run, options.trust, options.device)
    if options.members is not None:
        if options.members < 1:
            raise InputError(f"--members {options.members}: an ensemble has at least one member")
        opened.recipe.task.members = options.members
    if options.steps is not None:
        opened.take(options.steps)
    if options.firing:
        opened.fire(FIRINGS[options.firing]())
    if options.precision == "bf16":
        opened.compute_in(torch.bfloat16)
    return opened


def tracked(items: Any) -> Any:  # noqa: ANN401
    """A progress bar with the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns) as progress:
        yield from progress.track(items, description="cases")


def header(path: Path) -> str:
    """The comment that a recipe opens with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
