"""Writing files so that nothing is ever half-written."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError, one_line

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SHUT = {errno.EACCES, errno.EPERM, errno.ELOOP}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` (with the same suffixes) to write to; renamed to `path` when the block ends well.

    Where the block fails the temporary file is removed and whatever stood at `path` before still stands there.
    Raises InputError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix="-" + path.name, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _explained(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        cause = _os_error(error)
        if cause is not None and cause.errno in _FULL:
            raise _explained(cause, path) from error
        raise


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` to write into; renamed to `out`, new or empty, when the block ends well, and removed when it fails.

    Raises InputError where something is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds something already; name a folder that is new or empty")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)
        partial.replace(out)  # over an empty folder too
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:  # noqa: ANN401 - JSON
    """Raises InputError where the file is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # the last of brackets in brackets
        raise InputError(f"{path} is not valid JSON ({error}): mend it or remove it") from error


def sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def full_disk(error: OSError) -> str | None:
    """One sentence, if that is what an error means; None for other errors."""
    if error.errno not in _FULL:
        return None
    where = f" while writing {error.filename}" if error.filename else ""
    return f"the disk is full{where}; nothing that was there is lost: free some space and run the same command again"


def unreadable(error: OSError) -> str | None:
    """One sentence on a file or folder that may not be opened, or leads in a circle; None for other errors."""
    if error.errno not in _SHUT or not error.filename:
        return None
    return one_line(f"{error.filename} cannot be opened ({os.strerror(error.errno)}): change its permissions, or take it out of the folder")


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError at the root of an exception, through libraries that wrap it (safetensors, SimpleITK)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error
        if "No space left on device" in str(error):
            return OSError(errno.ENOSPC, "No space left on device")
        error = error.__cause__ or error.__context__
    return None


def _explained(error: OSError, path: Path) -> InputError:
    if error.errno in _FULL:
        return InputError(
            f"the disk is full: {path} was not written (what stood there before is untouched); free some space and run the same command again"
        )
    return InputError(
        f"{path} cannot be written ({os.strerror(error.errno or 0)}); choose another folder with --out or change its permissions"
    )
