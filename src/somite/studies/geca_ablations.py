"""The open questions of GeCA (arXiv 2407.03018): what of its cells makes images, each choice against the same base.

All are trained alike: in the latents of an autoencoder that is trained first, on the study's own training images, without labels. The base
trains with the hidden numbers that sampling inherits (`diffusion.heredity.Chained`). Every other cell changes one thing:

    heredity            trained, not inherited     the base's weights, cells begun anew at every step
                        untrained                  inherited in sampling alone, as published
                        untrained, not inherited   these weights, begun anew
    radius              2, all                     how far a cell sees
    updates             1 ... 48                   of the base's weights, which were trained with one number of them
    varied updates      1 ... 48                   weights whose training drew the number anew for each batch
    distilled updates   1 ... 48                   weights that also learned to say early what they say at last
    steps               10, 50                     reverse steps of the base's weights
    network             DiT                        the published baseline, at the same steps of training

Images are compared by KID, with the same autoencoder's latents as features.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml
from matplotlib.figure import Figure

from ..study import latents
from ..study.figures import spans
from ..study.jobs import Job
from ..study.scores import FEATURES, Scores, Way, kid_of
from ..study.study import Asked, Study, Tables
from ..study.trees import Tree, bundled, changed, dataset, part
from ..study.verdict import Claim
from ..study.wholes import RULE, Cell, cells, compared, differences, table
from ..style import COLOURS, styled

BASE = ("base", "heredity trained")
KID = {"kid": "KID"}


@dataclass(frozen=True)
class Budget:
    """size: of images; crop: of the autoencoder's training; members: images drawn for each test case; updates, steps: of sampling."""

    steps: int
    ae_steps: int
    batch: int
    size: int
    crop: int
    members: int
    seeds: int
    reverse_steps: int
    autoencoder: Tree
    network: Tree
    dit: Tree
    updates: tuple[int, ...] = (1, 2, 4, 8, 12, 24, 48)
    others: tuple[int, ...] = (10, 50)


BUDGETS = {
    "smoke": Budget(
        steps=3,
        ae_steps=2,
        batch=2,
        size=32,
        crop=16,
        members=2,
        seeds=1,
        reverse_steps=2,
        autoencoder={"channels": 32, "mults": [1, 1, 1], "blocks": 1},
        network={"hidden": 4, "width": 16, "heads": 2, "mlp": 16, "updates": 2},
        dit={"width": 16, "depth": 1, "heads": 2},
        updates=(1, 3),
        others=(3,),
    ),
    "cpu": Budget(
        steps=500,
        ae_steps=600,
        batch=8,
        size=64,
        crop=32,
        members=2,
        seeds=3,
        reverse_steps=25,
        autoencoder={"channels": 32, "mults": [1, 1, 2], "blocks": 1},
        network={"hidden": 24, "width": 64, "heads": 4, "mlp": 128, "updates": 8},
        dit={"width": 96, "depth": 6, "heads": 4},
    ),
    "paper": Budget(
        steps=100_000,
        ae_steps=50_000,
        batch=32,
        size=256,
        crop=256,
        members=4,
        seeds=3,
        reverse_steps=50,
        autoencoder={"channels": 128, "mults": [1, 2, 4, 4], "blocks": 2},
        network={"hidden": 64, "width": 768, "heads": 12, "mlp": 3072, "updates": 12, "checkpointing": True},
        dit={"width": 384, "depth": 12, "heads": 6},
    ),
}


def untrained(arguments: Tree) -> None:
    arguments["heredity"] = {"class_path": "somite.diffusion.heredity.InSampling"}


def varied(arguments: Tree) -> None:
    network = arguments["network"]["init_args"]
    network["least"] = max(1, network["updates"] // 2)


def distilled(arguments: Tree) -> None:
    arguments["network"]["init_args"]["early"] = True
    arguments["terms"]["early"] = {"class_path": "somite.diffusion.terms.Early"}


# What is trained: what it changes of the base.
CELLS = {
    BASE: lambda arguments: None,
    ("heredity", "untrained"): untrained,
    ("radius", "2"): changed("network.radius", 2),
    ("radius", "all"): changed("network.radius", None),
    ("varied updates", "as trained"): varied,
    ("distilled updates", "as trained"): distilled,
    ("network", "DiT"): lambda arguments: None,
}
SERIES = {BASE: "updates", ("varied updates", "as trained"): "varied updates", ("distilled updates", "as trained"): "distilled updates"}


class Ablations(Study):
    title = "GeCA's open questions"
    columns = ("option", "choice")
    metrics: ClassVar[dict[str, str]] = KID
    rule = RULE

    def jobs(self, asked: Asked) -> list[Job]:
        budget = budget_of(asked)
        asked.known([*CELLS])
        made = []
        for cell in filter(asked.wants, CELLS):
            for seed in asked.seeded(budget.seeds):
                text = yaml.safe_dump(recipe(cell, asked, budget, seed), sort_keys=False)
                folder = asked.out / f"{cell[0]}-{cell[1]}-{seed}".lower().replace(" ", "-")
                keys = (("option", cell[0]), ("choice", cell[1]), ("seed", seed))
                made.append(
                    Job(
                        folder,
                        keys,
                        text,
                        Scores(budget.members, ways(cell, budget, str(autoencoder(asked)), swept=seed == 0)),
                        asked.threads,
                    )
                )
        return made

    def prepare(self, asked: Asked) -> None:
        """The autoencoder in whose latents all is done."""
        budget = budget_of(asked)
        data = dataset(bundled("geca/small")["data"], asked.data, budget.size)
        part(autoencoder(asked), latents.autoencoder(data, budget.autoencoder, budget.ae_steps, 2 * budget.batch, budget.crop))

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        found = measured(tables)

        def nearer(words: str, first: tuple[str, str], second: tuple[str, str]) -> list[Claim]:
            return compared(f"{words}: lower KID", found.get(first), found.get(second), "kid", True)

        heredity = [
            *nearer("heredity that was trained beats heredity that was not", BASE, ("heredity", "untrained")),
            *nearer("where it was trained, inheriting beats beginning anew", BASE, ("heredity", "trained, not inherited")),
            *nearer(
                "where it was not (as published), inheriting beats beginning anew",
                ("heredity", "untrained"),
                ("heredity", "untrained, not inherited"),
            ),
            *nearer("trained and inherited beats untrained and begun anew", BASE, ("heredity", "untrained, not inherited")),
        ]
        others = [
            one
            for cell in found
            if cell != BASE and cell[0] != "heredity"
            for one in nearer(f"the base beats {' '.join(cell)}", BASE, cell)
        ]
        return {"Heredity": heredity, "One thing changed at a time": others}

    def told(self, tables: Tables) -> list[str]:
        found = measured(tables)
        by = "KID by the latents of the study's autoencoder; an estimate may be below 0. Infinite: numbers left their range."
        return [table(found, self.columns, KID), by, "Less the base:", differences(found, BASE, self.columns, KID)]

    @styled
    def figure(self, tables: Tables) -> Figure:
        """KID of every cell, and against the number of updates."""
        found = measured(tables)
        swept = [*SERIES.values()]
        plain = {cell: one for cell, one in found.items() if cell[0] not in swept or cell[1] == "as trained"}
        made = Figure(figsize=(9, 1.6 + 0.3 * len(plain)), layout="constrained")
        left, right = made.subplots(1, 2)
        spans(left, [": ".join(cell) for cell in plain], [one.interval("kid") for one in plain.values()], "KID")
        for index, name in enumerate(swept):
            points = sorted((int(cell[1]), one) for cell, one in found.items() if cell[0] == name and cell[1].isdigit())
            right.plot(
                [count for count, _ in points],
                [one.interval("kid").mean for _, one in points],
                marker="o",
                label=name,
                color=COLOURS[index],
            )
        right.set(xscale="log", yscale="symlog", xlabel="updates a call in sampling", ylabel="KID")
        right.legend()
        return made


STUDY = Ablations()


def measured(tables: Tables) -> dict[tuple, Cell]:
    return cells(tables.get(FEATURES, []), Ablations.columns, kid_of)


def budget_of(asked: Asked) -> Budget:
    budget = asked.chosen(BUDGETS)
    return replace(budget, steps=asked.steps or budget.steps)


def ways(cell: tuple[str, str], budget: Budget, extractor: str, swept: bool) -> tuple[Way, ...]:
    """How the run of a cell is sampled, as itself and for further cells. swept: also with other numbers of updates and steps, which takes
    longer than the training and is done for the first seed alone.
    """
    found = [Way()]
    if cell == BASE:
        found += [Way(("heredity", "trained, not inherited"), (("heredity", "anew"),))]
    if cell == BASE and swept:
        found += [Way(("steps", str(steps)), (("steps", steps),)) for steps in budget.others]
    if cell == ("heredity", "untrained"):
        found += [Way(("heredity", "untrained, not inherited"), (("heredity", "anew"),))]
    if cell in SERIES and swept:
        found += [Way((SERIES[cell], str(updates)), (("updates", updates),)) for updates in budget.updates]
    return tuple(replace(way, options=(*way.options, ("extractor", extractor))) for way in found)


def autoencoder(asked: Asked) -> Path:
    return asked.out / "autoencoder"


def recipe(cell: tuple[str, str], asked: Asked, budget: Budget, seed: int) -> Tree:
    """One recipe of the grid."""
    tree = bundled("dit/small" if cell == ("network", "DiT") else "geca/small")
    tree["data"] = dataset(tree["data"], asked.data, budget.size)
    tree["training"] |= {"steps": budget.steps, "batch": budget.batch, "seed": seed, "validate": max(1, budget.steps // 3)}
    arguments: dict[str, Any] = tree["method"]["init_args"]
    sizes = budget.dit if cell == ("network", "DiT") else budget.network
    arguments["network"]["init_args"] |= deepcopy(sizes)
    latents.in_latents(arguments, arguments["network"], autoencoder(asked))
    arguments["sampler"]["init_args"]["steps"] = budget.reverse_steps
    if cell != ("network", "DiT"):
        arguments["heredity"] = {"class_path": "somite.diffusion.heredity.Chained"}
    CELLS[cell](arguments)
    return tree
