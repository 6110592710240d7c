"""The heads of a DICOM file's elements, one after the other, which need no library (PS3.5, 7.1; PS3.10, 7.1)."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

IMPLICIT, BIG = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2"  # transfer syntaxes whose heads are otherwise than those of all others
ITEM = 0xFFFE  # the group of what delimits
OPEN = 0xFFFFFFFF  # a length that a delimiter says
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}  # whose length has four bytes
_PREAMBLE = 132

Bytes = mmap.mmap | bytes


class Head(NamedTuple):
    """representation: where it is written down. length: of the value; size: of all this."""

    tag: tuple[int, int]
    representation: bytes
    length: int
    size: int


@contextmanager
def mapped(path: Path) -> Iterator[tuple[Bytes, int]]:
    """A file's bytes, and where its first element begins: behind the preamble, or at 0 where there is none."""
    if path.stat().st_size == 0:
        yield b"", 0
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data, _PREAMBLE if data[_PREAMBLE - 4 : _PREAMBLE] == b"DICM" else 0


def head(data: Bytes, at: int, syntax: bytes = b"") -> Head:
    """Of the element at `at`, of which eight bytes are there. syntax: of the data set; none for the file's own group, which is always explicit."""
    order = ">" if syntax == BIG else "<"
    tag, representation = struct.unpack_from(f"{order}HH", data, at), data[at + 4 : at + 6]
    if tag[0] == ITEM or syntax == IMPLICIT or not (representation.isalpha() and representation.isupper()):
        return Head(tag, b"", struct.unpack_from(f"{order}I", data, at + 4)[0], 8)
    if representation not in _LONG:
        return Head(tag, representation, struct.unpack_from(f"{order}H", data, at + 6)[0], 8)
    length = struct.unpack_from(f"{order}I", data, at + 8)[0] if at + 12 <= len(data) else OPEN - 1
    return Head(tag, representation, length, 12)


def own(data: Bytes, at: int) -> bool:
    """Whether an element of the file's own group stands there."""
    return at + 8 <= len(data) and data[at : at + 2] == b"\x02\0"
