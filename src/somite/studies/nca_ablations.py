"""What MedSegDiffNCA's paper claims (arXiv 2501.02447), tested one thing at a time, and the knobs that the paper does not have.

The base is its best variant, small: two levels a factor 4 apart, CBAM, the RGB loss; in one reverse step. Every other cell changes one thing:

    RGB loss          none; as released (of red alone, weight 10, each map against every mask of the batch)
    levels            1, 3; 4 a factor 2 apart, with as many updates each and with 12, 8, 4, 2; the latter with a supervised head a level
    attention         none
    hidden units      a quarter, four times
    channels          twice
    updates           half, twice
    timestep          not given; as the released code gives it (0 to 999)
    position          not given
    hidden norm       none, trained ("layer"), over the image ("global")
    firing            every cell at every update
    dropout           0.25, the released code's
    kernel            5
    downsampling      of all pixels instead of every second one
    prediction        noise in several steps, as published; with the RGB loss and without
    twin              the same automaton feed-forward
    U-Net             of as many weights, feed-forward and in one step

The ensemble is of the base's own weights: rows of 1 to 10 members.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import yaml
from matplotlib.figure import Figure

from ..study.figures import spans
from ..study.jobs import ROWS, Job
from ..study.masks import RAW, Answer, Masks
from ..study.study import Asked, Rows, Study, Tables
from ..study.trees import Tree, bundled, changed, dataset, folder_name, term
from ..study.verdict import Claim, adjusted, compared, mean, picked
from ..style import COLOURS, styled

Cell = tuple[str, str]
Change = Callable[[Tree], None]
RGB = term("Aux", key="rgb", weight=10.0, channels=1, paired=False)
FINE = {"levels": 4, "scale": 2}


@dataclass(frozen=True)
class Budget:
    """hidden, channels, updates: of the base's levels. unet: widths of a U-Net of as many weights. ladder: members of the ensembles."""

    steps: int
    batch: int
    size: int
    seeds: int
    ladder: tuple[int, ...]
    reverse_steps: int
    hidden: int
    channels: int
    updates: int
    unet: tuple[int, ...]
    rate: float


BUDGETS = {
    "smoke": Budget(4, 2, 32, 1, (1, 2), 2, hidden=16, channels=12, updates=2, unet=(6, 8, 10), rate=2e-3),
    "cpu": Budget(500, 4, 64, 3, (1, 2, 5, 10), 10, hidden=64, channels=16, updates=8, unet=(4, 6, 8, 12, 16), rate=2e-3),
    "paper": Budget(20_000, 8, 256, 3, (1, 2, 5, 10), 50, hidden=512, channels=64, updates=10, unet=(20, 30, 40, 60, 80), rate=1e-3),
}


def network(**options: Any) -> Change:  # noqa: ANN401 - whatever the network takes
    def change(arguments: Tree) -> None:
        arguments["network"]["init_args"] |= options

    return change


def times(option: str, factor: float) -> Change:
    def change(arguments: Tree) -> None:
        inner = arguments["network"]["init_args"]
        inner[option] = max(1, int(inner[option] * factor))

    return change


def without(name: str) -> Change:
    def change(arguments: Tree) -> None:
        del arguments["terms"][name]

    return change


def noise(*others: Change) -> Change:
    """Noise prediction at all timesteps alike, as published."""

    def change(arguments: Tree) -> None:
        arguments["predicts"] = "eps"
        arguments["terms"]["mask"] = {"class_path": "somite.diffusion.terms.Noise"}
        del arguments["timesteps"]
        for other in others:
            other(arguments)

    return change


def supervised(arguments: Tree) -> None:
    network(**FINE, updates=[12, 8, 4, 2], deep=True)(arguments)
    arguments["terms"]["deep"] = {"class_path": "somite.diffusion.terms.DeepSupervision"}


BASE: Cell = ("base", "two levels, CBAM, RGB loss")
BY_LEVEL: Cell = ("levels", "4 by 2, updates 12 8 4 2")
NOISE: Cell = ("prediction", "noise")
CELLS: dict[Cell, Change] = {
    BASE: lambda arguments: None,
    ("RGB loss", "none"): without("rgb"),
    ("RGB loss", "as released"): changed("terms", {"mask": {"class_path": "somite.diffusion.terms.DiceCE"}, "rgb": RGB}),
    ("levels", "1"): network(levels=1),
    ("levels", "3"): network(levels=3),
    ("levels", "4 by 2"): network(**FINE),
    BY_LEVEL: network(**FINE, updates=[12, 8, 4, 2]),
    ("levels", "4 by 2, updates 12 8 4 2, a head each"): supervised,
    ("attention", "none"): network(cbam=False),
    ("hidden units", "a quarter"): times("hidden", 0.25),
    ("hidden units", "four times"): times("hidden", 4),
    ("channels", "twice"): times("channels", 2),
    ("updates", "half"): times("updates", 0.5),
    ("updates", "twice"): times("updates", 2),
    ("timestep", "none"): network(time_scale=float("inf")),
    ("timestep", "0 to 999"): network(time_scale=1.0),
    ("position", "none"): network(position=False),
    ("hidden norm", "none"): network(norm="none"),
    ("hidden norm", "layer"): network(norm="layer"),
    ("hidden norm", "global"): network(norm="global"),
    ("firing", "every cell"): network(update_rate=1.0),
    ("dropout", "0.25"): network(dropout=0.25),
    ("kernel", "5"): network(kernel=5),
    ("downsampling", "area"): network(downsample="area"),
    NOISE: noise(),
    ("prediction", "noise, no RGB loss"): noise(without("rgb")),
}
TWIN: Cell = ("twin", "feed-forward")
UNETS: tuple[Cell, ...] = (("U-Net", "one step"), ("U-Net", "feed-forward"))
# What the paper says of its parts: (the words, one cell, the cell that it is to be above).
PAPER: tuple[tuple[str, Cell, Cell], ...] = (
    ("the RGB loss helps", BASE, ("RGB loss", "none")),
    ("the RGB loss helps noise prediction", NOISE, ("prediction", "noise, no RGB loss")),
    ("two levels beat one", BASE, ("levels", "1")),
    ("CBAM helps", BASE, ("attention", "none")),
    ("more hidden units help", BASE, ("hidden units", "a quarter")),
    ("the timestep helps", BASE, ("timestep", "none")),
)
# Cells that change another one than the base.
AGAINST = {BY_LEVEL: ("levels", "4 by 2"), ("levels", "4 by 2, updates 12 8 4 2, a head each"): BY_LEVEL}


class Ablations(Study):
    title = "What makes cells segment"
    columns = ("option", "choice")

    def jobs(self, asked: Asked) -> list[Job]:
        budget = asked.chosen(BUDGETS)
        budget = replace(budget, steps=asked.steps or budget.steps)
        grid = [*CELLS, TWIN, *UNETS]
        asked.known(grid)
        made = []
        for cell in filter(asked.wants, grid):
            members = budget.ladder if cell == BASE else tuple(sorted({1, budget.ladder[-1]}))
            for seed in asked.seeded(budget.seeds):
                keys = (("option", cell[0]), ("choice", cell[1]), ("seed", seed))
                text = yaml.safe_dump(recipe(cell, asked.data, budget, seed), sort_keys=False)
                answers = (Answer("sample", (1,) if cell == UNETS[1] else members),)
                made.append(Job(asked.out / folder_name(*cell, seed), keys, text, Masks(answers), asked.threads))
        return made

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        rows = tables[ROWS]

        def of(cell: Cell, members: int | None = None) -> list[dict[str, Any]]:
            return picked(rows, members, RAW, option=cell[0], choice=cell[1])

        paper = [one for words, cell, other in PAPER for one in compared(words, of(cell), of(other), "dice", False)]
        paper += compared("an ensemble beats one member", of(BASE), of(BASE, 1), "dice", False)
        paper += compared("an ensemble is better calibrated (ECE a case) than one member", of(BASE), of(BASE, 1), "ece", True)
        told = {cell for _, *pair in PAPER for cell in pair}
        knobs = []
        for cell in (one for one in (*CELLS, TWIN) if one not in told):
            other = AGAINST.get(cell, BASE)
            words = f"{cell[0]} {cell[1]} is more accurate than {'the base' if other == BASE else ' '.join(other)}"
            knobs += compared(words, of(cell), of(other), "dice", False)
        unets = []
        for cell in UNETS:
            words = f"the base is {{}} than a U-Net of as many weights, {cell[1]}"
            unets += compared(words.format("more accurate"), of(BASE), of(cell), "dice", False)
            unets += compared(words.format("better calibrated (ECE a case)"), of(BASE), of(cell), "ece", True)
        return {
            "Claims of arXiv 2501.02447 on these data": adjusted(paper),
            "Further knobs": adjusted(knobs),
            "Beside a U-Net": adjusted(unets),
        }

    @styled
    def figure(self, tables: Tables) -> Figure:
        """Dice and calibration of the largest ensemble of every cell; and of the base against the number of members."""
        rows = tables[ROWS]
        cells = list(dict.fromkeys((row["option"], row["choice"]) for row in rows))
        made = Figure(figsize=(11, 1.6 + 0.28 * len(cells)), layout="constrained")
        dice, ece, ladder = made.subplots(1, 3)
        for axes, metric, label in ((dice, "dice", "Dice"), (ece, "ece", "ECE a case")):
            found = [mean(picked(rows, None, RAW, option=option, choice=choice), metric) for option, choice in cells]
            spans(axes, [f"{option}: {choice}" for option, choice in cells], found, label)
        ece.set_yticklabels([])
        along(ladder, [row for row in rows if (row["option"], row["choice"]) == BASE])
        return made


STUDY = Ablations()


def along(axes: Any, rows: Rows) -> None:  # noqa: ANN401 - matplotlib's Axes
    """Dice of the base against its members."""
    counts = sorted({int(row["members"]) for row in rows})
    found = [mean(picked(rows, count, RAW), "dice") for count in counts]
    ends = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
    axes.errorbar(counts, [one.mean for one in found], yerr=ends, marker="o", color=COLOURS[0])
    axes.set(xlabel="members of the base's ensemble", ylabel="Dice")
    axes.set_xticks(counts)


def recipe(cell: Cell, data: str, budget: Budget, seed: int) -> Tree:
    """One recipe of the grid."""
    tree = bundled("medsegdiffnca/one-step")
    tree["data"] = dataset(tree["data"], data, budget.size)
    tree["data"]["preprocess"]["normalise"] = {"class_path": "somite.data.normalise.Percentile"}
    tree["data"]["augment"]["init_args"] = {"scale": 0.2, "colour": 0.1}
    tree["task"]["init_args"] = {"members": budget.ladder[-1], "tolerance": 2}
    tree["training"] = {"steps": budget.steps, "batch": budget.batch, "rate": budget.rate, "weight_decay": 0.01, "seed": seed} | {
        "ema": 0.995 if budget.steps < 10_000 else 0.999,
        "warmup": min(100, budget.steps // 10 + 1),
        "validate": max(1, budget.steps // 2),
    }
    arguments = tree["method"]["init_args"]
    network(channels=budget.channels, hidden=budget.hidden, updates=budget.updates, dropout=0.0, checkpointing=False)(arguments)
    if cell in CELLS:
        CELLS[cell](arguments)
        if arguments["predicts"] == "eps":
            arguments["sampler"]["init_args"]["steps"] = budget.reverse_steps
        return tree
    noised = cell == UNETS[0]
    if cell in UNETS:
        inner = {"channels": list(budget.unet), "noised": noised}
        arguments["network"] = {"class_path": "somite.networks.compact.Compact", "init_args": inner}
        del arguments["terms"]["rgb"]
    if not noised:
        kept = {name: deepcopy(arguments[name]) for name in ("network", "terms")}
        tree["method"] = {"class_path": "somite.diffusion.methods.FeedForward", "init_args": kept}
    return tree
