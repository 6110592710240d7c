"""Do controlled thresholds keep what they promise, and do foretold scores know the bad cases? Fills in docs/results/risk-control.md.

    python benchmarks/risk_control.py NAME=RUN_OF_CELLS,RUN_OF_A_U_NET ... --out docs/results

Each run answers the validation and test cases of its data once (kept in --kept, so that a second call is quick). Of these cases random
halves of the patients calibrate, the others test, 200 times: the risk of the others at the chosen threshold and at 0.5, and the coverage
of foretold Dice. Then the area under the risk-coverage curve of all cases, by each sign, with intervals over patients.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import somite
from somite.analysis.figures import save
from somite.environment import environment
from somite.files import write_json, write_text
from somite.metrics import risk as metric
from somite.metrics.conformal import grouped, width
from somite.metrics.intervals import Interval, reweighted_interval
from somite.metrics.risk import COST, PLAIN, RISKS, THRESHOLDS, choose
from somite.metrics.selective import aurc, risk_coverage
from somite.metrics.uncertainty import entropy
from somite.progress import tracked
from somite.quality import Signed, risen
from somite.style import BLUE, GREEN, GREY, INK, VERMILION, styled

TARGETS = (("fnr", 0.1), ("fpr", 0.04), ("fdr", 0.2))
SPLITS, DELTA, LEVEL, RESAMPLES = 200, 0.1, 0.9, 1000
PAGE = "risk-control"


@dataclass
class Pool:
    """The cases of one run: risks at all thresholds, Dice, signs that need no truth (larger is surer), patients."""

    data: str
    name: str
    usual: str
    groups: np.ndarray
    dice: np.ndarray
    risks: dict[str, np.ndarray]
    signs: dict[str, np.ndarray]


def pools(given: str, kept: Path) -> Iterator[Pool]:
    """NAME=CELLS,U-NET: the automaton with ten members and with one, the U-Net."""
    data, _, paths = given.partition("=")
    cells, unet = map(Path, paths.split(","))
    yield pool(data, "automaton, 10 members", cells, 10, ("members", "expected"), kept)
    yield pool(data, "automaton, 1 member", cells, 1, ("convergence", "expected"), kept)
    yield pool(data, "U-Net", unet, 1, ("expected",), kept)


def pool(data: str, name: str, path: Path, members: int, signs: tuple[str, ...], kept: Path) -> Pool:
    file = kept / f"{data}-{name.replace(' ', '-').replace(',', '')}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, **answered(somite.load(path, device="cpu").at(members), signs))
    with np.load(file) as found:
        risks, told = ({key: found[key] for key in keys} for keys in (RISKS, (*signs, "entropy")))
        return Pool(data, name, signs[0], found["groups"], found["dice"], risks, told)


def answered(run: somite.Run, signs: tuple[str, ...]) -> dict[str, np.ndarray]:
    asked = {name: Signed(run, name) for name in signs}
    found: dict[str, list] = {name: [] for name in ("groups", "dice", "entropy", *RISKS, *signs)}
    for case in tracked([*run.data.cases("val"), *run.data.cases("test")]):
        result = run.answer(case, keep=True)
        found["groups"].append(case.group)
        found["dice"].append(run.recipe.task.goodness(result))
        found["entropy"].append(-entropy(result.probability[0].clip(0, 1)).mean())
        for name, values in (run.recipe.task.risks(result) or {}).items():
            found[name].append(values)
        for name, sign in asked.items():
            found[name].append(sign(result))
    return {name: np.array(values) for name, values in found.items()}


def halves(groups: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which cases calibrate, and the order of the patients; the others test."""
    names, random = np.unique(groups), np.random.default_rng(seed)
    for _ in range(SPLITS):
        order = random.permutation(names)
        yield np.isin(groups, order[: len(names) // 2]), order


def of_patients(one: Pool, risk: str) -> tuple[np.ndarray, np.ndarray]:
    """The patients for whom a risk has a meaning, and its mean over their cases at each threshold."""
    told = ~np.isnan(one.risks[risk][:, 0])
    return np.unique(one.groups[told]), grouped(one.risks[risk], one.groups)


def controlled(one: Pool, risk: str, target: float, seed: int) -> dict:
    """Over the splits: the risk of the test patients at the chosen threshold, at 0.5, and the other risk at both."""
    rows, plain, means = [], metric.at(PLAIN), {name: of_patients(one, name) for name in (risk, COST[risk])}
    for calibrates, _ in halves(one.groups, seed):
        chosen = one.groups[calibrates]
        names, losses = means[risk]
        threshold = choose(risk, losses[np.isin(names, chosen)], target, DELTA)
        if threshold is not None:
            place = metric.at(threshold)
            of = {name: losses[~np.isin(names, chosen)].mean(0) for name, (names, losses) in means.items()}
            rows.append((of[risk][place], of[risk][plain], of[COST[risk]][place], of[COST[risk]][plain], threshold))
    told = {"data": one.data, "run": one.name, "risk": risk, "target": target, "splits": len(rows), "patients": len(np.unique(one.groups))}
    if not rows:
        return told
    found = np.array(rows)
    return told | {
        "realised": float(found[:, 0].mean()),
        "two_errors": float(2 * found[:, 0].std(ddof=1) / np.sqrt(len(rows))),
        "above": float((found[:, 0] > target).mean()),
        "plain": float(found[:, 1].mean()),
        "other": float(found[:, 2].mean()),
        "other_plain": float(found[:, 3].mean()),
        "threshold": float(np.median(found[:, 4])),
        "all": found[:, 0].tolist(),
        "all_plain": found[:, 1].tolist(),
    }


def foretold(one: Pool, seed: int) -> dict:
    """Over the splits: how often the interval holds, how wide it is, and by how much the Dice is missed; beside the mean alone."""
    sign, rows = one.signs[one.usual], []
    for calibrates, order in halves(one.groups, seed):
        fitted = np.isin(one.groups, order[: len(order) // 4])
        held, tests = calibrates & ~fitted, ~calibrates
        points, values = risen(sign[fitted], one.dice[fitted])
        half = width(np.abs(one.dice - np.interp(sign, points, values))[held], one.groups[held], LEVEL)
        alone = width(np.abs(one.dice - one.dice[fitted].mean())[held], one.groups[held], LEVEL)
        errors = np.abs(one.dice - np.interp(sign, points, values))[tests]
        holds = grouped((errors <= half).astype(float), one.groups[tests]).mean()
        rows.append((holds, half, errors.mean(), alone, np.abs(one.dice[tests] - one.dice[fitted].mean()).mean()))
    found = np.array(rows, dtype=float)
    names = ("coverage", "half_width", "error", "half_width_of_mean", "error_of_mean")
    told = {name: float(value) for name, value in zip(names, found.mean(0), strict=True)}
    return {
        "data": one.data,
        "run": one.name,
        "sign": one.usual,
        **told,
        "two_errors": float(2 * found[:, 0].std(ddof=1) / np.sqrt(SPLITS)),
    }


def ranked(one: Pool) -> dict:
    """AURC of all cases by each sign, the mean risk (no order) and the ideal order; each sign's difference from entropy."""
    lost = 1 - one.dice

    def of(confidence: np.ndarray, beside: np.ndarray | None = None) -> Callable[[np.ndarray], np.ndarray]:
        def measured(weights: np.ndarray) -> np.ndarray:
            found = []
            for weight in weights:
                drawn = np.repeat(np.arange(len(lost)), weight.astype(int))
                other = 0.0 if beside is None else aurc(lost[drawn], beside[drawn])
                found.append(aurc(lost[drawn], confidence[drawn]) - other)
            return np.array(found)

        return measured

    def shown(found: Interval) -> list[float]:
        return [found.mean, found.low, found.high]

    areas = {"random": np.zeros_like(lost), **one.signs, "oracle": -lost}
    told = {name: shown(reweighted_interval(of(sign), one.groups, resamples=RESAMPLES)) for name, sign in areas.items()}
    differences = {
        name: shown(reweighted_interval(of(sign, one.signs["entropy"]), one.groups, resamples=RESAMPLES))
        for name, sign in one.signs.items()
        if name != "entropy"
    }
    return {"data": one.data, "run": one.name, "cases": len(lost), "aurc": told, "less_entropy": differences}


def tables(controls: list[dict], quality: list[dict], ranks: list[dict]) -> str:
    about = environment()
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {about['processor']}, one thread, torch {about['packages']['torch']}; seed 0, {SPLITS} splits.",
        "",
        "| data | run | risk, target | realised, two standard errors | splits above | at 0.5 | the other risk, at 0.5 | threshold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in controls:
        head = f"| {row['data']} | {row['run']} | {row['risk'].upper()} {row['target']:g}"
        if not row["splits"]:
            lines.append(f"{head} | no threshold in any split | | | | |")
            continue
        few = f" ({row['splits']} splits)" if row["splits"] < SPLITS else ""
        lines.append(
            f"{head} | {row['realised']:.4f} ± {row['two_errors']:.4f}{few} | {row['above']:.0%} | {row['plain']:.4f} "
            f"| {COST[row['risk']].upper()} {row['other']:.3f}, {row['other_plain']:.3f} | {row['threshold']:.3f} |"
        )
    lines += [
        "",
        "| data | run | sign | interval holds (wanted 90 %) | half width | mean error of Dice | half width, error by the mean alone |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['data']} | {row['run']} | {row['sign']} | {row['coverage']:.3f} ± {row['two_errors']:.3f} | {row['half_width']:.3f} "
            f"| {row['error']:.3f} | {row['half_width_of_mean']:.3f}, {row['error_of_mean']:.3f} |"
            for row in quality
        ),
        "",
        "| data | run | no order | by | AURC | less that of entropy | entropy | ideal order |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ranks:
        areas = {name: f"{a:.3f} [{b:.3f}, {c:.3f}]" for name, (a, b, c) in row["aurc"].items()}
        for name, (a, b, c) in row["less_entropy"].items():
            lines.append(
                f"| {row['data']} | {row['run']} | {areas['random']} | {name} | {areas[name]} | {a:+.3f} [{b:+.3f}, {c:+.3f}] "
                f"| {areas['entropy']} | {areas['oracle']} |"
            )
    return "\n".join(lines)


@styled
def figure(found: list[Pool], controls: list[dict]) -> Figure:
    """Above, the FNR of test patients over the splits, controlled and at 0.5; below, risk against coverage. Of the ten members."""
    shown = [one for one in found if one.name.endswith("10 members")]
    made = Figure(figsize=(3.3 * len(shown), 5.4), layout="constrained")
    for one, (above, below) in zip(shown, made.subplots(2, len(shown), squeeze=False).T, strict=True):
        row = next(row for row in controls if (row["data"], row["run"], row["risk"]) == (one.data, one.name, "fnr"))
        for values, colour, label in ((row["all_plain"], GREY, "masks at 0.5"), (row["all"], BLUE, "masks at the chosen threshold")):
            above.hist(values, bins=np.linspace(0, 1.05 * max(*row["all"], *row["all_plain"]), 61), color=colour, alpha=0.65, label=label)
            above.axvline(float(np.mean(values)), color=colour, linewidth=1.6)
        above.axvline(row["target"], color=VERMILION, linestyle=(0, (4, 2)), label="target")
        above.set(title=one.data, xlabel="FNR of test patients", yticks=[])
        lost = 1 - one.dice
        below.axhline(lost.mean(), color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="no order")
        for name, sign, colour in (
            ("entropy", one.signs["entropy"], INK),
            ("agreement of members", one.signs["members"], BLUE),
            ("ideal order", -lost, GREEN),
        ):
            below.plot(*risk_coverage(lost, sign), color=colour, label=name)
        below.set(xlabel="share of cases kept, the surest first", ylim=(0, None))
    made.axes[0].set_ylabel("splits")
    made.axes[len(shown)].set_ylabel("mean of 1 - Dice")
    made.axes[len(shown) - 1].legend(loc="upper center", fontsize=7)
    made.axes[len(shown)].legend(loc="upper right", fontsize=7)
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="+", metavar="NAME=CELLS,UNET", help="run folders by data set")
    options.add_argument("--kept", type=Path, default=Path("risk-control.kept"), help="folder for what is kept of the answers")
    options.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    found = [one for given in chosen.runs for one in pools(given, chosen.kept)]
    controls = [controlled(one, risk, target, 0) for one in found for risk, target in TARGETS]
    quality, ranks = [foretold(one, 0) for one in found], [ranked(one) for one in found]
    text = tables(controls, quality, ranks)
    print(text)
    page = chosen.out / f"{PAGE}.md"
    marks = "<!-- made by benchmarks/risk_control.py -->", "<!-- until here -->"
    if page.is_file():
        made = f"{marks[0]}\n\n{text}\n\n{marks[1]}"
        write_text(
            page,
            re.sub(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", lambda _: made, page.read_text(encoding="utf-8"), flags=re.DOTALL),
        )
    save(figure(found, controls), chosen.out, PAGE)
    numbers = [{key: value for key, value in row.items() if not key.startswith("all")} for row in controls]
    write_json(
        chosen.out / f"{PAGE}.json",
        {"control": numbers, "quality": quality, "aurc": ranks, "thresholds": len(THRESHOLDS), "environment": environment()},
    )


if __name__ == "__main__":
    main()
