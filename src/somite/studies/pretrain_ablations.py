"""What is diffusion pretraining worth for segmenting volumes, and what of it? The questions of arXiv 2501.19265, for any folder of volumes.

Networks are pretrained without labels on the training volumes, once each, then asked with few, some and all of these volumes labelled. The base
is the paper's: noise is predicted with body coordinates concatenated, and a non-linear head reads the frozen encoder at t = 10, 30 and 60, side by
side, with fixed noise. Every other cell changes one thing:

    coordinates     none, scrambled (of no truth), learned
    timesteps       0, 10, 30, 60, 200, each alone
    maps            the decoder's, both
    noise           none, fresh, three draws
    together        their mean
    head            linear; with the coordinates as features too
    pretext         masked and noised, restored, contrasted, none (a random network, frozen)
    use             fine-tuned, its way up fine-tuned, masked and fine-tuned, from scratch
    baseline        DynUNet, M3D-NCA, MedSegDiffNCA

Where the table says how many labels, the cell was run with as many labelled volumes; 0 stands for all of the training split. Nothing is chosen on
validation volumes: weights are those of the last step, and validation volumes fit the temperature alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from ..data.dataset import Data
from ..data.record import mask_values
from ..errors import InputError
from ..files import write_json
from ..rng import derive
from ..study.jobs import Job
from ..study.masks import RAW, Answer, Masks
from ..study.pretraining import Pretrained
from ..study.study import Asked, Study, Tables
from ..study.trees import Tree, bundled, folder_name
from ..study.verdict import Claim, adjusted, compared, mean, picked
from ..style import COLOURS, DASHES, styled

COORDINATES = "somite.data.coordinates."
LOOKED_AT = 8  # masks, for the classes
BASE = ("base", "frozen")


@dataclass(frozen=True)
class Budget:
    """pretraining, probe, tuning: steps of training; counts: labelled volumes, 0 for all; alone: those of cells that are run with one
    number; validation: volumes. base, levels: of the backbone.
    """

    pretraining: int
    positions: int
    probe: int
    tuning: int
    base: int
    levels: int
    crop: int
    batch: int
    seeds: int
    counts: tuple[int, ...]
    alone: int
    validation: int
    views: int
    voxels: int
    automaton: int


BUDGETS = {
    "smoke": Budget(
        pretraining=2, positions=2, probe=2, tuning=2, automaton=2, base=8, levels=2, crop=8, batch=2, seeds=1, counts=(2, 0), alone=2,
        validation=1, views=8, voxels=16,
    ),
    "cpu": Budget(
        pretraining=1000, positions=500, probe=150, tuning=250, automaton=1000, base=8, levels=4, crop=32, batch=2, seeds=3, counts=(2, 10, 0),
        alone=10, validation=5, views=24, voxels=256,
    ),
    "paper": Budget(
        pretraining=300_000, positions=50_000, probe=45_000, tuning=45_000, automaton=50_000, base=16, levels=6, crop=96, batch=2, seeds=3,
        counts=(2, 10, 0), alone=10, validation=5, views=64, voxels=1024,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """pretraining: which run it stands on, or none. probe: what it changes of the base's probe. every: it is run with each number of labels."""

    pretraining: str | None = "diffusion"
    probe: tuple[tuple[str, Any], ...] = ()
    every: bool = False


def of(pretraining: str | None = "diffusion", every: bool = False, **probe: Any) -> Cell:  # noqa: ANN401 - arguments of a Probe
    return Cell(pretraining, tuple(probe.items()), every)


NOISELESS: dict[str, Any] = {"timesteps": [0], "noise": "none"}  # for backbones that were trained without noise
TUNED: dict[str, Any] = {"tune": "all", "side": "both", "head": "linear", "timesteps": [10], "noise": "none"}
PRETRAININGS = {
    "diffusion": "ctpretrain/small",
    "none": "ctpretrain/small",
    "scrambled": "ctpretrain/small",
    "learned": "ctpretrain/small",
    "masked": "ctpretrain/masked",
    "restored": "ctpretrain/restore",
    "contrasted": "ctpretrain/contrast",
}
POSITIONS = "positions"
CELLS: dict[tuple[str, str], Cell] = {
    BASE: of(every=True),
    ("coordinates", "none"): of("none"),
    ("coordinates", "scrambled"): of("scrambled"),
    ("coordinates", "learned"): of("learned"),
    **{("timesteps", str(t)): of(timesteps=[t]) for t in (0, 10, 30, 60, 200)},
    ("maps", "decoder"): of(side="decoder"),
    ("maps", "both"): of(side="both"),
    ("noise", "none"): of(noise="none"),
    ("noise", "fresh"): of(noise="fresh"),
    ("noise", "three draws"): of(draws=3),
    ("together", "mean"): of(together="mean"),
    ("head", "linear"): of(head="linear"),
    ("head", "coordinates too"): of(placed=True),
    ("pretext", "masked"): of("masked", side="both", noise="none"),
    ("pretext", "restored"): of("restored", **NOISELESS),
    ("pretext", "contrasted"): of("contrasted", side="both", **NOISELESS),
    ("pretext", "random"): of(afresh=True),
    ("use", "fine-tuned"): of(every=True, **TUNED, thaw=50),
    ("use", "way up fine-tuned"): of(**{**TUNED, "tune": "decoder"}, thaw=50),
    ("use", "masked, fine-tuned"): of("masked", every=True, **TUNED, thaw=50),
    ("use", "from scratch"): of(every=True, **TUNED, afresh=True),
    ("baseline", "DynUNet"): Cell(None, every=True),
    ("baseline", "M3D-NCA"): Cell(None),
    ("baseline", "MedSegDiffNCA"): Cell(None),
}
AUTOMATA = {"M3D-NCA": "m3dnca/hippocampus", "MedSegDiffNCA": "medsegdiffnca/hippocampus"}


class Pretraining(Study):
    title = "What diffusion pretraining is worth to a segmenter of volumes"
    columns = ("option", "choice", "labels")

    def jobs(self, asked: Asked) -> list[Job]:
        budget = asked.chosen(BUDGETS)
        budget = budget if asked.steps is None else replace(budget, pretraining=asked.steps, probe=asked.steps, tuning=asked.steps)
        asked.known(list(CELLS))
        wanted = {cell: one for cell, one in CELLS.items() if asked.wants(cell)}
        needed = dict.fromkeys(one.pretraining for one in wanted.values() if one.pretraining)
        made, classes = [pretraining(name, asked, budget) for name in needed], values(asked)
        if "learned" in needed:
            made.insert(0, pretraining(POSITIONS, asked, budget))
        for cell, one in wanted.items():
            for count in budget.counts if one.every else (0,) if cell[1] in AUTOMATA else (budget.alone,):
                for seed in asked.seeded(budget.seeds if one.every else 1):
                    keys = (("option", cell[0]), ("choice", cell[1]), ("labels", str(count)), ("seed", seed))
                    text = yaml.safe_dump(recipe(cell, one, asked, budget, classes, count, seed), sort_keys=False)
                    members = 5 if cell[1] in AUTOMATA else 1
                    folder = asked.out / folder_name(*cell, count or "all", seed)
                    made.append(Job(folder, keys, text, Masks((Answer("sample", (members,)),)), asked.threads, stage=2))
        return made

    def prepare(self, asked: Asked) -> None:
        """The lists of labelled volumes, drawn by seed."""
        budget = asked.chosen(BUDGETS)
        data = Data(asked.data)
        found = {split: [case.id for case in data.cases(split)] for split in ("train", "val", "test")}
        fewest = max(budget.counts)
        if len(found["train"]) < fewest:
            raise InputError(
                f"{asked.data} has {len(found['train'])} labelled training volumes, and this study takes up to {fewest}; give more, or --budget smoke"
            )
        for count in {*budget.counts, budget.alone, 0}:
            for seed in asked.seeded(budget.seeds):
                drawn = sorted(found["train"], key=lambda name, seed=seed: derive(seed, "labelled", name))[: count or None]
                write_json(
                    lists(asked, count, seed), {"train": sorted(drawn), "val": found["val"][: budget.validation], "test": found["test"]}
                )

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        rows = [row for row in tables["rows"] if row]
        counts = list(dict.fromkeys(row["labels"] for row in rows))

        def cell(name: tuple[str, str], labels: str) -> list[dict[str, Any]]:
            return picked(rows, None, RAW, option=name[0], choice=name[1], labels=labels)

        worth = []
        for labels in counts:
            told = "all labels" if labels == "0" else f"{labels} labels"
            scratch = cell(("use", "from scratch"), labels)
            for name, words in (
                (("use", "fine-tuned"), "fine-tuning is more accurate than beginning at random"),
                (("use", "masked, fine-tuned"), "masked pretraining, fine-tuned, is more accurate than beginning at random"),
                (BASE, "a frozen probe is more accurate than training from scratch"),
            ):
                worth += compared(f"{told}: {words}", cell(name, labels), scratch, "dice", False)
            worth += compared(
                f"{told}: fine-tuning is more accurate than DynUNet",
                cell(("use", "fine-tuned"), labels),
                cell(("baseline", "DynUNet"), labels),
                "dice",
                False,
            )
        single = [row["labels"] for row in rows if (row["option"], row["choice"]) == ("head", "linear")]
        labels = single[0] if single else counts[0] if counts else "0"
        changes = []
        for name in CELLS:
            if name != BASE and name[0] not in ("use", "baseline"):
                other = cell(name, labels)
                alike = [row for row in cell(BASE, labels) if row["seed"] in {one["seed"] for one in other}]  # the same labelled volumes
                changes += compared(f"the base is more accurate than {name[0]} {name[1]}", alike, other, "dice", False)
        return {"What pretraining is worth": adjusted(worth), f"One thing changed at a time ({labels} labels)": adjusted(changes)}

    @styled
    def figure(self, tables: Tables) -> Figure:
        """Dice against the number of labelled volumes, of the cells that were run with each."""
        rows = [row for row in tables["rows"] if row]
        counts = sorted({int(row["labels"]) for row in rows}, key=lambda n: n or 10**9)
        made = Figure(figsize=(7, 3.8), layout="constrained")
        axes = made.subplots()
        every = [cell for cell, one in CELLS.items() if one.every]
        for index, cell in enumerate(every):
            found = [(i, picked(rows, None, RAW, option=cell[0], choice=cell[1], labels=str(n))) for i, n in enumerate(counts)]
            points = [(i, mean(here, "dice")) for i, here in found if here]
            if points:
                ends = [[abs(one.mean - one.low) for _, one in points], [abs(one.high - one.mean) for _, one in points]]
                at = [i + 0.04 * (index - len(every) / 2) for i, _ in points]
                look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "marker": "o"}
                axes.errorbar(at, [one.mean for _, one in points], yerr=ends, label=", ".join(cell), **look)
        axes.set_xticks(range(len(counts)), [str(n or "all") for n in counts])
        axes.set(xlabel="labelled training volumes", ylabel="Dice")
        axes.legend()
        return made


STUDY = Pretraining()


def lists(asked: Asked, count: int, seed: int) -> Path:
    return asked.out / "labelled" / f"{count or 'all'}-{seed}.json"


def pretrained(asked: Asked, name: str) -> Path:
    return asked.out / f"pretrained-{name}"


def pretraining(name: str, asked: Asked, budget: Budget) -> Job:
    """A network trained without labels: before those that stand on it, and body coordinates before all."""
    tree = bundled("bodyparts/small" if name == POSITIONS else PRETRAININGS[name])
    data, arguments = tree["data"], tree["method"]["init_args"]
    data["root"] = asked.data
    steps = budget.positions if name == POSITIONS else budget.pretraining
    tree["training"] |= {"steps": steps, "batch": budget.batch, "validate": steps, "warmup": min(100, steps // 10 + 1)}
    if "views" in data:
        data["views"] = {"size": budget.views, "voxels": budget.voxels}
    if name != POSITIONS:
        network = arguments["network"]["init_args"]
        network |= {"base": budget.base, "levels": budget.levels, "patch": [budget.crop] * 3}
        if "crop" in data:
            data["crop"] = budget.crop
            tree["task"]["init_args"]["patch"] = budget.crop
        if "projector" in arguments:
            arguments["projector"]["init_args"]["width"] = sum(widths(budget, "both"))
    match name:
        case "none":
            del data["coordinates"]
            network["coordinates"] = 0
        case "scrambled":
            data["coordinates"] = {"class_path": f"{COORDINATES}Scrambled"}
        case "learned":
            regressor = {"regressor": {"source": str(pretrained(asked, POSITIONS))}}
            data["coordinates"] = {"class_path": "somite.diffusion.learned_coordinates.Learned", "init_args": regressor}
    keys = (("option", "pretraining"), ("choice", name), ("labels", ""), ("seed", 0))
    return Job(
        pretrained(asked, name), keys, yaml.safe_dump(tree, sort_keys=False), Pretrained(), asked.threads, stage=int(name != POSITIONS)
    )


def widths(budget: Budget, side: str) -> list[int]:
    twice = 2 if side == "both" else 1
    return [twice * budget.base * 2**i for i in range(budget.levels - 1)] + [budget.base * 2 ** (budget.levels - 1)]


def recipe(cell: tuple[str, str], one: Cell, asked: Asked, budget: Budget, classes: list[int], count: int, seed: int) -> Tree:
    """A segmenter, with `count` labelled volumes."""
    make: Callable[..., Tree] = baseline if one.pretraining is None else probe
    tree = make(cell, one, asked, budget, classes)
    tree["task"]["init_args"] |= {"members": 1, "tolerance": 1}
    tree["data"] |= {"root": asked.data, "splits": str(lists(asked, count, seed))} | ({"labels": classes} if len(classes) > 2 else {})
    steps = tree["training"]["steps"]
    tree["training"] |= {"seed": seed, "batch": budget.batch, "validate": steps, "patience": None, "warmup": min(50, steps // 10 + 1)}
    return tree


def probe(cell: tuple[str, str], one: Cell, asked: Asked, budget: Budget, classes: list[int]) -> Tree:
    tree = bundled("probe/small")
    network = tree["method"]["init_args"]["network"]["init_args"]["network"]
    told = {"timesteps": [10, 30, 60], **dict(one.probe)}
    assert one.pretraining is not None
    network["init_args"] = {"backbone": {"source": str(pretrained(asked, one.pretraining))}, **told}
    tree["method"]["init_args"]["network"] = network  # volumes of a study are answered whole
    tree["data"]["crop"] = budget.crop
    tuned = "tune" in told
    tree["training"] |= {"steps": budget.tuning if tuned else budget.probe, "rate": 1e-3 if tuned else 3e-3}
    of_classes(tree, network, classes)
    return tree


def baseline(cell: tuple[str, str], one: Cell, asked: Asked, budget: Budget, classes: list[int]) -> Tree:
    """DynUNet of about the backbone's size, or an automaton as its recipe has it."""
    if cell[1] in AUTOMATA:
        tree = bundled(AUTOMATA[cell[1]])
        tree["training"] |= {"steps": budget.automaton}
        return tree
    tree = bundled("dynunet/images")
    alike = bundled("ctpretrain/small")["data"]
    tree["data"] = {
        "root": None,
        "preprocess": alike["preprocess"],
        "augment": alike["augment"],
        "crop": budget.crop,
        "foreground_rate": 0.5,
    }
    network = tree["method"]["init_args"]["network"]
    network["init_args"] = {
        "dims": 3,
        "image_channels": 1,
        "channels": widths(budget, "encoder") if budget.levels > 2 else [8, 8, 8],
        "deep_heads": 1,
    }
    tree["training"] |= {"steps": budget.tuning, "rate": 1e-3}
    of_classes(tree, network, classes)
    return tree


def of_classes(tree: Tree, network: Tree, classes: list[int]) -> None:
    """Masks of several classes where the data have them."""
    if len(classes) > 2:
        tree["method"]["init_args"]["codec"] = {"class_path": "somite.diffusion.codec.OneHot", "init_args": {"classes": len(classes)}}
        network["init_args"]["mask_channels"] = len(classes)


def values(asked: Asked) -> list[int]:
    """The values of the masks, from a few of them."""
    return sorted({0, *(value for case in Data(asked.data).cases("train")[:LOOKED_AT] for value in mask_values(case))})
