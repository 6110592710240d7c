"""The fair trial of arXiv 2403.14440: the same networks as diffusion, feed-forward and one-step, on the same data and budget.

{EnsemDiff, SegDiff, MedSegDiff, MedSegDiffNCA} x {diffusion, v-diffusion, feed-forward, one-step} and the baselines nnU-Net (network,
loss, optimiser and augmentation), DynUNet (its network, trained as all others are) and SegFormer, times seeds; each
evaluated with one and with K members, raw and temperature-scaled. What costs one evaluation a member is also evaluated
with as many members as diffusion takes steps, so that there is a comparison at equal cost. MedSegDiff's auxiliary map and
its fusion with the sample are further answers of its diffusion.

- diffusion: noise prediction, all timesteps alike, several reverse steps: how the published networks are trained.
- v-diffusion: the same with v prediction (Salimans & Ho 2022), which does not ask for the noise of a nearly clean mask. Not the
  paper's: it tells what is due to diffusion from what is due to noise prediction.
- one-step: logits of the mask, half of the examples at T-1, one reverse step.
- feed-forward: the same network, x = 0 and t = 0, the same loss on its logits as one-step.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from ..analysis.curves import by_case as curve_by_case
from ..baselines.plan import supervision, topology
from ..metrics.intervals import Interval, pooled_interval
from ..study.jobs import ROWS, Job
from ..study.masks import LOSSES, RAW, TEMPERATURE, Answer, Masks
from ..study.study import Asked, Rows, Study, Tables
from ..study.trees import Tree, bundled, term
from ..study.verdict import Claim, adjusted, compared, picked

NETWORKS = {
    "EnsemDiff": "ensemdiff/small",
    "SegDiff": "segdiff/small",
    "MedSegDiff": "medsegdiff/small",
    "MedSegDiffNCA": "medsegdiffnca/one-step",
}
BASELINES = {"nnU-Net": "nnunet/images", "DynUNet": "dynunet/images", "SegFormer": "segformer/images"}
METHODS = ("diffusion", "v-diffusion", "feed-forward", "one-step")
TWINS = ((RAW, "its feed-forward twin"), (TEMPERATURE, "its temperature-scaled feed-forward twin"))
AUXILIARY = ("rgb", "cal")  # loss terms that belong to a network, whatever the method


@dataclass(frozen=True)
class Budget:
    """What every job of a study gets. `networks` overrides constructor arguments to fit small machines, `rates` the peak
    learning rates, for short training; `timesteps`: where the loss of diffusion is measured.
    """

    steps: int
    batch: int
    size: int
    members: int
    reverse_steps: int
    seeds: int
    timesteps: int
    networks: dict[str, Tree]
    rates: dict[str, float]
    mixed: tuple[str, ...] = ()  # networks trained in bfloat16 where that is faster on a CPU


TINY_UNET = {"channels": 32, "mults": [1, 1], "res_blocks": 1, "attention": [2], "heads": 2}
SMALL_NCA = {"channels": 16, "hidden": 64, "updates": 8, "cbam": True, "checkpointing": False}
BUDGETS = {
    "smoke": Budget(
        steps=6,
        batch=2,
        size=32,
        members=2,
        reverse_steps=2,
        seeds=1,
        timesteps=4,
        networks={
            "EnsemDiff": TINY_UNET,
            "SegDiff": TINY_UNET,
            "MedSegDiff": {"mults": [1, 1], "res_blocks": 1, "attention": [2], "heads": 2},
            "MedSegDiffNCA": {"channels": 12, "hidden": 16, "updates": 3, "checkpointing": False},
            "DynUNet": {"channels": [8, 16, 32], "deep_heads": 1},
        },
        rates={},
    ),
    "cpu": Budget(
        steps=500,
        batch=4,
        size=64,
        members=5,
        reverse_steps=10,
        seeds=3,
        timesteps=20,
        networks={
            "SegDiff": {"rrdb_channels": 32},
            "MedSegDiff": {"base": 16},
            "MedSegDiffNCA": SMALL_NCA,
            "DynUNet": {"channels": [16, 32, 64, 128], "deep_heads": 1},
        },
        rates={"EnsemDiff": 5e-4, "SegDiff": 5e-4, "MedSegDiff": 5e-4, "SegFormer": 5e-4},
        mixed=("EnsemDiff", "SegDiff", "MedSegDiff", "nnU-Net", "DynUNet"),
    ),
    "paper": Budget(steps=100_000, batch=8, size=256, members=10, reverse_steps=50, seeds=3, timesteps=25, networks={}, rates={}),
}
PAPER = {
    "EnsemDiff": "ensemdiff/images",
    "SegDiff": "segdiff/images",
    "MedSegDiff": "medsegdiff/images",
    "MedSegDiffNCA": "medsegdiffnca/one-step",
}


class FairTrial(Study):
    title = "Fair trial"

    def jobs(self, asked: Asked) -> list[Job]:
        budget = asked.chosen(BUDGETS)
        budget = replace(budget, steps=asked.steps or budget.steps)
        grid = [(network, method) for network in NETWORKS for method in METHODS] + [(name, "feed-forward") for name in BASELINES]
        asked.known(grid)
        made = []
        for network, method in filter(asked.wants, grid):
            for seed in asked.seeded(budget.seeds):
                keys = (("network", network), ("method", method), ("seed", seed))
                text = yaml.safe_dump(cell(network, method, asked.data, budget, seed, asked.budget == "paper"), sort_keys=False)
                folder, curve = asked.out / f"{network}-{method}-{seed}".lower(), budget.timesteps if method == "diffusion" else 0
                made.append(Job(folder, keys, text, Masks(answers(network, method, budget), curve), asked.threads))
        return made

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        rows, curves = tables[ROWS], tables.get(LOSSES, [])
        return {
            "Claims of arXiv 2403.14440 on these data": of_paper(rows, curves),
            "With v prediction, which is not the paper's": by_velocity(rows),
            "At equal numbers of evaluations": at_equal_cost(rows),
        }


STUDY = FairTrial()


def answers(network: str, method: str, budget: Budget) -> tuple[Answer, ...]:
    """Which answers of a run are evaluated, each with its numbers of members."""
    few = (1, budget.members)
    if method == "diffusion" and network == "MedSegDiff":  # its map is made from the image alone: one evaluation is enough
        return Answer("sample", few), Answer("fused", few), Answer("cal", (1,), steps=1)
    if method in ("diffusion", "v-diffusion"):
        return (Answer("sample", few),)
    if method == "one-step" or network == "MedSegDiffNCA":
        return (Answer("sample", tuple(sorted({*few, budget.reverse_steps}))),)
    return (Answer("sample", (1,)),)


def cell(network: str, method: str, data: str, budget: Budget, seed: int, paper: bool) -> Tree:
    """One recipe of the grid, from the network's bundled one."""
    source = BASELINES.get(network) or (PAPER if paper else NETWORKS)[network]
    recipe = bundled(source)
    if network == "nnU-Net":
        return nnunet(recipe, data, budget, seed)
    recipe["data"] = dataset(recipe["data"], data, budget.size)
    arguments = recipe["method"]["init_args"]
    arguments["network"].setdefault("init_args", {}).update(deepcopy(budget.networks.get(network, {})))
    if network not in BASELINES:
        recipe["method"] = METHOD_OF[method](arguments, budget)
    recipe["task"] = task(budget)
    recipe["training"] = {
        **shared(network, budget, seed),
        **{"rate": budget.rates.get(network, recipe["training"]["rate"]), "weight_decay": 0.01, "warmup": min(100, budget.steps // 10 + 1)},
        "ema": 0.995 if budget.steps < 10_000 else 0.9999,
    }
    return recipe


def shared(network: str, budget: Budget, seed: int) -> Tree:
    """What training has in common."""
    precision = "bf16-mixed" if network in budget.mixed else "32-true"
    return {"steps": budget.steps, "batch": budget.batch, "seed": seed, "validate": max(1, budget.steps // 2), "precision": precision}


def task(budget: Budget) -> Tree:
    return {"class_path": "somite.tasks.segmentation.Segmentation", "init_args": {"members": budget.members, "tolerance": 2}}


def nnunet(recipe: Tree, data: str, budget: Budget, seed: int) -> Tree:
    """nnU-Net's own network for this size, loss, optimiser, intensities and augmentation; the same data, steps and batch.

    Without mirroring and folds, which would cost four and five times the evaluations.
    """
    levels = len(topology((1.0, 1.0), (budget.size, budget.size)).strides)
    arguments = recipe["method"]["init_args"]
    arguments["network"]["init_args"]["channels"] = [min(32 * 2**level, 512) for level in range(levels)]
    for supervised in arguments["terms"].values():
        supervised["init_args"]["weight"] = supervision(levels)
    recipe["data"]["root"] = data
    recipe["data"]["preprocess"]["size"] = recipe["data"]["crop"] = [budget.size, budget.size]
    return {**recipe, "task": task(budget), "training": {**recipe["training"], **shared("nnU-Net", budget, seed)}}


def dataset(data: Tree, root: str, size: int) -> Tree:
    """The same images, size, intensities and augmentation for all."""
    normalise = {"class_path": "somite.data.normalise.Percentile"}
    preprocess = {**data["preprocess"], "size": [size, size], "channels": 3, "normalise": normalise}
    return {"root": root, "preprocess": preprocess, "augment": {"class_path": "somite.data.augment.Augment", "init_args": {"scale": 0.2}}}


def auxiliary(arguments: Tree) -> Tree:
    return {name: value for name, value in arguments["terms"].items() if name in AUXILIARY}


def noise(arguments: Tree, budget: Budget) -> Tree:
    return diffusion(arguments, budget, "eps", {"noise": term("Noise")})


def velocity(arguments: Tree, budget: Budget) -> Tree:
    """The errors of noise and of mask together are the error of v = alpha eps - sigma x0."""
    return diffusion(arguments, budget, "v", {"noise": term("Noise"), "clean": term("Clean")})


def diffusion(arguments: Tree, budget: Budget, predicts: str, terms: Tree) -> Tree:
    sampler = {"class_path": "somite.diffusion.samplers.DDIM", "init_args": {"steps": budget.reverse_steps}}
    kept = {key: arguments[key] for key in ("network", "schedule")}
    told = {**kept, "predicts": predicts, "terms": {**terms, **auxiliary(arguments)}, "sampler": sampler}
    return {"class_path": "somite.diffusion.methods.Diffusion", "init_args": told}


def one_step(arguments: Tree, budget: Budget) -> Tree:
    sampler = {"class_path": "somite.diffusion.samplers.DDIM", "init_args": {"steps": 1}}
    timesteps = {"class_path": "somite.diffusion.timesteps.Terminal", "init_args": {"rate": 0.5}}
    kept = {key: arguments[key] for key in ("network", "schedule")}
    terms = {"mask": term("DiceCE"), **auxiliary(arguments)}
    told = {**kept, "predicts": "logits", "terms": terms, "sampler": sampler, "timesteps": timesteps}
    return {"class_path": "somite.diffusion.methods.Diffusion", "init_args": told}


def feed_forward(arguments: Tree, budget: Budget) -> Tree:
    terms = {"mask": term("DiceCE"), **auxiliary(arguments)}
    return {"class_path": "somite.diffusion.methods.FeedForward", "init_args": {"network": arguments["network"], "terms": terms}}


METHOD_OF = {"diffusion": noise, "v-diffusion": velocity, "one-step": one_step, "feed-forward": feed_forward}


def of(rows: Rows, network: str, method: str, members: int | None, scaling: str = RAW) -> list[dict[str, Any]]:
    return picked(rows, members, scaling, network=network, method=method)


def calibrated(rows: Rows, network: str, words: str, ours: Rows) -> list[Claim]:
    """Against the same network trained feed-forward, raw and temperature-scaled."""
    made = []
    for scaling, twin in TWINS:
        theirs = of(rows, network, "feed-forward", 1, scaling)
        made += compared(f"{words} better calibrated (ECE a case) than {twin}", ours, theirs, "ece", below=True)
    return made


def of_paper(rows: Rows, curves: Rows = ()) -> list[Claim]:
    """The paper's: calibration, accuracy, and the loss over time."""
    made = []
    for network in NETWORKS:
        diffusion = of(rows, network, "diffusion", None)
        made += calibrated(rows, network, f"{network}: the diffusion ensemble is", diffusion)
        for baseline in BASELINES:
            theirs = of(rows, baseline, "feed-forward", 1)
            made += compared(f"{network}: diffusion stays below {baseline} in Dice", diffusion, theirs, "dice", below=True)
        here = [row for row in curves if row["network"] == network]
        if here:
            told = f"{network}: the noise loss of diffusion is highest between the ends of t (peak over the higher end)"
            made.append(Claim(told, peak_over_ends(here), below=False))
    return adjusted(made)


def by_velocity(rows: Rows) -> list[Claim]:
    """Not the paper's: what of diffusion's rank is owed to noise prediction."""
    made = []
    for network in NETWORKS:
        ours = of(rows, network, "v-diffusion", None)
        words = f"{network}: v-diffusion is"
        made += compared(f"{words} more accurate (Dice) than diffusion", ours, of(rows, network, "diffusion", None), "dice", below=False)
        made += calibrated(rows, network, words, ours)
        twin = of(rows, network, "feed-forward", 1)
        made += compared(f"{words} more accurate (Dice) than its feed-forward twin", ours, twin, "dice", below=False)
    return adjusted(made)


def at_equal_cost(rows: Rows) -> list[Claim]:
    """Not the paper's: as many one-step or feed-forward members as one diffusion sample takes steps, against that sample."""
    made = []
    for network in NETWORKS:
        sample = of(rows, network, "diffusion", 1)
        cost = sample[0]["evaluations"] if sample else None
        for method in ("one-step", "feed-forward"):
            ensemble = [r for r in rows if (r["network"], r["method"], r["scaling"]) == (network, method, RAW) and r["evaluations"] == cost]
            told = f"{network}: {cost} {method} members are {{}} than one diffusion sample of {cost} steps"
            made += compared(told.format("more accurate (Dice)"), ensemble, sample, "dice", below=False)
            made += compared(told.format("better calibrated (ECE a case)"), ensemble, sample, "ece", below=True)
    return adjusted(made)


def peak_over_ends(rows: Rows) -> Interval:
    """The largest mean loss at an inner t minus the larger one of the two ends, with a bootstrap over groups of the whole
    statistic: each draw finds its own peak.
    """
    parts, groups = [], []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        losses, groups, _ = curve_by_case([row for row in rows if row["seed"] == seed], lambda row: float(row["loss_eps"]))
        parts.append(losses)
    losses = np.mean(parts, axis=0)
    ones = np.ones((len(losses), 1))

    def statistic(total: np.ndarray) -> float:
        loss = total[:-1] / total[-1]
        return float(loss[1:-1].max() - max(loss[0], loss[-1]))

    return pooled_interval(np.hstack([losses, ones]), groups, statistic)
