import errno
import hashlib
import json
import os
import subprocess

import pytest

from somite.errors import InputError
from somite.files import replacing, sha256, write_json, write_text


def fail(error):
    raise error


def half_written(path, failing):
    with replacing(path) as temporary:
        temporary.write_text("half")
        failing()


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"x": [1, "ä"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": [1, "ä"]}
    write_text(path, "second")
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_temporary_lies_beside_and_keeps_the_suffixes(tmp_path):
    with replacing(tmp_path / "map.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        assert not (tmp_path / "map.nii.gz").exists()
        temporary.write_bytes(b"1")
    assert (tmp_path / "map.nii.gz").read_bytes() == b"1"


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), KeyboardInterrupt(), OSError(errno.EIO, "input/output error")])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as raised:
        half_written(path, lambda: fail(error))
    assert raised.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def wrapped(error):
    """As libraries do: an error of their own, with or without the cause."""
    try:
        raise error
    except OSError as cause:
        raise RuntimeError("serialisation failed") from cause


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "failing",
    [
        lambda: fail(FULL),
        lambda: fail(OSError(errno.EDQUOT, "Disk quota exceeded")),
        lambda: wrapped(FULL),
        lambda: fail(RuntimeError("I/O error: No space left on device (os error 28)")),
    ],
)
def test_a_full_disk_is_the_users_to_mend(tmp_path, failing):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match="disk is full") as raised:
        half_written(path, failing)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"mount is not to be had: {error}")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_really_full_disk(tiny_disk):
    path = tiny_disk / "a.txt"
    write_text(path, "old")
    with pytest.raises(InputError, match="disk is full"):
        write_text(path, "x" * 200_000)
    assert path.read_text() == "old"
    assert os.listdir(tiny_disk) == ["a.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"somite" * 1000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"somite" * 1000).hexdigest()
