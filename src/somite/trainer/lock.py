"""One process trains into a run folder; a second is refused before it writes anything.

The lock is the system's (POSIX, `fcntl.lockf`) on a file in the folder, so it ends with the process that holds it, however that ends: none
is ever stale, and what a killed process leaves behind is a file without meaning. NFS (with its lock service), Lustre (-o flock) and
most cluster file systems know it across machines. Where one knows no locks, or where the system has none (Windows), training goes on
without, and says so.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ..errors import InputError
from ..files import full_disk

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "training.lock"
_HELD = {errno.EACCES, errno.EAGAIN}
_UNKNOWN = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def alone(folder: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a run folder, which is made where it is not there and removed again if nothing came into it. Raises InputError where another
    process holds it, or nothing can be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _taken(folder / NAME, say)
    except OSError as error:
        why = full_disk(error) or f"{folder} cannot be written ({os.strerror(error.errno or 0)}); choose another folder with --out"
        raise InputError(why) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()  # while it is held: who opened it meanwhile sees below that it is not the folder's any more
        os.close(handle)
        with contextlib.suppress(OSError):
            if made:
                folder.rmdir()


def _taken(path: Path, say: Callable[[str], None]) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _lock(handle, path, say)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path, say: Callable[[str], None]) -> None:
    if fcntl is None:
        say(f"note: this system has no locks of files: see to it that no other process trains into {path.parent}")
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise InputError(f"{path.parent} is being trained by {holder}; wait for its end, or choose another --out") from error
        if error.errno not in _UNKNOWN:
            raise
        say(f"note: the file system of {path.parent} knows no locks: see to it that no other process trains into this folder")
