"""Preprocessed cases on disk, as memory-mapped arrays: what a patch does not touch is never read."""

import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..errors import InputError
from ..files import read_json, replacing, write_json
from ..types import Sample

CONTENTS = "contents.json"  # written last: an entry without it is not whole
KEY = re.compile(r"[0-9a-f]{40}")  # what entries are called, so that in a folder with other things in it nothing else is removed
ABANDONED = 3600.0  # seconds after which nobody is still writing what is not whole


def default_folder() -> Path:
    """SOMITE_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("SOMITE_CACHE") or Path.home() / ".cache" / "somite" / "cases")


class DiskCache:
    """Entries of named tensors, a folder each, several processes at a time.

    limit: bytes. Room is made by removing what was used longest ago; what was used since this object was made stays, because data that
    do not fit would otherwise push each other out case by case. Files are replaced, never changed, so what another process has mapped
    keeps its contents.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self.begun = time.time()
        self.off = False

    def get(self, key: str) -> Sample | None:
        """The tensors of an entry, mapped; None where there is none, or none that is sound. Changing them changes no file."""
        folder = self.folder / key
        try:
            listed = read_json(folder / CONTENTS)
            found = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in listed}
            if any([str(found[name].dtype), *found[name].shape] != listed[name] for name in listed):
                return None
            if (folder / CONTENTS).stat().st_mtime < self.begun:
                touched(folder / CONTENTS)
        except (InputError, OSError, ValueError, EOFError, TypeError):
            return None
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write an entry, if there is room. Where it cannot be written this is said, once, and nothing is written any more."""
        if self.off:
            return
        arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        try:
            if not self.room(sum(array.nbytes for array in arrays.values()), key):
                self.stop(
                    f"the {self.limit / 2**30:.3g} GB for preprocessed cases in {self.folder} are full; the others are preprocessed anew each "
                    "time: give more with --data.cache_disk_gb"
                )
                return
            for name, array in arrays.items():
                with replacing(self.folder / key / f"{name}.npy") as temporary, temporary.open("wb") as file:
                    np.save(file, array, allow_pickle=False)
            write_json(self.folder / key / CONTENTS, {name: [str(array.dtype), *array.shape] for name, array in arrays.items()})
            touched(self.folder / key / CONTENTS)
        except (InputError, OSError) as error:
            removed(self.folder / key)
            cause = error.__cause__ if isinstance(error, InputError) else error
            why = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(error)
            self.stop(
                f"preprocessed cases cannot be kept in {self.folder} ({why}); going on without: --data.cache_folder names another place"
            )

    def room(self, wanted: int, key: str) -> bool:
        """Whether so many bytes may be written for an entry, after the oldest others have made room."""
        if wanted > self.limit:
            return False
        entries = sorted(entry for entry in self.entries() if entry[2].name != key)
        held = sum(size for _, size, _ in entries)
        for used, size, folder in entries:
            if held + wanted <= self.limit:
                break
            if used < self.begun:
                removed(folder)
                held -= size
        return held + wanted <= self.limit

    def entries(self) -> list[tuple[float, int, Path]]:
        """When each was last used, its bytes, its folder. What is being written counts as used now."""
        found = []
        for folder in filter(lambda path: KEY.fullmatch(path.name), self.folder.iterdir() if self.folder.is_dir() else ()):
            with suppress(OSError):  # removed by another process just now
                whole = folder / CONTENTS
                used = whole.stat().st_mtime if whole.exists() else folder.stat().st_mtime + ABANDONED
                found.append((used, sum(file.stat().st_size for file in folder.iterdir()), folder))
        return found

    def stop(self, why: str) -> None:
        self.off = True
        worker = get_worker_info()
        if worker is None or worker.id == 0:
            print(f"somite: {why}", file=sys.stderr, flush=True)


def touched(path: Path) -> None:
    """Used now, by the clock that `begun` is read from; a file system's may be a little behind."""
    now = time.time()
    os.utime(path, (now, now))


def removed(folder: Path) -> None:
    """What makes an entry whole goes first, so nobody begins to read what is half gone; nothing goes that is not of an entry."""
    with suppress(OSError):
        (folder / CONTENTS).unlink(missing_ok=True)
        for file in [*folder.glob("*.npy"), *folder.glob(f".*{CONTENTS}")]:  # of tensors, and of those half-written
            file.unlink()
        folder.rmdir()
