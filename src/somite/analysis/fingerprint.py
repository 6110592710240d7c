"""The fingerprint of a data set: how far its masks can be told from noise, by noise level, without images and without training.

Three estimates of E|x0 - E[x0 | x_t]|^2 per pixel, for masks in {-1, 1}, all with the same noise at every timestep:

- whole: the exact empirical Bayes denoiser over the masks of the *other* groups (patients; leave-one-group-out). It is the
  best there is as far as one mask foretells another; at little noise it ends at the distance to the nearest other mask.
- window k (1, 3, 5, 9, 15): the exact posterior mean given the k x k pixels of x_t around a pixel, under the windows that occur in the masks of
  the other half of the groups. It knows no places and no large shapes, but hardly a mask is too new for it. Window 1, an
  independent pixel, has seen everything: without it an unseen 3 x 3 pattern would cost gamma times its error at little noise.
- best: at each t the smaller of these, on average over cases. Each is the error of one denoiser that knows only other
  patients' masks, so each is at least the MMSE, and half the area of gamma times it over ln gamma bounds the masks' entropy.

Öttl et al. 2024 (arXiv 2403.14440) measure the same curve with a trained network: `analysis.learned`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..data.preprocess import Preprocess
from ..data.record import read
from ..data.sources import find
from ..diffusion.schedule import Schedule, linear
from ..environment import environment
from ..errors import InputError
from ..evaluation import write_rows
from ..files import write_json
from ..metrics.intervals import pooled_interval
from ..tasks.task import Row
from . import figures, learned
from .curves import by_case, grid, half_point, log_snr, means, t_at
from .oracles import information

WINDOWS = (1, 3, 5, 9, 15)
PATTERNS = 2048  # windows of one size that are kept, the most frequent ones
PLACES = 128  # pixels of a case at which windows are read


def analyse_fingerprint(
    roots: Sequence[Path],
    out: Path,
    size: int = 64,
    train: int = 0,
    count: int = 30,
    schedule: Schedule | None = None,
    threshold: int = 1,
    seed: int = 0,
    progress=iter,  # noqa: ANN001
) -> dict[str, Path]:
    """The fingerprints of data sets in one figure: fingerprints.csv (rows), table.csv, summary.json, fingerprints.svg and .png.

    count: timesteps. train: with more than 0, a mask-only network is trained for so many steps on each and measured too
    (learned.csv). One schedule (linear with 1000 steps) serves all, so that t means the same everywhere.
    """
    if train:
        learned.check(train, (size, size))
    schedule = schedule or linear(1000)
    sets = [masks_of(Path(root), size, threshold, progress) for root in roots]
    rows: dict[str, list[Row]] = {}
    trained: dict[str, list[Row]] = {}
    data: dict[str, Any] = {}
    for name, one in zip(unique([one.name for one in sets]), sets, strict=True):
        ts = grid(schedule, count)
        rows[name] = fingerprint(one.masks, schedule, one.groups, one.cases, ts, seed=seed, progress=progress)
        foreground = float(one.masks.float().mean())
        data[name] = {"foreground": foreground, "empty": one.empty, **summary(rows[name], schedule)}
        if train:
            trained[name] = learned.learned_fingerprint(one.masks, schedule, one.groups, one.cases, train, ts, seed, progress)
            data[name]["learned"] = summary(trained[name], schedule)
    tables, curves = ({name: table(some) for name, some in group.items()} for group in (rows, trained))
    about = {"size": size, "seed": seed, "steps": len(schedule), "train": train, "environment": environment()}
    paths = {"rows": out / "fingerprints.csv", "table": out / "table.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], named(rows))
    write_rows(paths["table"], named(tables))
    write_json(paths["summary"], {**about, "data": data})
    if train:
        paths["learned"] = out / "learned.csv"
        write_rows(paths["learned"], named(trained))
    paths["svg"], paths["png"] = figures.save(figures.fingerprints(tables, data, curves), out, "fingerprints")
    return paths


def named(sets: dict[str, list[Row]]) -> list[Row]:
    return [{"data": name, **row} for name, rows in sets.items() for row in rows]


def unique(names: Sequence[str]) -> list[str]:
    """Names told apart by numbers where two folders are called the same."""
    return [name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]


@dataclass(frozen=True)
class Masks:
    """The masks of a data set at one size: (n, h, w) bool, none of them empty."""

    name: str
    masks: Tensor
    cases: list[str]
    groups: list[str]
    empty: int  # how many were left out


def masks_of(root: Path, size: int = 64, threshold: int = 1, progress=iter) -> Masks:  # noqa: ANN001
    """All masks of a data set, squeezed to size x size, nearest pixel; a volume gives its slice with most foreground.

    threshold: mask values from here on are foreground, whatever their class.
    """
    if size < 4:
        raise InputError(f"--size {size}: a mask needs at least 4 pixels a side; 64 is usual")
    labelled = [case for case in find(root).all if case.mask is not None]
    if not labelled:
        raise InputError(f"{root} has no masks, and a fingerprint is made of masks; give a folder with images/ and masks/")
    masks, cases, groups = [], [], []
    for case in progress(labelled):
        record = read(case, mask_threshold=threshold)
        found = Preprocess(size=[size, size]).mask(record)[:, 0].bool()  # (n, h, w)
        one = found[int(found.flatten(1).sum(1).argmax())]
        if one.any():
            masks.append(one)
            cases.append(case.id)
            groups.append(case.group)
    if not masks:
        raise InputError(f"all {len(labelled)} masks of {root} are empty at {size} pixels; raise --size or give masks with foreground")
    return Masks((root.stem if root.is_file() else root.resolve().name), torch.stack(masks), cases, groups, len(labelled) - len(masks))


def fingerprint(
    masks: Tensor,
    schedule: Schedule,
    groups: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    timesteps: Sequence[int] | None = None,
    windows: Sequence[int] = WINDOWS,
    seed: int = 0,
    chunk: int = 256,
    progress=iter,  # noqa: ANN001
) -> list[Row]:
    """Rows of (case, t): the error of each denoiser and of the prior mean, per pixel. masks: (n, h, w) bool.

    groups: masks of one group never help each other (default: each mask its own). Memory grows with chunk x n.
    """
    cases = list(cases or [f"{i:05d}" for i in range(len(masks))])
    groups = list(groups or cases)
    if len(set(groups)) < 2:
        raise InputError("a fingerprint compares masks of different patients, and these are all of one; give more cases or mend groups.csv")
    ts = list(timesteps or grid(schedule, 30))
    x0 = 2.0 * masks.flatten(1).float() - 1
    code = torch.as_tensor(np.unique(groups, return_inverse=True)[1])
    readers = [Windows(masks, code, k, seed) for k in windows]
    rows = []
    for start in progress(range(0, len(x0), chunk)):
        some = slice(start, start + chunk)
        with rng.seeded(seed, [f"fingerprint/{case}" for case in cases[some]]):
            eps = rng.normal((len(x0[some]), *masks.shape[1:]), x0.device)
        same = code[some, None] == code
        prior = whole_error(x0, x0[some], eps.flatten(1), 0.0, 1.0, same)
        for t in ts:
            alpha, sigma = schedule.at(t)
            errors = {"whole": whole_error(x0, x0[some], eps.flatten(1), alpha, sigma, same)}
            errors |= {f"window{r.size}": r.error(masks[some], eps, code[some], alpha, sigma) for r in readers}
            for i, case in enumerate(cases[some]):
                key = {"case": case, "group": groups[start + i], "t": t, "log_snr": log_snr(schedule, t), "prior": float(prior[i])}
                rows.append({**key, **{name: float(error[i]) for name, error in errors.items()}})
    return rows


def whole_error(masks: Tensor, x0: Tensor, eps: Tensor, alpha: float, sigma: float, same: Tensor | None) -> Tensor:
    """(b,) mean squared error of the empirical Bayes denoiser over `masks` (n, d) in {-1, 1}, at x_t = alpha x0 + sigma eps.

    same: (b, n), the masks that must not be used for a row. All masks have one norm, so only <x_t, m_k> counts.
    """
    x_t = alpha * x0 + sigma * eps
    scores = alpha / sigma**2 * (x_t @ masks.T)
    if same is not None:
        scores = scores.masked_fill(same, -torch.inf)
    return ((x0 - torch.softmax(scores, 1) @ masks) ** 2).mean(1)


class Windows:
    """Exact posterior means of single pixels from the size x size window around them; beyond the border is background.

    The prior of windows comes from the other half of the groups (two halves, by hash of the seed). Of rare windows a random
    part is kept, with the weight of all.
    """

    def __init__(self, masks: Tensor, code: Tensor, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.half = torch.tensor([rng.derive(seed, "half", int(c)) % 2 for c in code.unique()])
        if self.half.all() or not self.half.any():
            self.half[0] = 1 - self.half[0]
        self.priors = [self.prior(masks[self.half[code] != side], seed + side) for side in (0, 1)]

    def prior(self, masks: Tensor, seed: int, sample: int = 200_000) -> tuple[Tensor, Tensor]:
        """The patterns (n, size^2) in {-1, 1} and the logarithms of their weights."""
        random = np.random.default_rng(rng.derive(seed, self.size))
        sample = min(sample, masks.numel())
        at = np.unravel_index(random.choice(masks.numel(), sample, replace=False, shuffle=False), tuple(masks.shape))
        seen = self.around(masks, torch.as_tensor(np.stack(at)))
        packed = np.packbits(seen.numpy(), axis=1)
        _, first, counts = np.unique(packed, axis=0, return_index=True, return_counts=True)
        order = np.lexsort((random.random(len(counts)), -counts))[:PATTERNS]
        kept = counts[order].astype(np.float64)
        rare = kept == kept[-1]
        kept[rare] *= 1 + (sample - kept.sum()) / kept[rare].sum()
        return 2.0 * seen[first[order]].float() - 1, torch.as_tensor(np.log(kept / sample)).float()

    def around(self, maps: Tensor, at: Tensor) -> Tensor:
        """(n, h, w), (3, m) indices -> (m, size^2) windows; zero (False) beyond the border."""
        r = self.size // 2
        padded = torch.nn.functional.pad(maps, (r, r, r, r))
        dy, dx = torch.meshgrid(torch.arange(self.size), torch.arange(self.size), indexing="ij")
        return padded[at[0][:, None], at[1][:, None] + dy.reshape(-1), at[2][:, None] + dx.reshape(-1)]

    def error(self, masks: Tensor, eps: Tensor, code: Tensor, alpha: float, sigma: float) -> Tensor:
        """(b,) mean over PLACES random pixels of each mask; the pixels are the same at every t."""
        b, h, w = masks.shape
        random = np.random.default_rng(rng.derive(self.seed, "places"))
        places = torch.as_tensor(np.stack([random.integers(0, h, PLACES), random.integers(0, w, PLACES)]))
        out = torch.zeros(b)
        for i in range(b):
            at = torch.cat([torch.full((1, PLACES), i), places])
            patterns, weights = self.priors[int(self.half[code[i]])]
            x0 = 2.0 * self.around(masks, at).float() - 1
            x_t = alpha * x0 + sigma * self.around(eps, at)
            posterior = torch.softmax(alpha / sigma**2 * (x_t @ patterns.T) + weights, 1)
            middle = self.size**2 // 2
            out[i] = ((x0[:, middle] - posterior @ patterns[:, middle]) ** 2).mean()
        return out


def denoisers(rows: Sequence[Row]) -> list[str]:
    return [name for name in rows[0] if name == "whole" or name.startswith(("window", "learned"))]


def table(rows: Sequence[Row]) -> list[Row]:
    """One row a timestep: the mean error of every denoiser, and of whole and best (see above) its share of the prior's.

    low and high: of the best denoiser's error, a bootstrap over groups.
    """
    names = denoisers(rows)
    found = {name: means(rows, name) for name in names}
    prior = float(np.mean([row["prior"] for row in rows]))
    at = {row["t"]: row["log_snr"] for row in rows}
    out = []
    for t in sorted(at):
        best = min(names, key=lambda name: found[name][t].mean)
        one = found[best][t]
        shares = {"share_whole": found["whole"][t].mean / prior} if "whole" in names else {}
        shares |= {"share_best": one.mean / prior, "low": one.low / prior, "high": one.high / prior, "best": best}
        out.append({"t": t, "log_snr": at[t], "prior": prior, **{name: found[name][t].mean for name in names}, **shares})
    kept = retained([row["log_snr"] for row in out], [row["share_best"] * prior for row in out])
    return [{**row, "retained": float(r)} for row, r in zip(out, kept, strict=True)]


def retained(u: Sequence[float], mse: Sequence[float]) -> NDArray[np.float64]:
    """R(t) = I(x0; x_t) / H by I-MMSE, in the order given: u decreases as t grows."""
    order = np.argsort(u)
    gained = information(np.asarray(u)[order], np.exp(np.asarray(u)[order]) * np.asarray(mse)[order])
    out = np.empty_like(gained)
    out[order] = gained / gained[-1]
    return out


def summary(rows: Sequence[Row], schedule: Schedule) -> dict[str, Any]:
    """Where half of the prior's error is left, coming from pure noise: in t, gamma and log-SNR, with 95 % intervals."""
    names = denoisers(rows)
    columns = [by_case(rows, lambda row, name=name: row[name])[0] for name in names]
    prior, groups, ts = by_case(rows, lambda row: row["prior"])
    u = np.array([log_snr(schedule, t) for t in ts])[::-1]
    curves = np.stack([*columns, prior], 1)[..., ::-1]  # (cases, denoisers + 1, timesteps), from the noisy end
    n = len(names)

    def half(total: NDArray[np.float64], use: Sequence[int]) -> float:
        return half_point(u, total[list(use)].min(0) / total[n])

    area = np.exp(u) * curves[:, :n].mean(0).min(0)
    out: dict[str, Any] = {"cases": len(prior), "groups": len(set(groups)), "prior": float(prior.mean())}
    out["entropy_bound_nats_per_pixel"] = float(information(u, area)[-1])
    for name, use in {"best": range(n), **{name: [i] for i, name in enumerate(names) if name in ("whole", "learned")}}.items():
        found = pooled_interval(curves, groups, lambda total, use=use: half(total, use), resamples=500)
        low, high = (None if np.isnan(v) else t_at(schedule, v) for v in (found.high, found.low))
        reached = bool((curves[:, list(use)].mean(0).min(0) / curves[:, n].mean(0)).min() <= 0.5)
        point = {"reached": reached, "t": t_at(schedule, found.mean), "t_low": low, "t_high": high}
        out[f"half_{name}"] = {**point, "log_snr": found.mean, "gamma": float(np.exp(found.mean))}
    return out
