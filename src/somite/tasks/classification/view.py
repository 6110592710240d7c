"""What a report shows of a classification."""

from ...wording import interval, number
from ..view import Breakdown, Found, Number, Plot, Section, View
from . import figures
from .whole import Set
from .words import LARGE, MEANINGS, POOLED

DECISION = {
    True: "The answer is the most probable class: no threshold was chosen.",
    False: "A label is answered from a probability of 0.5 on: no threshold was chosen.",
}


def view(found: Found) -> View:
    summary = found.summary
    of_cases = [Number(MEANINGS[name], one, name in LARGE) for name, one in summary["metrics"].items() if name in MEANINGS]
    pooled = [Number(one, summary["pooled"][name], name in LARGE) for name, one in POOLED.items() if name in summary["pooled"]]
    rest = "Each class is judged against the rest, and the mean is over classes that occur in the set; AUC and mAP do not depend on a threshold."
    columns = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity"}
    breakdowns = [
        Breakdown(f"{title} by class", title, summary["by_class"][name]) for name, title in columns.items() if name in summary["by_class"]
    ]
    return View(
        headline="correct",
        name="accuracy",
        numbers=[*of_cases, *pooled],
        notes=[("Decisions.", DECISION[summary["exclusive"]]), ("Means over classes.", rest)],
        breakdowns=breakdowns,
        ranked=("p_truth", "probability of the truth"),
    )


def sections(found: Found) -> list[Section]:
    whole = Set.of(found.tables["probabilities"])
    ranking = [
        Plot(
            "ROC",
            figures.roc(whole),
            "Sensitivity against 1 - specificity for each class",
            "Each class against the rest, at every threshold. The dashed line is chance.",
        ),
        Plot(
            "Precision and recall",
            figures.precision_recall(whole),
            "Precision against recall for each class",
            "At every threshold; dashed, the share of cases that have the class, which is what chance gives.",
        ),
    ]
    plots = [
        Plot(
            "Does 0.8 mean 80 %?",
            figures.reliability(whole, found.summary["bins"]),
            "How often answers are right against how sure they are; below, their number",
            "On the dashed line, of the answers with probability p a share p is right. Below: answers in each bin.",
        )
    ]
    ece = found.summary["pooled"]["ece"]
    text = ("", f"Expected calibration error: {number(ece['mean'])} (95 % interval {interval(ece)}); few cases alone make it larger.")
    calibration = Section("calibration", "Calibration", plots, [text])
    if whole.exclusive:
        confusion = Plot(
            "Confusion",
            figures.confusion(whole),
            "Cases by true class and answer",
            "Rows: the truth; columns: the answer. Shades are shares of a row, numbers are cases.",
        )
        ranking.insert(0, confusion)
    return [Section("classes", "Classes", ranking), calibration]
