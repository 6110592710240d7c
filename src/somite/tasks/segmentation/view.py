"""What a report shows of a segmentation."""

from collections.abc import Mapping
from typing import Any

from ...metrics.selective import aurc
from ...wording import count, interval, number
from ..view import Breakdown, Found, Meaning, Number, Plot, Section, View
from . import figures
from .words import MEANINGS, POOLED, SIGNS

ORDER = list(MEANINGS)
LARGE = {"dice", "nsd", "hd95", "ece_all"}  # shown at the top of the page


def view(found: Found) -> View:
    summary, labels = found.summary, len(found.summary["by_label"])
    rule = summary["empty_rule"].removeprefix("Empty masks: ")
    breakdowns = [Breakdown("Dice by label", "Mean Dice", summary["by_label"])] if labels > 1 else []
    return View(
        headline="dice",
        name="Dice",
        numbers=numbers(summary),
        over=f" and {labels} labels" if labels > 1 else "",
        notes=[("Empty masks.", rule[:1].upper() + rule[1:]), *([controlled(summary["control"])] if "control" in summary else [])],
        breakdowns=[*breakdowns, *([control(summary["control"])] if "control" in summary else [])],
    )


def controlled(control: dict[str, Any]) -> tuple[str, str]:
    """What the masks were made for."""
    name, found = control["risk"].upper(), control["found"]
    told = f"Masks are where the probability reaches {number(control['threshold'])}, not 0.5. It was chosen on the validation cases so that {control['guarantee']}."
    if found is None:
        return "Risk control.", f"{told} No case here can say what it is."
    beside = f"{number(control['at_half']['mean'])} at 0.5" if control["at_half"] else "nothing at 0.5"
    return "Risk control.", f"{told} Here the {name} is {number(found['mean'])} ({interval(found)}), beside {beside}."


def control(control: dict[str, Any]) -> Breakdown:
    """The risk at the chosen threshold and at 0.5; a row counts patients."""
    parts = {f"masks at {number(control['threshold'])}, as chosen": control["found"], "masks at 0.5": control["at_half"]}
    name = control["risk"].upper()
    return Breakdown(f"Risk control: {name} at most {control['target']:g}", f"Mean {name}", {k: v for k, v in parts.items() if v})


def sections(found: Found) -> list[Section]:
    first = [look_first(found)] if found.tables.get("quality") else []
    return [*first, *([calibration(found)] if found.tables.get("reliability") else []), where(found)]


def look_first(found: Found) -> Section:
    """The cases that were foretold to be the worst, and how well that was foretold."""
    rows, told = figures.numbered(found.tables["quality"]), found.summary["quality"]
    plots = [
        Plot(
            "Look at these first",
            figures.look_first(rows),
            "The cases of lowest predicted Dice, each with its interval and the Dice that it has",
            f"The lowest predicted Dice of {count(len(rows), 'case')}, the lowest first, with the interval that holds in {told['level']:.0%} of new "
            "patients' cases. Dots: the Dice that came, which a new case has none of.",
        ),
        Plot(
            "Predicted and true Dice",
            figures.foretold(rows),
            "The Dice of each case against what was predicted without the truth; a band is the interval",
            f"Every case; {sum(row['low'] <= row['score'] <= row['high'] for row in rows)} of {len(rows)} lie in the band.",
        ),
    ]
    risk = [1 - row["score"] for row in rows]
    area, best = aurc(risk, [row["sign"] for row in rows]), aurc(risk, [row["score"] for row in rows])
    text = [
        ("", f"Foretold by {SIGNS[told['sign']]}, without the truth; fitted on the validation cases."),
        (
            "Order.",
            f"Keeping the surest cases first, 1 - Dice is {number(area)} on average over all shares kept (AURC); without order it is "
            f"{number(sum(risk) / len(risk))}, in the ideal order {number(best)}.",
        ),
    ]
    return Section("first", "Look at these first", plots, text)


def numbers(summary: dict[str, Any]) -> list[Number]:
    """Means over cases, then what is pooled over pixels. One member has no spread to tell of."""
    known = {name: found for name, found in summary["metrics"].items() if summary["members"] > 1 or name != "nqm"}
    terms = {"tolerance": f"{summary['tolerance']:g} {summary['unit']}", "unit": summary["unit"], "boundary": summary["boundary"]}
    ordered = sorted(known, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    of_cases = [Number(told(MEANINGS.get(name, Meaning(name, "", "", False)), terms), known[name], name in LARGE) for name in ordered]
    pooled = summary["pooled"]
    return of_cases + [Number(told(one, terms), pooled[name], name in LARGE) for name, one in POOLED.items() if name in pooled]


def told(meaning: Meaning, terms: dict[str, Any]) -> Meaning:
    return Meaning(meaning.name.format(**terms), meaning.better, meaning.text.format(**terms), meaning.share)


def calibration(found: Found) -> Section:
    summary = found.summary
    pooled, bins = summary["pooled"], summary["bins"]
    plot = Plot(
        "Does 0.8 mean 80 %?",
        figures.reliability(found.tables["reliability"]),
        "Observed share of foreground against predicted probability in three regions; below, the pixels in each bin",
        f"On the dashed line, of the pixels given probability p a share p is foreground. Pixels of all cases pooled; {bin_rule(bins)}. "
        "Below: pixels in each bin, on a logarithmic scale.",
    )
    regions = (("all", "all pixels"), ("boundary", "boundary"), ("foreground", "foreground"))
    errors = [
        f"{name} {number(pooled[f'ece_{region}']['mean'])} ({interval(pooled[f'ece_{region}'])})"
        for region, name in regions
        if f"ece_{region}" in pooled
    ]
    text = [
        ("", f"Expected calibration error (ECE) of the pooled pixels: {'; '.join(errors)}."),
        (
            "All pixels",
            "are mostly easy background, which makes any model look well calibrated. The boundary is the band within "
            f"{summary['boundary']} px of the truth's edge, where it is hard.",
        ),
        (
            "Foreground",
            "is where the truth or the mask is foreground. That region is chosen by looking at the truth: below 0.5 it holds positives "
            "only, so its curve lies at 1 there and even a perfect model shows a gap. Use it to compare methods, not as a distance from "
            "calibration.",
        ),
    ]
    floor = summary.get("sampler_floor")
    if floor:
        text.append(
            (
                f"{floor['members']} members have a floor.",
                f"The vote shares of a perfect sampler with so few members would themselves have an ECE of {number(floor['ece'])} (pixels' "
                f"true probabilities taken as Beta({floor['alpha']:.2g}, {floor['beta']:.2g}), fitted to the votes). The vote shares here "
                f"have {number(floor['votes'])}.",
            )
        )
    return Section("calibration", "Calibration", [plot], text)


def beside(found: Mapping[str, Found]) -> list[Section]:
    """The calibration of several runs, a panel a region."""
    bins = {name: one.tables["reliability"] for name, one in found.items() if one.tables.get("reliability")}
    if not bins:
        return []
    text = (
        "On the dashed line, of the pixels given probability p a share p is foreground. Pixels of all cases pooled; "
        f"{bin_rule(next(iter(found.values())).summary['bins'])}. The pooled calibration errors are in the table of all metrics."
    )
    alt = "Observed share of foreground against predicted probability, a panel for all pixels, boundary and foreground, a line a run"
    members = {one.summary["members"] for one in found.values()}
    uneven = [("Members.", "The runs have other numbers of members, and a mean of many is softer whatever it is a mean of.")]
    plot = Plot("Does 0.8 mean 80 %?", figures.reliabilities(bins), alt, text, wide=True)
    return [Section("calibration", "Calibration", [plot], uneven if len(members) > 1 else [])]


def bin_rule(bins: int) -> str:
    return f"{bins} bins of equal width, closed on the right, (i/{bins}, (i+1)/{bins}]; a probability of 0 belongs to the first"


def where(found: Found) -> Section:
    """Where it works."""
    summary, rows = found.summary, found.rows
    counted = "cases" if len(summary["by_label"]) == 1 else "cases and labels"
    plots = [
        Plot(
            "Dice by size of the foreground",
            figures.by_size(rows, summary),
            "Dice of each case by tercile of size, with means and 95 % intervals",
            f"Terciles of the true foreground's size within this split; beneath each, its number of {counted}. "
            "Diamonds: means with 95 % intervals.",
        )
    ]
    if summary["members"] > 1 and len(rows) > 1:
        lost = f"{number(summary['selective']['aurc'])}, of which {number(summary['selective']['excess_aurc'])}"
        plots.append(
            Plot(
                "Does it know when it is wrong?",
                figures.selective(rows),
                "Mean of 1 - Dice of the cases kept, against the share of cases kept",
                "Keep only the cases that the ensemble is surest of (confidence: minus NQM); the risk is 1 - Dice. A useful uncertainty lies "
                f"near the ideal order and rises to the right. Area under the curve (AURC) {lost} is lost against the ideal order.",
            )
        )
    for axis, name, text in (
        ("members", "members", "The first 1, 2, 3 ... members of each ensemble; mean over cases with a 95 % interval."),
        ("steps", "reverse steps", "One member each; mean over cases with a 95 % interval."),
    ):
        curve = [row for row in found.tables.get("curves", []) if row["axis"] == axis]
        if len({row["at"] for row in curve}) > 1:
            title, alt = f"Dice and the number of {name}", f"Mean Dice against the number of {name}"
            plots.append(Plot(title, figures.curve(curve, axis), alt, f"{text} The axis does not begin at 0."))
    return Section("where", "Where it works", plots)


def facts(rows: list[dict[str, Any]]) -> list[str]:
    """What is said of a case beside its pictures."""
    if len(rows) == 1:
        return [f"size: {rows[0]['tercile']}"]
    return [f"label {row['label']}: {number(float(row['dice']))} ({row['tercile']})" for row in rows]
