"""Does a run give the same answer twice? Many seeds over the same cases, after the protocol of SDSeg (Lin et al., MICCAI 2024).

Each seed answers every case once, with the run's members (one by default); all are compared with the first seed, the reference.

- Of the probability maps: PSNR, SSIM and MS-SSIM of an image against the reference's, mean over seeds, then over the images of a case,
  then over cases; and LPIPS where AlexNet's weights are at hand. An image is a 2D case, or a slice of a volume in its own geometry along
  `preprocess.axis`, for 3D networks too; of several classes, the map of each foreground class is an image. Images in which the
  reference's mask is empty are left out, and counted; so are those of them in which another seed finds something, which these means do
  not see. Equal maps have an infinite PSNR: such pairs are left out of its mean, and counted.
- Of the masks, with no case left out: the mean Dice of all pairs of seeds, foreground classes averaged, and the share of pixels on
  which any two differ, which grows with the number of seeds.
- Of Dice to the truth: its standard deviation over seeds (n - 1) of each case, and that of the whole set's mean, the number that a
  paper prints.

Published maps were PNG files, 0 to 255, and the range of values was left to the images themselves, so that the same difference weighs
more between faint maps. Here: maps in [0, 1] of range 1. `published` repeats the original, where also every image counts once and not
every case. Not on record, and our reading: values are cut to 8 bits and not rounded, and it is the reference that is empty. Published
seeds drew one noise for all images, here each image has its own; LPIPS was averaged over batches of 50, here over images.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import tensors
from ..data.digest import digest
from ..data.record import Case
from ..diffusion.methods import FeedForward
from ..environment import environment
from ..errors import InputError
from ..evaluation import fingerprint, line, write_rows
from ..files import sha256, write_json
from ..metrics import lpips
from ..metrics.intervals import as_json, interval
from ..parts import Parts
from ..pipeline import Run
from ..tasks.segmentation import Segmentation
from ..tasks.task import Row
from ..wording import count
from . import figures
from .stability_case import MAPS, SIDES, Comparison, Part, of_case
from .stability_figure import figure, look_of

COUNTS = ("empty", "empty_here_only", "equal_pairs")
MASKS = ("pairwise_dice", "disputed_pixels", "dice", "dice_std")


def analyse_stability(
    run: Run,
    out: Path,
    split: str = "test",
    seeds: int = 10,
    limit: int | None = None,
    weights: Path | None = None,
    published: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Path]:
    """Writes stability.csv (a row for each case), seeds.csv (for each seed: the set's mean Dice), summary.json, stability.svg and .png.

    seeds: so many, from the run's own seed on. limit: the first so many cases. weights: AlexNet's, for LPIPS. Stopped on the way, it
    goes on from the cases that are done.
    """
    if seeds < 2 or (limit is not None and limit < 1):
        raise InputError(f"--seeds {seeds} and --limit {limit}: give at least two seeds, which can differ, and at least one case")
    if not isinstance(run.recipe.task, Segmentation):
        raise InputError(f"{run.path} is no segmentation, and has no masks whose stability could be measured")
    cases, first = run.recipe.data.cases(split)[:limit], run.sampling.seed
    run.unseen(cases)
    compare = Comparison(None if weights is None else lpips.Lpips(tensors(weights)), published)
    numbers = list(range(first, first + seeds))
    refuse_the_deterministic(run, cases[0], numbers)
    settings = {"seeds": numbers, "published": published, "lpips": None if weights is None else sha256(weights)}
    parts = Parts(out / "stability.parts", {**fingerprint(run), **settings})
    found = [parts.get(digest([case]), lambda case=case: of_case(run, case, numbers, compare)) for case in progress(cases)]
    rows, by_seed = [row(part) for part in found], of_seeds(found, numbers)
    about = {"run": run.path.name, "split": split, "limit": limit, **run.told, **settings}
    about |= {**concluded(found, rows, by_seed, settings), "data": {"digest": digest(cases)}, "environment": environment()}
    paths = {"rows": out / "stability.csv", "seeds": out / "seeds.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], rows)
    write_rows(paths["seeds"], by_seed)
    write_json(paths["summary"], about)
    least = int(np.argmin([one["pairwise_dice"] for one in rows]))
    look = look_of(run, cases[least], numbers, found[least]["slice"])
    paths["svg"], paths["png"] = figures.save(figure(look, rows, by_seed), out, "stability")
    parts.clear()
    return paths


def refuse_the_deterministic(run: Run, case: Case, seeds: Sequence[int]) -> None:
    """A feed-forward run may draw all the same, as cells that fire at random do: two of its answers are looked at."""
    if not all(isinstance(one.method, FeedForward) for one in run.runs):
        return
    one, other = (run.at(seed=seed).answer(case).probability for seed in seeds[:2])
    if np.array_equal(one, other):
        raise InputError(
            f"{run.path} gives the same answer at every seed, so there is nothing to measure; give a run that draws its answers"
        )


def row(part: Part) -> Row:
    """A row of stability.csv; None where a measure has no value."""
    values = {name: [value for value in part["images"][name] if value is not None] for name in MAPS}
    return {
        "case": part["case"],
        "group": part["group"],
        "images": len(part["images"]["psnr"]),
        **{name: part[name] for name in COUNTS},
        **{name: float(np.mean(some)) if some else None for name, some in values.items()},
        **{name: part[name] for name in MASKS[:2]},
        "dice": float(np.mean(part["dice"])),
        "dice_std": float(np.std(part["dice"], ddof=1)),
    }


def of_seeds(found: Sequence[Part], seeds: Sequence[int]) -> list[Row]:
    """The set's mean Dice at each seed, with its interval over groups."""
    groups = [part["group"] for part in found]
    return [{"seed": seed, **as_json(interval([part["dice"][i] for part in found], groups))} for i, seed in enumerate(seeds)]


def concluded(found: Sequence[Part], rows: Sequence[Row], by_seed: Sequence[Row], settings: dict[str, Any]) -> dict[str, Any]:
    """What the whole set says: means with intervals, what was left out of them, and Dice over seeds."""
    metrics, unmeasured = {}, {}
    for name in (*MAPS, *MASKS):
        if settings["published"] and name in MAPS:
            known = [(value, part["group"]) for part in found for value in part["images"][name] if value is not None]
        else:
            known = [(one[name], one["group"]) for one in rows if one[name] is not None]
        if known:
            values, groups = zip(*known, strict=True)
            metrics[name] = as_json(interval(values, groups))
        else:
            unmeasured[name] = why_not(name, rows, settings["lpips"] is None)
    means = [one["mean"] for one in by_seed]
    dice = {"mean": float(np.mean(means)), "std": float(np.std(means, ddof=1)), "min": min(means), "max": max(means)}
    counts = {name: sum(one[name] for one in rows) for name in ("images", *COUNTS)} | {"pairs": sum(part["pairs"] for part in found)}
    return {"metrics": metrics, "unmeasured": unmeasured, "mean_dice_over_seeds": dice, "counts": counts}


def why_not(name: str, rows: Sequence[Row], without_weights: bool) -> str:
    if name == "lpips" and without_weights:
        return f"download {lpips.ORIGIN} and give it with --lpips {lpips.WEIGHTS}"
    if not any(one["images"] for one in rows):
        return "every mask of the first seed is empty"
    return f"images under {SIDES[name]} pixels" if name in SIDES else "all maps are equal"


def table(told: dict[str, Any]) -> str:
    """The summary as text."""
    seeds, dice, counts = told["seeds"], told["mean_dice_over_seeds"], told["counts"]
    how = f"{count(told['members'], 'member')} and {count(told['steps'], 'reverse step')} each" + (
        ", maps as published" if told["published"] else ""
    )
    lines = [
        f"{told['split']}: {count(told['metrics']['dice']['cases'], 'case')}, seeds {seeds[0]} to {seeds[-1]}, {how}; mean [95 % interval]"
    ]
    lines += [line(name, told["metrics"][name]) for name in (*MAPS, *MASKS) if name in told["metrics"]]
    lines += [f"  {name:24} not measured: {why}" for name, why in told["unmeasured"].items()]
    lines.append(
        f"mean Dice of the set, over seeds: {dice['mean']:.4f}, standard deviation {dice['std']:.4f}, from {dice['min']:.4f} to {dice['max']:.4f}"
    )
    here = f"{counts['empty']} of {count(counts['empty'] + counts['images'], 'image')}"
    lines.append(
        f"left out of what is said of maps: {here} with no foreground at seed {seeds[0]} (some at another: {counts['empty_here_only']})"
    )
    lines.append(f"left out of psnr alone: {counts['equal_pairs']} of {count(counts['pairs'], 'pair')} of maps, equal to the last bit")
    return "\n".join(lines)
