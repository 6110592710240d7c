"""The open questions of SDSeg (arXiv 2406.18361): what of it makes one reverse step enough, each choice against the same base.

The base predicts the latent itself (squared error) from means of the posterior, with a trained vision encoder beside the noisy latent, and is asked in
one step. Every other cell changes one thing:

    prediction      eps (absolute errors of noise and latent, as published), eps with lambda 0 (of noise alone), v
    posterior       sampled, as published
    scale           0.18215, that of Stable Diffusion's photographs, instead of the first batch's
    encoder         partial, frozen
    fusion          cross-attention
    latent channels 2, 8, 16
    decoder         tiny, distilled from the autoencoder
    steps           2, 5, 10, 50 of the base's own weights
    twin            the same network feed-forward: latent regression, nothing to denoise
    baseline        DynUNet, at the same size, steps and batch

Nothing is downloaded: the autoencoders are trained first, on the study's own training images and masks.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from ..study.figures import spans
from ..study.jobs import ROWS, Job
from ..study.masks import RAW, Answer, Masks
from ..study.study import Asked, Study, Tables
from ..study.trees import Tree, bundled, changed, dataset, folder_name, part
from ..study.verdict import Claim, adjusted, compared, mean, picked
from ..style import COLOURS, styled

BASE = ("base", "one step")
STEPS = (2, 5, 10, 50)
LATENT = "somite.diffusion.terms."
EPS = {"class_path": f"{LATENT}Noise", "init_args": {"power": 1}}
CLEAN = {"class_path": f"{LATENT}Clean"}


@dataclass(frozen=True)
class Budget:
    """autoencoder, network: constructor arguments; steps: of training; ae_steps: of an autoencoder's, crop: what it is trained on."""

    steps: int
    ae_steps: int
    batch: int
    size: int
    crop: int
    members: int
    seeds: int
    autoencoder: Tree
    network: Tree
    rate: float
    sampling: tuple[int, ...] = STEPS


BUDGETS = {
    "smoke": Budget(
        steps=4,
        ae_steps=2,
        batch=2,
        size=32,
        crop=16,
        members=2,
        seeds=1,
        autoencoder={"channels": 32, "mults": [1, 1], "blocks": 1},
        network={"channels": 32, "mults": [1, 1], "res_blocks": 1, "attention": [2], "heads": 4},
        rate=5e-4,
        sampling=(2,),
    ),
    "cpu": Budget(
        steps=1200,
        ae_steps=800,
        batch=4,
        size=128,
        crop=64,
        members=5,
        seeds=1,
        autoencoder={"channels": 32, "mults": [1, 1, 2, 2], "blocks": 1},
        network={"channels": 64, "mults": [1, 2, 2], "res_blocks": 1, "attention": [2, 4], "heads": 4, "dropout": 0.1},
        rate=1e-3,
    ),
    "paper": Budget(
        steps=100_000,
        ae_steps=50_000,
        batch=4,
        size=256,
        crop=256,
        members=5,
        seeds=3,
        autoencoder={"channels": 128, "mults": [1, 2, 4, 4], "blocks": 2},
        network={},
        rate=4e-5,
    ),
}


def noise(weight: float | None) -> Callable[[Tree], None]:
    """Noise prediction at all timesteps alike, with the latent loss of this weight."""

    def change(arguments: Tree) -> None:
        arguments["predicts"] = "eps"
        latent = {} if weight is None else {"latent": {"class_path": f"{LATENT}Clean", "init_args": {"power": 1, "weight": weight}}}
        arguments["terms"] = {"noise": EPS, **latent}
        del arguments["timesteps"]

    return change


def velocity(arguments: Tree) -> None:
    arguments["predicts"] = "v"
    arguments["terms"] = {"noise": {"class_path": f"{LATENT}Noise"}, "latent": CLEAN}


# (option, choice): what it changes of the base, the latent channels of its autoencoder, and whether the tiny decoder is its codec's.
CELLS: dict[tuple[str, str], Callable[[Tree], None]] = {
    BASE: lambda arguments: None,
    ("prediction", "eps"): noise(1.0),
    ("prediction", "eps, lambda 0"): noise(None),
    ("prediction", "v"): velocity,
    ("posterior", "sampled"): changed("codec.posterior", "sample"),
    ("scale", "0.18215"): changed("codec.scale", 0.18215),
    ("encoder", "partial"): changed("network.encoder_training", "partial"),
    ("encoder", "frozen"): changed("network.encoder_training", "frozen"),
    ("fusion", "cross-attention"): changed("network.fusion", "cross-attention"),
    ("latent channels", "2"): lambda arguments: None,
    ("latent channels", "8"): lambda arguments: None,
    ("latent channels", "16"): lambda arguments: None,
    ("decoder", "tiny"): lambda arguments: None,
}
TWIN, BASELINE = ("twin", "feed-forward"), ("baseline", "DynUNet")


class Ablations(Study):
    title = "SDSeg's open questions"
    columns = ("option", "choice")

    def jobs(self, asked: Asked) -> list[Job]:
        budget = budget_of(asked)
        grid = [*CELLS, TWIN, BASELINE]
        asked.known(grid)
        made = []
        for cell in filter(asked.wants, grid):
            for seed in asked.seeded(budget.seeds):
                text = yaml.safe_dump(recipe(cell, asked, budget, seed), sort_keys=False)
                answers = (Answer("sample", (1, budget.members)),) if cell not in (TWIN, BASELINE) else (Answer("sample", (1,)),)
                if cell == BASE:
                    answers += tuple(Answer("sample", (1,), steps, ("steps", str(steps))) for steps in budget.sampling)
                keys = (("option", cell[0]), ("choice", cell[1]), ("seed", seed))
                made.append(Job(asked.out / folder_name(*cell, seed), keys, text, Masks(answers), asked.threads))
        return made

    def prepare(self, asked: Asked) -> None:
        """The autoencoders, and the tiny decoder, that the wanted cells stand on."""
        budget, wanted = budget_of(asked), [cell for cell in (*CELLS, TWIN) if asked.wants(cell)]
        for channels in dict.fromkeys(channels_of(cell) for cell in wanted):
            part(autoencoder(asked, channels), autoencoder_recipe(asked, budget, channels))
        if ("decoder", "tiny") in wanted:
            part(asked.out / "tiny", tiny_recipe(asked, budget))

    def claims(self, tables: Tables) -> dict[str, list[Claim]]:
        rows = tables[ROWS]

        def of(cell: tuple[str, str]) -> list[dict[str, Any]]:
            return picked(rows, 1, RAW, option=cell[0], choice=cell[1])

        base = of(BASE)
        against = [cell for cell in (*CELLS, TWIN, BASELINE) if cell != BASE]
        made = [
            one
            for cell in against
            for one in compared(f"the base is more accurate than {cell[0]} {cell[1]}", base, of(cell), "dice", False)
        ]
        steps = dict.fromkeys(row["choice"] for row in rows if row["option"] == "steps")
        more = [one for n in steps for one in compared(f"{n} steps are more accurate than one", of(("steps", n)), base, "dice", False)]
        paper = compared(
            "the latent loss helps noise prediction", of(("prediction", "eps")), of(("prediction", "eps, lambda 0")), "dice", False
        )
        return {"One thing changed at a time": adjusted(made), "Claims of the paper": adjusted([*more, *paper])}

    @styled
    def figure(self, tables: Tables) -> Figure:
        """Dice of every cell, one member each; and of the base against its reverse steps."""
        rows = tables[ROWS]
        cells = [cell for cell in dict.fromkeys((row["option"], row["choice"]) for row in rows) if cell[0] != "steps"]
        curve = [(1, BASE), *((int(row["choice"]), ("steps", row["choice"])) for row in rows if row["option"] == "steps")]
        made = Figure(figsize=(9, 1.6 + 0.3 * len(cells)), layout="constrained")
        left, right = made.subplots(1, 2)
        found = [mean(picked(rows, 1, RAW, option=option, choice=choice), "dice") for option, choice in cells]
        spans(left, [f"{option}: {choice}" for option, choice in cells], found, "Dice")
        points = sorted(dict(curve).items())
        steps = [(count, mean(here, "dice")) for count, cell in points if (here := picked(rows, 1, RAW, option=cell[0], choice=cell[1]))]
        right.errorbar(
            [count for count, _ in steps],
            [one.mean for _, one in steps],
            yerr=[[one.mean - one.low for _, one in steps], [one.high - one.mean for _, one in steps]],
            marker="o",
            color=COLOURS[0],
        )
        right.set(xscale="log", xlabel="reverse steps of the same weights", ylabel="Dice")
        right.set_xticks([count for count, _ in steps], [str(count) for count, _ in steps])
        right.minorticks_off()
        return made


STUDY = Ablations()


def budget_of(asked: Asked) -> Budget:
    budget = asked.chosen(BUDGETS)
    return replace(budget, steps=asked.steps or budget.steps)


def channels_of(cell: tuple[str, str]) -> int:
    return int(cell[1]) if cell[0] == "latent channels" else 4


def autoencoder(asked: Asked, channels: int) -> Path:
    return asked.out / f"autoencoder-{channels}"


def autoencoder_recipe(asked: Asked, budget: Budget, channels: int) -> Tree:
    tree = bundled("autoencoder/small")
    tree["data"] = {**dataset(tree["data"], asked.data, budget.size), "crop": budget.crop}
    tree["method"]["init_args"]["network"]["init_args"] = {**budget.autoencoder, "latent_channels": channels}
    tree["training"] |= {"steps": budget.ae_steps, "batch": 2 * budget.batch, "validate": max(1, budget.ae_steps // 2)}
    return tree


def tiny_recipe(asked: Asked, budget: Budget) -> Tree:
    tree = bundled("autoencoder/tiny")
    tree["data"] = dataset(tree["data"], asked.data, budget.size)
    tree["method"]["init_args"]["network"]["init_args"]["teacher"] = {"source": str(autoencoder(asked, 4))}
    tree["training"] |= {"steps": budget.ae_steps // 2, "batch": budget.batch, "validate": max(1, budget.ae_steps // 4)}
    return tree


def recipe(cell: tuple[str, str], asked: Asked, budget: Budget, seed: int) -> Tree:
    """One recipe of the grid."""
    tree = bundled("sdseg/small")
    tree["data"] = dataset(tree["data"], asked.data, budget.size)
    training = {"steps": budget.steps, "batch": budget.batch, "seed": seed, "validate": max(1, budget.steps // 4)}
    training |= {"warmup": min(100, budget.steps // 10 + 1)}
    if cell == BASELINE:
        other = bundled("dynunet/demo")
        other["data"] = {
            **tree["data"],
            "preprocess": {**tree["data"]["preprocess"], "normalise": {"class_path": "somite.data.normalise.Unit"}},
        }
        other["training"] |= training
        return other
    tree["task"]["init_args"] = {"members": budget.members, "tolerance": 2}
    tree["training"] |= {**training, "rate": budget.rate}
    channels, arguments = channels_of(cell), tree["method"]["init_args"]
    source = str(autoencoder(asked, channels))
    sizes = {f"encoder_{name}": value for name, value in budget.autoencoder.items()}
    arguments["network"]["init_args"] = {**budget.network, **sizes, "latent_channels": channels, "encoder_start": {"weights": source}}
    arguments["codec"]["init_args"] = {"posterior": "mean", "weights": {"source": source}}
    if cell == ("decoder", "tiny"):
        arguments["codec"]["init_args"]["decoder"] = {"source": str(asked.out / "tiny")}
    if cell == TWIN:
        kept = {name: deepcopy(arguments[name]) for name in ("network", "codec")}
        tree["method"] = {
            "class_path": "somite.diffusion.methods.FeedForward",
            "init_args": {**kept, "predicts": "x0", "terms": {"latent": CLEAN}},
        }
    else:
        CELLS[cell](arguments)
    return tree
