"""What are generated images worth to a classifier? The downstream question of GeCA (arXiv 2407.03018), for any labelled folder.

Generators (GeCA, and DiT as the baseline) learn the training cases with their labels, in the latents of an autoencoder that is trained
first, and draw images for these labels. Then classifiers are trained, each for as many steps, and all asked about the same test cases,
which nothing was trained on:

    real                    without and with plain augmentation (turning, scaling, colour)
    real + GeCA, + DiT      with 0.5, 1 ... generated images for each real one, plainly augmented too; with 1 also not augmented
    GeCA, DiT               generated images alone, one for each real one

A seed is another start of the classifier and, where the budget has folds, another fold: training and validation cases are divided anew by
patient, and the generators are trained on the fold's training cases alone. The test split stays.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import yaml
from matplotlib.figure import Figure

from ..metrics.classification import measures
from ..study import latents
from ..study.figures import spans
from ..study.jobs import Job
from ..study.scores import FEATURES, Draws, Scores, kid_of
from ..study.study import Asked, Study, Tables
from ..study.trees import Tree, bundled, part
from ..study.verdict import Claim
from ..study.wholes import RULE, Cell, Measure, Rows, cells, compared, differences, table
from ..style import COLOURS, styled
from ..tasks.classification.whole import Set

BASE = ("real", "plain")  # the published baseline
GENERATORS = {"GeCA": "geca/labels", "DiT": "dit/labels"}
METRICS = {"auc": "AUC", "map": "mAP", "f1": "F1", "sensitivity": "Sensitivity", "specificity": "Specificity", "kappa": "Kappa"}
KID = {"kid": "KID"}
PROBABILITIES = "probabilities"  # the classifier's table of each case
DRAWN = "drawn"


@dataclass(frozen=True)
class Budget:
    """autoencoder, generator, classifier: steps of training. size, crop: of the images that are generated, and of the autoencoder's
    training; seen: of the images that classifiers see. sizes: of the autoencoder; networks: constructor arguments by generator. folds: 0
    takes the data's own split.
    """

    autoencoder: int
    generator: int
    classifier: int
    size: int
    crop: int
    seen: int
    batch: int
    reverse_steps: int
    guidance: float
    seeds: int
    folds: int
    ratios: tuple[float, ...]
    sizes: Tree
    networks: dict[str, Tree]
    channels: tuple[int, int, int, int]  # of the classifier


BUDGETS = {
    "smoke": Budget(
        autoencoder=2,
        generator=2,
        classifier=2,
        size=16,
        crop=16,
        seen=16,
        batch=4,
        reverse_steps=2,
        guidance=1.5,
        seeds=1,
        folds=2,
        ratios=(0.5, 1),
        sizes={"channels": 32, "mults": [1, 1], "blocks": 1},
        networks={"GeCA": {"hidden": 4, "width": 16, "heads": 2, "mlp": 16, "updates": 2}, "DiT": {"width": 16, "depth": 1, "heads": 2}},
        channels=(4, 4, 8, 8),
    ),
    "cpu": Budget(
        autoencoder=600,
        generator=1500,
        classifier=400,
        size=64,
        crop=32,
        seen=32,
        batch=8,
        reverse_steps=20,
        guidance=1.5,
        seeds=3,
        folds=0,
        ratios=(0.5, 1),
        sizes={"channels": 32, "mults": [1, 1, 2], "blocks": 1},
        networks={"GeCA": {"hidden": 24, "width": 64, "heads": 4, "mlp": 128, "updates": 8}, "DiT": {"width": 96, "depth": 6, "heads": 4}},
        channels=(16, 32, 64, 128),
    ),
    "paper": Budget(
        autoencoder=50_000,
        generator=100_000,
        classifier=20_000,
        size=256,
        crop=256,
        seen=224,
        batch=32,
        reverse_steps=50,
        guidance=1.5,
        seeds=5,
        folds=5,
        ratios=(0.5, 1, 2, 5),
        sizes={"channels": 128, "mults": [1, 2, 4, 4], "blocks": 2},
        networks={
            "GeCA": {"hidden": 64, "width": 768, "heads": 12, "mlp": 3072, "updates": 12, "checkpointing": True},
            "DiT": {"width": 384, "depth": 12, "heads": 6},
        },
        channels=(64, 128, 256, 512),
    ),
}


class Augmentation(Study):
    title = "What generated images are worth to a classifier"
    columns = ("training", "augmentation")
    metrics: ClassVar[dict[str, str]] = METRICS
    rule = RULE

    def jobs(self, asked: Asked) -> list[Job]:
        budget = budget_of(asked)
        grid = cells_of(budget)
        asked.known(grid)
        wanted = [cell for cell in grid if asked.wants(cell)]
        made: dict[Path, Job] = {}
        for seed in asked.seeded(budget.seeds):
            for name in GENERATORS:
                if any(name in cell[0] for cell in wanted):
                    job = drawing(name, asked, budget, seed)
                    made.setdefault(job.folder, job)  # one for all seeds, where there are no folds
            for cell in wanted:
                keys = (("training", cell[0]), ("augmentation", cell[1]), ("seed", seed))
                text = yaml.safe_dump(classifier(cell, asked, budget, seed), sort_keys=False)
                folder = asked.out / f"{cell[0]}-{cell[1]}-{seed}".lower().replace(" ", "").replace("+", "-")
                made[folder] = Job(folder, keys, text, Scores(), asked.threads, stage=1)
        return list(made.values())

    def prepare(self, asked: Asked) -> None:
        """The autoencoder in whose latents images are generated: of the training images of the data's own split."""
        budget = budget_of(asked)
        if any(name in cell[0] for cell in cells_of(budget) if asked.wants(cell) for name in GENERATORS):
            data = dataset(bundled("geca/labels")["data"], asked, budget.size)
            part(autoencoder(asked), latents.autoencoder(data, budget.sizes, budget.autoencoder, 2 * budget.batch, budget.crop))

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        found = measured(tables)
        base = found.get(BASE)
        helped = [
            one
            for cell in found
            if "+" in cell[0]
            for one in compared(f"{' '.join(cell)} beats real images with plain augmentation: AUC", found[cell], base, "auc", False)
        ]
        sets = drawn_sets(tables)
        rest = compared(
            "GeCA's images are nearer to real ones than DiT's: KID", sets.get(("GeCA", DRAWN)), sets.get(("DiT", DRAWN)), "kid", True
        )
        rest += compared("plain augmentation helps: AUC", base, found.get(("real", "none")), "auc", False)
        for name in GENERATORS:
            mixed, none = found.get((mixture(name, 1), "none")), found.get(("real", "none"))
            rest += compared(f"without plain augmentation, images of {name} help: AUC", mixed, none, "auc", False)
            rest += compared(f"images of {name} alone are worth less than real ones: AUC", found.get((name, "plain")), base, "auc", True)
        for cell in found:
            if "GeCA" in cell[0]:
                other = found.get((cell[0].replace("GeCA", "DiT"), cell[1]))
                rest += compared(f"{' '.join(cell)} beats DiT in its place: AUC", found[cell], other, "auc", False)
        return {"Did synthesis help?": helped, "And else": rest}

    def told(self, tables: Tables) -> list[str]:
        found = measured(tables)
        less = f"Less {' '.join(BASE)}, on the same test cases:"
        parts = [table(found, self.columns, METRICS), less, differences(found, BASE, self.columns, METRICS)]
        generators = drawn_sets(tables)
        if generators:
            parts += [
                "The generators, by the latents of the study's autoencoder against the test images:",
                table(generators, self.columns, KID),
            ]
        return parts

    @styled
    def figure(self, tables: Tables) -> Figure:
        """AUC and F1 of every cell."""
        found = measured(tables)
        made = Figure(figsize=(9, 1.6 + 0.3 * len(found)), layout="constrained")
        for index, (axes, metric) in enumerate(zip(made.subplots(1, 2, sharey=True), ("auc", "f1"), strict=True)):
            spans(
                axes,
                [", ".join(cell) for cell in found],
                [cell.interval(metric) for cell in found.values()],
                METRICS[metric],
                COLOURS[index],
            )
        return made


STUDY = Augmentation()


def cells_of(budget: Budget) -> list[tuple[str, str]]:
    mixed = [(mixture(name, ratio), "plain") for name in GENERATORS for ratio in budget.ratios]
    bare = [(mixture(name, 1), "none") for name in GENERATORS]
    return [("real", "none"), BASE, *mixed, *bare, *((name, "plain") for name in GENERATORS)]


def mixture(name: str, ratio: float) -> str:
    return f"real + {ratio:g} {name}"


def measured(tables: Tables) -> dict[tuple, Cell]:
    return cells(tables.get(PROBABILITIES, []), Augmentation.columns, of_run)


def drawn_sets(tables: Tables) -> dict[tuple, Cell]:
    return cells(tables.get(FEATURES, []), Augmentation.columns, kid_of)


def of_run(rows: Rows) -> tuple[dict[str, Measure], list[str]]:
    found = Set.of(rows)
    return {name: one for name, one in measures(found.p, found.y, found.exclusive).items() if name in METRICS}, found.groups


def budget_of(asked: Asked) -> Budget:
    budget = asked.chosen(BUDGETS)
    return replace(budget, classifier=asked.steps or budget.classifier, generator=asked.steps or budget.generator)


def fold_of(budget: Budget, seed: int) -> int | None:
    return seed % budget.folds if budget.folds else None


def drawn(name: str, asked: Asked, budget: Budget, seed: int) -> Path:
    """Where a generator's images lie."""
    return asked.out / f"{name}-{fold_of(budget, seed) or 0}".lower() / DRAWN


def drawing(name: str, asked: Asked, budget: Budget, seed: int) -> Job:
    """Train a generator and let it draw as many images as the largest mixture takes."""
    out = drawn(name, asked, budget, seed)
    keys = (("training", name), ("augmentation", DRAWN), ("seed", fold_of(budget, seed) or 0))
    text = yaml.safe_dump(generator(name, asked, budget, seed), sort_keys=False)
    return Job(out.parent, keys, text, Draws(out, max(budget.ratios), str(autoencoder(asked))), asked.threads)


def dataset(data: Tree, asked: Asked, size: int, fold: Tree | None = None) -> Tree:
    normalise = {"class_path": "somite.data.normalise.Percentile"}
    return {**data, "root": asked.data, **(fold or {}), "preprocess": {"channels": 3, "size": [size, size], "normalise": normalise}}


def folded(budget: Budget, seed: int) -> Tree:
    """Arguments of the data that say which fold is the seed's."""
    fold = fold_of(budget, seed)
    return {} if fold is None else {"fold": fold, "folds": budget.folds}


def autoencoder(asked: Asked) -> Path:
    return asked.out / "autoencoder"


def generator(name: str, asked: Asked, budget: Budget, seed: int) -> Tree:
    tree = bundled(GENERATORS[name])
    tree["data"] = dataset(tree["data"], asked, budget.size, folded(budget, seed))
    arguments = tree["method"]["init_args"]
    guided = arguments["network"]["init_args"]
    guided["guidance"] = budget.guidance
    guided["network"]["init_args"] |= budget.networks[name]
    latents.in_latents(arguments, guided["network"], autoencoder(asked))
    arguments["sampler"]["init_args"]["steps"] = budget.reverse_steps
    tree["training"] |= {"steps": budget.generator, "batch": budget.batch, "validate": max(1, budget.generator // 3)}
    return tree


def classifier(cell: tuple[str, str], asked: Asked, budget: Budget, seed: int) -> Tree:
    tree = bundled("classifier/small")
    tree["data"] = dataset(tree["data"], asked, budget.seen, folded(budget, seed))
    if cell[1] == "none":
        tree["data"]["augment"] = None
    for name in GENERATORS:
        if name in cell[0]:
            share = 1.0 if cell[0] == name else float(cell[0].split()[2])
            tree["data"]["extra"] = {"root": str(drawn(name, asked, budget, seed)), "ratio": share, "alone": cell[0] == name}
    tree["method"]["init_args"]["network"]["init_args"] |= {"channels": list(budget.channels)}
    tree["training"] |= {"steps": budget.classifier, "seed": seed, "validate": max(1, budget.classifier // 4)}
    return tree
