"""`make demo`: the whole way from images to a report, on 120 real microscopy images that come with the package."""

from collections.abc import Callable
from pathlib import Path

from .data.sources import NUCLEI
from .evaluation import evaluate, table
from .pipeline import load
from .recipe import parse, path_of
from .report.card import write_card
from .report.html import write_report
from .trainer.run import train

RECIPE = "medsegdiffnca/demo"


def demo(out: Path, seed: int, progress: Callable) -> None:
    """Train, segment the test images with an ensemble in one reverse step, evaluate, report; resumes where it was stopped."""
    report = out / "report.html"
    print(f"somite demo: nuclei in microscopy images, {NUCLEI}")
    train(parse(path_of(RECIPE), [f"--training.seed={seed}", "--training.workers=1"]), out, RECIPE)
    if report.exists():
        print(f"all is done already; delete {out} to start afresh\nreport: {report.resolve()}")
        return
    run = load(out)
    print("segmenting the test images")
    for case in progress(run.recipe.data.cases("test")):
        run.recipe.task.write(run.answer(case), out / "predictions", run.recipe.task.by_default)
    print("evaluating, with 95 % intervals")
    print(table(evaluate(run, "test", out, progress)))
    write_card(run)
    print(f"report: {write_report(run, out).resolve()}")
