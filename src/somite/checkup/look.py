"""All cases looked at, by several processes, whatever one of them runs into."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from ..data.digest import files_of
from ..data.record import Case
from ..engines import end_with_parent
from ..rng import derive
from .case import Exam, Job, examine, examine_all

READ = 1.5e9  # bytes of files whose pixels are read: a minute or two
QUICK = 1.5e8
QUICK_CASES = 200
TOGETHER = 16  # cases that a process looks at before it says what it saw
SMALL = 2e7  # bytes that are looked at before a second process would have started


def size_of(case: Case) -> int:
    return sum(path.stat().st_size for path in files_of(case) if path.exists())


def chosen(cases: Sequence[Case], quick: bool, full: bool) -> frozenset[str]:
    """The ids of the cases whose pixels are read: all, or of many as many as the time allows, by lot, the same each time."""
    if full:
        return frozenset(case.id for case in cases)
    room, most = (QUICK, QUICK_CASES) if quick else (READ, len(cases))
    picked: list[str] = []
    for case in sorted(cases, key=lambda case: derive("doctor", case.id)):
        room -= size_of(case) if case.packed is None else 0
        if picked and (room < 0 or len(picked) >= most):
            break
        picked.append(case.id)
    return frozenset(picked)


def looked(cases: Sequence[Case], pixels: frozenset[str], raters: Path | None, workers: int) -> Iterator[Exam]:
    """Every case once, as they are done. workers: processes; with one it is done here."""
    jobs = [Job(case, case.id in pixels, raters) for case in cases]
    if workers == 1 or sum(size_of(job.case) for job in jobs if job.pixels) < SMALL:
        yield from map(examine, jobs)
        return
    step = max(1, min(TOGETHER, len(jobs) // (8 * workers)))
    left = dict(enumerate(jobs[start : start + step] for start in range(0, len(jobs), step)))
    alone = False  # one process, so that it is known which job kills it
    while left:
        broken = False
        with ProcessPoolExecutor(1 if alone else workers, get_context("spawn"), end_with_parent) as pool:
            waiting: dict[Future[list[Exam]], int] = {}
            with suppress(BrokenProcessPool):  # while jobs are still handed out
                waiting |= ((pool.submit(examine_all, left[number]), number) for number in sorted(left))
            for future in as_completed(waiting):
                if isinstance(future.exception(), BrokenProcessPool):
                    broken = True
                    continue
                yield from future.result()
                del left[waiting[future]]
        if broken and alone:
            yield from killed(left)
        alone = (broken and not alone) or any(number < 0 for number in left)


def killed(left: dict[int, list[Job]]) -> Iterator[Exam]:
    """Takes what was looked at when the process died, the first of what is left, out of it: its cases one by one, or the one that it was."""
    jobs = left.pop(min(left))
    if len(jobs) == 1:
        reason = f"{jobs[0].case.id}: reading it ends the process (by memory, or a fault of a library): take it out, or write it anew"
        yield Exam(jobs[0].case.id, [("killed", reason)])
    else:
        left |= {-1 - n: [job] for n, job in enumerate(jobs)}
