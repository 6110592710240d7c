"""Where jobs run: in processes of this machine, on a Ray cluster, or as a Slurm array. The scheduling is theirs, not ours.

Jobs are a study's, the cases of a cohort, or parts of many images that are drawn. They are independent and can be run again at any time, so a lost worker
costs the steps since its last checkpoint, or the part that it was at.
Folders must be seen by every machine, as on any cluster with a shared file system.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

J = TypeVar("J")
T = TypeVar("T")
TRIES = 3


class Engine(ABC):
    @abstractmethod
    def run(self, work: Callable[[J], T], jobs: Sequence[J]) -> Iterator[T]:
        """Yields what `work` returns for each job, as they end. A job whose worker is lost is tried again."""


class Pool(Engine):
    """`workers` processes of this machine."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = at_least_one(workers)

    def run(self, work: Callable[[J], T], jobs: Sequence[J]) -> Iterator[T]:
        left = list(jobs)
        for attempt in range(1, TRIES + 1):
            try:
                with ProcessPoolExecutor(self.workers, get_context("spawn"), end_with_parent) as pool:
                    futures = {pool.submit(work, job): job for job in left}
                    for future in as_completed(futures):
                        result = future.result()
                        left.remove(futures[future])
                        yield result
                return
            except BrokenProcessPool:  # a worker was killed, and Python gives up the whole pool
                if attempt == TRIES:
                    raise


def at_least_one(workers: int) -> int:
    if workers < 1:
        raise InputError(f"--workers {workers}: at least 1 job runs at a time")
    return workers


def end_with_parent() -> None:
    """Let this worker die when the process that started it is gone, however that ended: two studies never share a folder."""
    parent = parent_process()
    assert parent is not None  # this runs in workers

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Ray(Engine):
    """A Ray cluster: `address` of a running one ("auto" for the one around this process), or a local one of `workers` CPUs. gpus: of the
    cluster's, for each job by itself.
    """

    def __init__(self, workers: int = 1, address: str | None = None, gpus: int = 0) -> None:
        self.workers, self.address, self.gpus = at_least_one(workers), address, gpus

    def run(self, work: Callable[[J], T], jobs: Sequence[J]) -> Iterator[T]:
        try:
            import ray
        except ImportError as error:
            raise InputError("--engine ray needs Ray: pip install 'somite[ray]'") from error
        local: dict[str, Any] = (
            {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {"address": self.address}
        )
        with ray.init(**local, log_to_driver=False):
            remote = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=TRIES)(work)
            waiting = [remote.remote(job) for job in jobs]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield from ray.get(done)


class Submitit(Engine):
    """A Slurm array through submitit, one task a job; cluster "local" runs the same in processes here."""

    def __init__(self, folder: Path, cluster: str = "slurm", hours: int = 24, options: dict[str, str | int] | None = None) -> None:
        self.folder, self.cluster, self.hours, self.options = folder, cluster, hours, options or {}

    def run(self, work: Callable[[J], T], jobs: Sequence[J]) -> Iterator[T]:
        try:
            import submitit
        except ImportError as error:
            raise InputError("--engine slurm needs submitit: pip install 'somite[slurm]'") from error
        executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        executor.update_parameters(timeout_min=60 * self.hours, name="somite", **self.options)
        for submitted in submitit.helpers.as_completed(executor.map_array(work, list(jobs))):
            yield submitted.result()
