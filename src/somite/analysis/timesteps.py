"""What a diffusion run has learned at each timestep, and what the image is worth there.

At about 25 timesteps the target is noised, with the same noise at every t and under every condition, and denoised:

- image: with the case's own image;
- shuffled: with the image of another case of the same size (another patient's where there is one);
- blank: with one grey in place of the image, the mean of each channel over the cases.

The loss per pixel and channel is given in both units; for the same prediction L_eps = SNR L_x0, unclipped. The networks'
states start afresh at each t, as they do at T-1.

    I(mask; image) = 1/2 sum_channels int (L_eps(without) - L_eps(with)) dln(gamma)    in nats per pixel,

holds for two *perfect* denoisers of all channels together (I-MMSE), whatever the values of the codec. A network is not perfect: one trained with images may do badly without, and one
that predicts x0 leaves an error at little noise that SNR blows up. So `benefit` compares the best of what was measured:

    uninformed = min(blank, shuffled, independent pixels),  informed = min(image, uninformed),  benefit = uninformed - informed

at each t, where "independent pixels" is the exact loss with the data's foreground share; who has the image may ignore it.
Both are upper bounds of the two MMSEs; their difference is an estimate, and bounds nothing. The plain differences
benefit_blank and benefit_shuffled stand beside it. "Independent pixels" takes the channels of one-hot targets for independent
too, which keeps it an upper bound: of two classes both channels show the same bit, and the best denoiser uses both.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..data.digest import digest
from ..diffusion.codec import Codec
from ..diffusion.methods import Diffusion
from ..diffusion.schedule import Schedule
from ..environment import environment
from ..errors import InputError
from ..evaluation import fingerprint, write_rows
from ..files import write_json
from ..metrics.intervals import Interval, interval, pooled_interval
from ..parts import Parts
from ..pipeline import Run
from ..tasks.task import Row
from . import figures
from .curves import by_case, grid, log_snr, means
from .measured import BLANK, CONDITIONS, IMAGE, SHUFFLED, Measured
from .oracles import Template, information, measured_mmse, pixel_mmse

BENEFIT = ("t", "log_snr", "benefit", "benefit_low", "benefit_high", "benefit_x0")


def analyse_timesteps(
    run: Run,
    split: str,
    out: Path,
    count: int = 25,
    draws: int = 4,
    limit: int | None = None,
    batch: int = 10,
    seed: int = 0,
    progress=iter,  # noqa: ANN001
) -> dict[str, Path]:
    """Loss per timestep of a diffusion run with the image, another's and none: timesteps.csv (rows), table.csv, benefit.csv
    (for `ByBenefit`), summary.json, timesteps.svg and .png. `progress` wraps the cases; limit: the first so many of the split.
    Stopped on the way, it goes on from the cases that are done.
    """
    method = run.method
    if not isinstance(method, Diffusion):
        raise InputError(f"{run.path} is a feed-forward run, which has no timesteps; give a diffusion run")
    if draws < 1 or (limit is not None and limit < 1):
        raise InputError(f"--draws {draws} and --limit {limit} must be at least 1")
    cases = run.recipe.data.cases(split)[:limit]
    measured = Measured(run.recipe.task, run.recipe.data, cases)
    about = {**fingerprint(run), "data": digest(cases), "count": count, "draws": draws, "seed": seed}
    parts = Parts(out / "timesteps.parts", about)
    rows = losses(method, measured, count, draws, seed, batch, progress, parts=parts)
    rows_by_t, expected = table(rows, measured, method), theory(method, measured)
    exact = {"independent pixels": expected, **one_disc(method, measured)}
    found = summary(rows, rows_by_t, expected, measured, method)
    about = {"run": run.path.name, "split": split, "seed": seed, "draws": draws}
    paths = {"rows": out / "timesteps.csv", "table": out / "table.csv", "benefit": out / "benefit.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], rows)
    write_rows(paths["table"], rows_by_t)
    write_rows(paths["benefit"], [{key: row[key] for key in BENEFIT} for row in rows_by_t])
    write_json(paths["summary"], {**about, **found, "data": {"digest": digest(cases)}, "environment": environment()})
    paths["svg"], paths["png"] = figures.save(figures.timesteps(rows_by_t, exact), out, "timesteps")
    parts.clear()
    return paths


def losses(
    method: Diffusion,
    measured: Measured,
    count: int = 25,
    draws: int = 4,
    seed: int = 0,
    batch: int = 10,
    progress=iter,  # noqa: ANN001
    conditions: Sequence[str] = CONDITIONS,
    parts: Parts | None = None,
) -> list[Row]:
    """Rows of (case, t, condition) with loss_eps and loss_x0: means over slices, draws, channels and pixels. What is done is kept in `parts`."""
    ts, rows = grid(method.schedule, count), []
    for index in progress(range(len(measured.cases))):

        def one(index: int = index) -> list[Row]:
            return [row for condition in conditions for row in of_case(method, measured, index, condition, ts, draws, seed, batch)]

        rows += one() if parts is None else parts.get(measured.cases[index].id, one)
    return rows


def of_case(
    method: Diffusion, measured: Measured, index: int, condition: str, ts: Sequence[int], draws: int, seed: int, batch: int
) -> list[Row]:
    """The rows of one case under one condition; none where it has no partner to be shuffled with."""
    case, sample = measured.cases[index], measured.sample(index)
    image = measured.image(index, sample["image"], condition)
    if image is None:
        return []
    pairs = [(row, draw) for draw in range(draws) for row in range(len(sample["image"]))]
    target, cond = measured.task.split({**sample, "image": image})
    total = {t: 0.0 for t in ts}
    for at in range(0, len(pairs), batch):
        chunk = pairs[at : at + batch]
        rows_of = [row for row, _ in chunk]
        names = [f"{case.id}/{row}/{draw}" for row, draw in chunk]
        for t, error in errors(method, target[rows_of], {k: v[rows_of] for k, v in cond.items()}, ts, names, seed).items():
            total[t] += error * len(chunk) / len(pairs)
    rows = []
    for t in ts:
        snr = method.schedule.snr(t)
        key = {"case": case.id, "group": case.group, "t": t, "log_snr": log_snr(method.schedule, t), "condition": condition}
        rows.append({**key, "loss_eps": snr * total[t], "loss_x0": total[t]})
    return rows


@torch.no_grad()
def errors(
    method: Diffusion, target: Tensor, cond: dict[str, Tensor], ts: Sequence[int], names: Sequence[str], seed: int
) -> dict[int, float]:
    """Mean squared error of x0 at each timestep, by way of the unit the network was trained in: the others lose digits at little noise."""
    device = next(method.parameters()).device
    target = target.to(device)
    with rng.seeded(seed, names):
        eps = rng.normal(method.codec.shape(tuple(target.shape)), device)
        known = method.network.encode({k: v.to(device) for k, v in cond.items()})
    out = {}
    for t in ts:
        at = torch.full((len(target),), t, device=device)
        ex = method.corrupt(target, at, eps)
        with rng.seeded(seed, [f"network/{name}" for name in names]):
            pred = method.denoise(ex.x_t, at, known)
        if method.predicts == "eps":
            out[t] = float(((pred.eps - eps).double() ** 2).mean()) / method.schedule.snr(t)
        else:
            out[t] = float(((pred.x0 - ex.x0).double() ** 2).mean())
    return out


def table(rows: Sequence[Row], measured: Measured, method: Diffusion) -> list[Row]:
    """One row a timestep: both losses under each condition, the benefit of the image, each with its interval; the mask's information."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    columns = {
        (f"{unit}_{condition}", unit): [row for row in rows if row["condition"] == condition]
        for unit in ("loss_eps", "loss_x0")
        for condition in conditions
    }
    columns |= {(f"benefit_{other}", "loss_eps"): differences(rows, "loss_eps", other) for other in conditions[1:]}
    found = {name: means(some, unit) for (name, unit), some in columns.items()}
    at = {row["t"]: row["log_snr"] for row in rows}
    out: list[Row] = [{"t": t, "log_snr": at[t]} for t in sorted(at)]
    for row in out:
        for name, some in found.items():
            row |= spread(name, some[row["t"]])
    best = Best(rows, measured, method)
    gained = information([row["log_snr"] for row in out[::-1]], best.uninformed()[::-1])[::-1]
    for i, row in enumerate(out):
        gain = best.benefit(i)
        row |= {"loss_eps_uninformed": float(best.uninformed()[i]), **spread("benefit", gain)}
        row |= {"benefit_x0": gain.mean * float(np.exp(-row["log_snr"])), "retained": float(gained[i] / gained[0])}
    return out


def spread(name: str, found: Interval) -> Row:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def differences(rows: Sequence[Row], unit: str, other: str) -> list[Row]:
    """Loss under `other` minus loss with the image, case by case."""
    mine = {(row["case"], row["t"]): row[unit] for row in rows if row["condition"] == IMAGE}
    return [{**row, unit: row[unit] - mine[row["case"], row["t"]]} for row in rows if row["condition"] == other]


class Best:
    """The smallest mean eps losses with and without the case's image, at each t; shuffled counts where every case has a partner."""

    def __init__(self, rows: Sequence[Row], measured: Measured, method: Diffusion) -> None:
        conditions = [IMAGE, BLANK] + ([SHUFFLED] if None not in measured.partner else [])
        parts = [by_case([r for r in rows if r["condition"] == c], lambda row: row["loss_eps"]) for c in conditions]
        self.channels = method.codec.channels
        self.groups, ts = parts[0][1], parts[0][2]
        self.gamma = np.array([method.schedule.snr(t) for t in ts])
        self.alone = self.gamma * pixels(measured, method.codec, self.gamma)
        ones = np.ones_like(parts[0][0])
        self.parts = np.stack([*(part[0] for part in parts), ones], 1)  # (cases, conditions + 1, timesteps)

    def losses(self, total: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Uninformed and informed, from the sum of some cases' parts."""
        mean = total[:-1] / total[-1]
        uninformed = np.minimum(mean[1:].min(0), self.alone)
        return uninformed, np.minimum(mean[0], uninformed)

    def uninformed(self) -> NDArray[np.float64]:
        return self.losses(self.parts.sum(0))[0]

    def benefit(self, i: int) -> Interval:
        """At the i-th timestep."""
        return pooled_interval(self.parts, self.groups, lambda total: float(np.subtract(*self.losses(total))[i]), resamples=200)

    def information(self) -> Interval:
        """1/2 int benefit dln(gamma), summed over channels: nats per pixel."""
        u = np.log(self.gamma[::-1])

        def nats(total: NDArray[np.float64]) -> float:
            return self.channels * float(information(u, np.subtract(*self.losses(total))[::-1])[-1])

        return pooled_interval(self.parts, self.groups, nats, resamples=500)


def pixels(measured: Measured, codec: Codec, gamma: NDArray[np.float64]) -> NDArray[np.float64]:
    """The MMSE of independent pixels with the data's shares, in the codec's units: a mean over its channels."""
    shares, amplitude = channel_shares(measured, codec)
    return np.mean([pixel_mmse(gamma, p, amplitude) for p in shares], axis=0)


def channel_shares(measured: Measured, codec: Codec) -> tuple[list[float], float]:
    """The share of "on" in each channel of the encoded masks, and half the distance between off and on."""
    sums, count = torch.zeros(codec.channels, dtype=torch.float64), 0
    low, high = torch.inf, -torch.inf
    for index in range(len(measured.cases)):
        mask = measured.sample(index)["mask"]
        on, x0 = codec.probabilities(mask), codec.encode(mask)
        sums += on.double().movedim(1, 0).flatten(1).sum(1)
        count += on[:, 0].numel()
        low, high = min(low, float(x0.min())), max(high, float(x0.max()))
    return (sums / count).tolist(), (high - low) / 2


def theory(method: Diffusion, measured: Measured) -> dict[str, NDArray[np.float64]]:
    """Independent pixels with the data's foreground share at every timestep: losses in both units and information kept."""
    schedule: Schedule = method.schedule
    t = np.array([t for t in range(len(schedule)) if schedule.snr(t) > 0])
    gamma = np.array([schedule.snr(int(i)) for i in t])
    return theoretical(t, gamma, pixels(measured, method.codec, gamma))


def one_disc(method: Diffusion, measured: Measured) -> dict[str, dict[str, NDArray[np.float64]]]:
    """One disc of the masks' mean area, anywhere: how long a single object of that size can be found. By Monte Carlo over 40 noises of
    its exact posterior mean (`oracles.Template`); for binary masks of images, nothing for classes and volumes.
    """
    areas, shape = [], measured.sample(0)["mask"].shape[2:]
    if method.codec.channels > 1 or len(shape) != 2:
        return {}
    for index in range(len(measured.cases)):
        mask = measured.sample(index)["mask"].flatten(1) > 0
        areas += mask.sum(1)[mask.any(1)].tolist()
    off, on = method.codec.encode(torch.tensor([[[0, 1]]])).flatten().tolist()
    amplitude = (on - off) / 2
    away = [torch.arange(n) - n // 2 for n in shape]
    disc = away[0][:, None] ** 2 + away[1] ** 2 <= float(np.mean(areas)) / np.pi
    t = np.array(grid(method.schedule, 40))
    gamma = np.array([method.schedule.snr(int(i)) for i in t])
    mmse, _ = measured_mmse(Template(2.0 * disc - 1), (amplitude**2 * gamma).tolist(), draws=40)
    return {"one disc of the mean area": theoretical(t, gamma, amplitude**2 * mmse)}


def theoretical(t: NDArray[Any], gamma: NDArray[np.float64], mmse: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """A denoiser's losses in both units and the information that it says is kept."""
    gained = information(np.log(gamma[::-1]), (gamma * mmse)[::-1])[::-1]
    return {"t": t, "loss_x0": mmse, "loss_eps": gamma * mmse, "retained": gained / gained[0]}


def mutual_information(rows: Sequence[Row], other: str, channels: int) -> Interval:
    """1/2 sum_channels int (L_eps(other) - L_eps(image)) dln(gamma) in nats per pixel, case by case, with an interval over groups.

    The rows' losses are means over the channels.
    """
    some = differences(rows, "loss_eps", other)
    gain, groups, _ = by_case(some, lambda row: row["loss_eps"])
    u = by_case(some, lambda row: row["log_snr"])[0][0]
    return interval(channels * information(u[::-1], gain[:, ::-1])[:, -1], groups, resamples=1000)


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def summary(
    rows: Sequence[Row], table: Sequence[Row], theory: Mapping[str, NDArray[np.float64]], measured: Measured, method: Diffusion
) -> dict[str, Any]:
    best = np.array([row["loss_eps_image"] for row in table])
    gain = np.array([row["benefit"] for row in table])
    useful = [row["t"] for row, value in zip(table, gain, strict=True) if value > 0.1 * gain.max()]
    others = [other for other in (BLANK, SHUFFLED) if any(row["condition"] == other for row in rows)]
    channels = method.codec.channels
    found = {"best": Best(rows, measured, method).information(), **{other: mutual_information(rows, other, channels) for other in others}}
    return {
        "cases": len(measured.cases),
        "without_partner": sum(one is None for one in measured.partner),
        "timesteps": [row["t"] for row in table],
        "blank_is": "the mean of each image channel over these cases, everywhere",
        "peak_eps": {"t": table[int(best.argmax())]["t"], "loss": float(best.max()), "inside": bool(0 < best.argmax() < len(best) - 1)},
        "peak_eps_independent_pixels": {"t": int(theory["t"][theory["loss_eps"].argmax()]), "loss": float(theory["loss_eps"].max())},
        "benefit_peak_t": table[int(gain.argmax())]["t"] if gain.max() > 0 else None,
        "benefit_above_a_tenth": [min(useful), max(useful)] if useful else None,
        "mutual_information_nats_per_pixel": {
            name: {"mean": one.mean, "low": finite(one.low), "high": finite(one.high)} for name, one in found.items()
        },
        "losses_are": f"means over pixels and the {channels} channel(s) of the codec {type(method.codec).__name__}; nats are summed over channels",
        "assumes": "perfect denoisers with and without the image, no information left above the largest log-SNR",
    }
