"""Cells and U-Nets of equal weights, at equal time of training and at equal steps: what a compact segmenter should be.

    cells           `medsegdiffnca/best`, one step and feed-forward
    narrow U-Net    `compact/one-step` and `compact/feed-forward`, of a few weights more than the cells
    wide U-Net      the same, feed-forward, with 1.9 M weights
    plain cells     `medsegdiffnca/demo`: two levels a factor 4 apart, 17,600 weights; one step

Equal time is processor time of the training steps' own arithmetic (forward, backward, optimiser) on as many threads as a job has. It is
measured once, before the first job, all cells of the grid in turns, and kept in pace.json: the steps of a job follow from it, and the same
folder gives the same jobs. Reading and augmenting images, which is the same for all, is not in it. Everything else is equal for all: images,
size, batch, augmentation, loss on the mask, optimiser, schedule of the rate, average of the weights, the last weights.
"""

import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure

from ..files import write_text
from ..recipe import build, parse
from ..study.figures import spans
from ..study.jobs import ROWS, Job
from ..study.masks import RAW, TEMPERATURE, Answer, Masks
from ..study.study import Asked, Study, Tables
from ..study.trees import Tree, bundled, dataset, folder_name, term
from ..study.verdict import Claim, adjusted, compared, mean, picked
from ..style import styled

Cell = tuple[str, str]
TIME, STEPS = "time", "steps"  # what is equal
CELLS: Cell = ("cells", "one step")
OPPONENTS: tuple[Cell, ...] = (("narrow U-Net", "one step"), ("narrow U-Net", "feed-forward"), ("wide U-Net", "feed-forward"))
OTHERS: tuple[Cell, ...] = (("cells", "feed-forward"), ("plain cells", "one step"))
GRID = (CELLS, *OPPONENTS, *OTHERS)
WIDE = [16, 32, 64, 128, 256]


@dataclass(frozen=True)
class Budget:
    """seconds: of processor time of the training steps; steps: where they are equal. networks: constructor arguments, for a smoke test."""

    seconds: float
    steps: int
    batch: int
    size: int
    seeds: int
    members: int
    networks: dict[str, Tree]
    rounds: int = 7  # of timing


BUDGETS = {
    "smoke": Budget(
        0.05,
        3,
        2,
        32,
        1,
        2,
        {
            "cells": {"channels": [8, 8], "hidden": 8, "down": 1, "up": 1},
            "narrow U-Net": {"channels": [4, 6]},
            "wide U-Net": {"channels": [8, 12]},
            "plain cells": {"channels": 12, "hidden": 16, "updates": 2},
        },
        rounds=2,
    ),
    "cpu": Budget(100, 1000, 8, 64, 3, 5, {}),
    "paper": Budget(4000, 20_000, 8, 128, 3, 10, {}),
}


class CompactTrial(Study):
    title = "Cells beside U-Nets of their own size"
    columns = ("network", "method", "equal")

    def jobs(self, asked: Asked) -> list[Job]:
        budget = asked.chosen(BUDGETS)
        budget = replace(budget, steps=asked.steps or budget.steps)
        grid = [(*cell, equal) for equal in (TIME, STEPS) for cell in GRID]
        asked.known(grid)
        paces, made = paced(asked, budget), []
        for network, method, equal in filter(asked.wants, grid):
            steps = budget.steps if equal == STEPS else max(1, round(budget.seconds / paces[f"{network}, {method}"]))
            for seed in asked.seeded(budget.seeds):
                keys = (("network", network), ("method", method), ("equal", equal), ("seed", seed))
                text = yaml.safe_dump(recipe((network, method), asked.data, budget, steps, seed), sort_keys=False)
                members = (1, budget.members) if method == "one step" else (1,)
                folder = asked.out / folder_name(network, method, equal, seed)
                made.append(Job(folder, keys, text, Masks((Answer("sample", members),)), asked.threads))
        return made

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        rows = tables[ROWS]
        return {f"Cells in one step beside U-Nets, at equal {equal}": adjusted(beside(rows, equal)) for equal in (TIME, STEPS)}

    @styled
    def figure(self, tables: Tables) -> Figure:
        """Dice and calibration of the largest ensemble of every cell at equal time, or at equal steps where that is all there is."""
        rows = tables[ROWS]
        equal = TIME if any(row["equal"] == TIME for row in rows) else STEPS
        cells = list(dict.fromkeys((row["network"], row["method"]) for row in rows if row["equal"] == equal))
        made = Figure(figsize=(8.5, 1.4 + 0.32 * len(cells)), layout="constrained")
        panels = made.subplots(1, 2)
        for axes, metric, label in zip(panels, ("dice", "ece"), ("Dice", "ECE a case"), strict=True):
            found = [mean(picked(rows, None, RAW, network=network, method=method, equal=equal), metric) for network, method in cells]
            spans(axes, [f"{network}, {method}" for network, method in cells], found, label)
        panels[1].set_yticklabels([])
        return made


STUDY = CompactTrial()


def beside(rows: list[dict[str, Any]], equal: str) -> list[Claim]:
    """The largest ensemble of the cells against that of each opponent."""
    made = []
    for cell in (*OPPONENTS, *OTHERS):
        for metric, words, below in (("dice", "more accurate (Dice)", False), ("ece", "better calibrated (ECE a case)", True)):
            for scaling, told in ((RAW, ""), (TEMPERATURE, ", both temperature-scaled")):
                if metric == "dice" and scaling == TEMPERATURE:
                    continue  # a temperature moves no pixel across 0.5
                ours, theirs = (picked(rows, None, scaling, network=one[0], method=one[1], equal=equal) for one in (CELLS, cell))
                made += compared(f"{words} than {cell[0]}, {cell[1]}{told}", ours, theirs, metric, below)
    return made


def paced(asked: Asked, budget: Budget) -> dict[str, float]:
    """Seconds of a training step of each cell of the grid, by pace.json where there is one."""
    path = asked.out / "pace.json"
    if not path.exists():
        write_text(path, json.dumps(timed(asked, budget), indent=2) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def timed(asked: Asked, budget: Budget) -> dict[str, float]:
    """The median processor time of some steps of each cell, one of each after the other, on as many threads as a job has."""
    before = torch.get_num_threads()
    torch.set_num_threads(asked.threads)
    try:
        with torch.random.fork_rng():
            steps = {", ".join(cell): Step(recipe(cell, asked.data, budget, 1, 0), budget, asked.out) for cell in GRID}
            for _ in range(budget.rounds):
                for step in steps.values():
                    step()
    finally:
        torch.set_num_threads(before)
    return {name: statistics.median(step.took[1:]) for name, step in steps.items()}  # the first step makes room


class Step:
    """One training step, of images and masks by chance: what it costs does not depend on what they show."""

    def __init__(self, tree: Tree, budget: Budget, out: Path) -> None:
        path = out / "pace.yaml"
        write_text(path, yaml.safe_dump(tree, sort_keys=False))
        made = build(parse(path))
        path.unlink()
        self.method, self.took = made.method.train(), []
        self.optimizer = torch.optim.AdamW(self.method.parameters(), made.training.rate)
        batch, side = budget.batch, budget.size
        self.image, self.mask = torch.rand(batch, 3, side, side), torch.randint(2, (batch, 1, side, side))

    def __call__(self) -> None:
        began = time.process_time()
        self.optimizer.zero_grad()
        self.method.loss(self.mask, {"image": self.image})["loss"].backward()
        self.optimizer.step()
        self.took.append(time.process_time() - began)


def recipe(cell: Cell, data: str, budget: Budget, steps: int, seed: int) -> Tree:
    """One recipe of the grid."""
    network, method = cell
    tree = bundled({"cells": "medsegdiffnca/best", "plain cells": "medsegdiffnca/demo"}.get(network, "compact/one-step"))
    one_step = bundled("medsegdiffnca/best")
    tree["data"] = dataset(one_step["data"], data, budget.size)
    tree["task"] = {"class_path": "somite.tasks.segmentation.Segmentation", "init_args": {"members": budget.members, "tolerance": 2}}
    made = tree["method"]["init_args"]["network"]
    if network == "wide U-Net":
        made["init_args"]["channels"] = WIDE
    made["init_args"] |= budget.networks.get(network, {})
    if method == "one step":
        arguments = one_step["method"]["init_args"]
        tree["method"] = {**one_step["method"], "init_args": {**arguments, "network": made, "terms": {"mask": term("DiceCE")}}}
    else:
        made["init_args"]["noised"] = False
        terms = {"mask": term("DiceCE")}
        tree["method"] = {"class_path": "somite.diffusion.methods.FeedForward", "init_args": {"network": made, "terms": terms}}
    tree["training"] = {"steps": steps, "batch": budget.batch, "rate": 3e-3, "weight_decay": 0.01, "ema": 0.99, "seed": seed} | {
        "warmup": min(100, steps // 10 + 1),
        "validate": steps,
        "workers": 0,
    }
    return tree
