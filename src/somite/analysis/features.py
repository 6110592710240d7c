"""Which timesteps and which maps of a pretrained network tell organs apart, from a few labelled volumes, in minutes.

Of each volume a few voxels of each class are read at each timestep. A linear discriminant (a probe with a closed form) is fitted on all
volumes but one and asked about that one, in turn. Voxels stand for as many of their class as there are, so that

    Dice_c = 2 sum w [said c and is c] / (sum w [said c] + sum w [is c])

estimates the Dice that this probe would have on all of the volume. So a choice of timesteps and maps costs no training (arXiv 2501.19265 reads
t = 10, 30 and 60 of the encoder; Baranchuk et al. 2022 t = 50, 150, 250 of the decoder).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.dataset import Data
from ..data.digest import digest
from ..data.record import Case, mask_values
from ..diffusion.methods import Diffusion
from ..diffusion.noise_level import Window, noise_hu, timestep, window_of
from ..environment import environment
from ..errors import InputError
from ..evaluation import fingerprint, write_rows
from ..files import write_json
from ..nn.pyramid import Backbone
from ..parts import Parts
from ..pipeline import Run
from ..tasks.task import Arrays, Row
from . import figures
from .discriminant import discriminant
from .features_figure import by_timestep
from .voxel_features import Reading, drawn

TIMESTEPS = ("0", "5", "10", "30", "60", "100", "200", "400")
TOGETHER = "together"  # the place of a timestep where those of all are read side by side
SIZES = ("small", "middling", "large")


def analyse_features(
    run: Run,
    root: str,
    out: Path,
    split: str = "train",
    limit: int = 4,
    timesteps: Sequence[str] = TIMESTEPS,
    each: int = 300,
    noise: bool = False,
    labels: Sequence[int] | None = None,
    seed: int = 0,
    progress=iter,  # noqa: ANN001
) -> dict[str, Path]:
    """features.csv (a row for each held-out case, class, timestep and set of maps), table.csv (means), summary.json (the best timesteps and maps
    of all classes, and of small, middling and large ones) and features.svg, .png in `out`. limit: cases of the split that are read, 2 at
    least. each: voxels of each class and case. labels: values of the mask's classes; None: those that these masks have.
    """
    reading = reading_of(run, timesteps, noise)
    data = labelled(run.data, root, labels, split, limit)
    cases, classes = data.cases(split)[:limit], len(data.values or (0, 1))
    told = {"timesteps": [*reading.timesteps], "each": each, "noise": noise, "labels": data.values or (0, 1), "seed": seed}
    parts = Parts(out / "features.parts", {**fingerprint(run), "data": digest(cases), **told})
    read = [parts.arrays(case.id, lambda case=case: vectors(reading, data, case, classes, each, seed)) for case in progress(cases)]
    rows = [
        {"case": case.id, "group": case.group, **row}
        for held, case in enumerate(cases)
        for row in scored(read[held], [one for i, one in enumerate(read) if i != held], data, reading)
    ]
    averaged = means(rows)
    paths = {"rows": out / "features.csv", "table": out / "table.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], rows)
    write_rows(paths["table"], averaged)
    about = {"run": run.path.name, "split": split, "cases": len(cases), **told}
    write_json(paths["summary"], {**about, "best": best(averaged), "data": {"digest": digest(cases)}, "environment": environment()})
    paths["svg"], paths["png"] = figures.save(by_timestep(averaged), out, "features")
    parts.clear()
    return paths


def reading_of(run: Run, timesteps: Sequence[str], noise: bool) -> Reading:
    method, crop = run.method, run.data.crop
    if not isinstance(method.network, Backbone):
        raise InputError(
            f"{run.path} has no features to read ({type(method.network).__name__}); give a run of ctpretrain, vox2vec or bodyparts"
        )
    patch = [crop] * 3 if isinstance(crop, int) else crop
    if not isinstance(method, Diffusion):
        return Reading(method, [0], False, patch)
    unit = window_of(run.data.preprocess.normalise) or Window()
    return Reading(method, sorted({timestep(level, method.schedule, unit) for level in timesteps}), noise, patch)


def labelled(like: Data, root: str, labels: Sequence[int] | None, split: str, limit: int) -> Data:
    """Volumes with masks, prepared as the run's own were."""
    alike = {"preprocess": like.preprocess, "coordinates": like.coordinates, "body": like.body, "cache_gb": 0}
    found = Data(root, **alike).cases(split)[:limit]
    if len(found) < 2:
        raise InputError(
            f"{root} has {len(found)} labelled case(s) in the split {split}: a probe is fitted on some and asked about others, so give 2"
        )
    values = sorted({0, *(labels or (value for case in found for value in mask_values(case)))})
    return Data(root, **alike, labels=values if len(values) > 2 else None)


def vectors(reading: Reading, data: Data, case: Case, classes: int, each: int, seed: int) -> dict[str, np.ndarray]:
    """A case's vectors by "t/map", its voxels' "labels", what each "stands for", and the "volume" of every class."""
    sample = data.loaded(case)
    body = sample["body"][0, 0] > 0 if "body" in sample else torch.ones(sample["mask"].shape[2:], dtype=torch.bool)
    voxels = drawn(case.id, sample["mask"][0, 0], body, classes, each, seed)
    found = {f"{t}/{name}": part.numpy() for t, maps in reading.of(sample, voxels, seed) for name, part in maps.items()}
    return {**found, "labels": voxels.labels.numpy(), "stands for": voxels.stands_for.numpy(), "volume": voxels.volume.numpy()}


def scored(held: Arrays, others: Sequence[Arrays], data: Data, reading: Reading) -> Iterator[Row]:
    """A row for each class but the background, each timestep and all of them side by side, and each set of maps."""
    y = torch.as_tensor(np.concatenate([one["labels"] for one in others]))
    volume = torch.as_tensor(np.sum([one["volume"] for one in others], 0)).double()
    weights = torch.as_tensor(held["stands for"])
    levels = len(reading.backbone.widths)
    times: list[tuple[str, list[int]]] = [(str(t), [t]) for t in reading.timesteps]
    if len(times) > 1:
        times.append((TOGETHER, [*reading.timesteps]))
    for name, ts in times:
        for maps, chosen in sets_of(levels, alone=name != TOGETHER).items():
            keys = [f"{t}/{one}" for t in ts for one in chosen]
            x = torch.as_tensor(np.concatenate([np.concatenate([one[key] for key in keys], 1) for one in others]))
            answer = discriminant(x, y, volume / volume.sum())(torch.as_tensor(np.concatenate([held[key] for key in keys], 1)))
            for label in range(1, len(volume)):
                truth, said = torch.as_tensor(held["labels"]) == label, answer == label
                dice = 2 * float(weights[truth & said].sum()) / max(float(weights[truth].sum() + weights[said].sum()), 1.0)
                yield {
                    "label": (data.values or (0, 1))[label],
                    "voxels": int(held["volume"][label]),
                    "t": name,
                    **level_of(reading, name, data),
                    "maps": maps,
                    "dice": dice,
                }


def sets_of(levels: int, alone: bool) -> dict[str, list[str]]:
    """Which maps are read together: those of a side, of both, and (alone) each by itself. The bottom is the encoder's and the decoder's."""
    encoder, decoder = ([f"{side} {level}" for level in range(levels)] for side in ("encoder", "decoder"))
    decoder[-1] = encoder[-1]
    found = {"encoder": encoder, "decoder": decoder, "both": [*encoder, *decoder[:-1]]}
    return found | ({name: [name] for name in (*encoder, *decoder[:-1])} if alone else {})


def level_of(reading: Reading, name: str, data: Data) -> Row:
    """A timestep's noise as a ratio and, of CT, in HU."""
    if name == TOGETHER or not isinstance(reading.method, Diffusion):
        return {"snr": "", "hu": ""}
    unit, schedule = window_of(data.preprocess.normalise), reading.method.schedule
    return {"snr": schedule.snr(int(name)), "hu": "" if unit is None else noise_hu(schedule, int(name), unit)}


def means(rows: Sequence[Row]) -> list[Row]:
    """The mean over cases and classes, and over the smaller, middling and larger third of the classes where there are three or more."""
    size = {
        label: np.mean([row["voxels"] for row in rows if row["label"] == label]) for label in dict.fromkeys(row["label"] for row in rows)
    }
    ranked = sorted(size, key=lambda label: size[label])
    parts = {"all": ranked}
    if len(ranked) >= 3:
        parts |= dict(zip(SIZES, (list(part) for part in np.array_split(ranked, 3)), strict=True))
    found = []
    for t, maps in dict.fromkeys((row["t"], row["maps"]) for row in rows):
        here = [row for row in rows if (row["t"], row["maps"]) == (t, maps)]
        for name, labels in parts.items():
            dice = float(np.mean([row["dice"] for row in here if row["label"] in labels]))
            found.append({"t": t, "snr": here[0]["snr"], "hu": here[0]["hu"], "maps": maps, "organs": name, "dice": dice})
    return found


def best(table: Sequence[Row]) -> dict[str, Row]:
    """By size of organ, the timestep and maps that separate best: of single timesteps, and of all side by side."""
    found = {}
    for organs in dict.fromkeys(row["organs"] for row in table):
        for name, chosen in (
            ("one timestep", [r for r in table if r["t"] != TOGETHER]),
            (TOGETHER, [r for r in table if r["t"] == TOGETHER]),
        ):
            here = [row for row in chosen if row["organs"] == organs]
            if here:
                found[f"{organs}, {name}"] = max(here, key=lambda row: row["dice"])
    return found


def table(summary: dict[str, Any]) -> str:
    """The best choices as text."""
    lines = [f"{summary['cases']} cases, each asked of a probe fitted on the others; Dice of the best"]
    for name, row in summary["best"].items():
        unit = f" ({float(row['hu']):.0f} HU)" if row["hu"] not in ("", None) else ""
        lines.append(f"  {name:24} {row['dice']:.4f}  t {row['t']}{unit}, {row['maps']}")
    return "\n".join(lines)
