"""`somite analyse ...` without the command line: files in, tables, figures and summaries out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.digest import digest
from ..diffusion.methods import Diffusion
from ..diffusion.schedule import Schedule, linear
from ..environment import environment
from ..errors import InputError
from ..evaluation import write_rows
from ..files import write_json
from ..pipeline import Run
from ..tasks.task import Row
from . import figures, fingerprint, learned, timesteps
from .curves import grid

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
    """
    method = run.method
    if not isinstance(method, Diffusion):
        raise InputError(f"{run.path} is a feed-forward run, which has no timesteps; give a diffusion run")
    if draws < 1 or (limit is not None and limit < 1):
        raise InputError(f"--draws {draws} and --limit {limit} must be at least 1")
    cases = run.recipe.data.cases(split)[:limit]
    measured = timesteps.Measured(run.recipe.task, run.recipe.data, cases)
    rows = timesteps.losses(method, measured, count, draws, seed, batch, progress)
    table, theory = timesteps.table(rows, measured, method), timesteps.theory(method, measured)
    found = timesteps.summary(rows, table, theory, measured, method)
    about = {"run": run.path.name, "split": split, "seed": seed, "draws": draws}
    paths = {"rows": out / "timesteps.csv", "table": out / "table.csv", "benefit": out / "benefit.csv", "summary": out / "summary.json"}
    write_rows(paths["rows"], rows)
    write_rows(paths["table"], table)
    write_rows(paths["benefit"], [{key: row[key] for key in BENEFIT} for row in table])
    write_json(paths["summary"], {**about, **found, "data": {"digest": digest(cases)}, "environment": environment()})
    paths["svg"], paths["png"] = figures.save(figures.timesteps(table, theory), out, "timesteps")
    return paths


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
    schedule = schedule or linear(1000)
    sets = [fingerprint.masks_of(Path(root), size, threshold, progress) for root in roots]
    rows: dict[str, list[Row]] = {}
    trained: dict[str, list[Row]] = {}
    data: dict[str, Any] = {}
    for name, one in zip(unique([one.name for one in sets]), sets, strict=True):
        ts = grid(schedule, count)
        rows[name] = fingerprint.fingerprint(one.masks, schedule, one.groups, one.cases, ts, seed=seed, progress=progress)
        foreground = float(one.masks.float().mean())
        data[name] = {"foreground": foreground, "empty": one.empty, **fingerprint.summary(rows[name], schedule)}
        if train:
            trained[name] = learned.learned_fingerprint(one.masks, schedule, one.groups, one.cases, train, ts, seed, progress)
            data[name]["learned"] = fingerprint.summary(trained[name], schedule)
    tables, curves = ({name: fingerprint.table(some) for name, some in group.items()} for group in (rows, trained))
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
