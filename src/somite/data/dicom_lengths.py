"""Whether a DICOM file holds what its elements promise: GDCM takes the memory that a length asks for before it looks, and does not give it
back where the file ends first (a damaged file of a kilobyte can cost gigabytes).

The elements are walked by their heads alone (PS3.5, 7.1 and 7.5; a file's own group and its transfer syntax, PS3.10, 7.1).
"""

import mmap
import struct
from pathlib import Path

_SYNTAX, _PIXELS, _ITEM, _LAST = (0x0002, 0x0010), (0x7FE0, 0x0010), 0xFFFE, 0xE0DD
_IMPLICIT, _BIG, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}  # whose length has four bytes
_OPEN = 0xFFFFFFFF  # a length that a delimiter says


def within(path: Path) -> bool:
    """Whether no element is longer than what is left of the file. True too where elements cannot be told apart from here on: what is
    deflated, or of unknown representation without a length.
    """
    if path.stat().st_size < 8:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _walked(data, 132 if data[128:132] == b"DICM" else 0)


def _walked(data: mmap.mmap, at: int) -> bool:
    syntax, pieces = b"", False  # pieces: of pixel data in a codec's form, whose items are no elements
    while at + 8 <= len(data):
        meta = data[at : at + 2] == b"\x02\0"
        if syntax == _DEFLATED and not meta:
            return True
        tag, representation, length, head = _begun(data, at, b"" if meta else syntax)
        at += head
        if tag[0] == _ITEM:
            pieces = pieces and tag[1] != _LAST
            if not pieces:
                continue  # an item's elements follow, or what comes after them
        elif length == _OPEN:
            if representation == b"UN":
                return True
            pieces = tag == _PIXELS
            continue
        if length > len(data) - at:
            return False
        if tag == _SYNTAX:
            syntax = data[at : at + length].strip(b" \0")
        at += length
    return True


def _begun(data: mmap.mmap, at: int, syntax: bytes) -> tuple[tuple[int, int], bytes, int, int]:
    """An element's tag, its representation where it is written down, its length, and the bytes that say all this."""
    order = ">" if syntax == _BIG else "<"
    tag, representation = struct.unpack_from(f"{order}HH", data, at), data[at + 4 : at + 6]
    if tag[0] == _ITEM or syntax == _IMPLICIT or not (representation.isalpha() and representation.isupper()):
        return tag, b"", struct.unpack_from(f"{order}I", data, at + 4)[0], 8
    if representation not in _LONG:
        return tag, representation, struct.unpack_from(f"{order}H", data, at + 6)[0], 8
    length = struct.unpack_from(f"{order}I", data, at + 8)[0] if at + 12 <= len(data) else _OPEN - 1
    return tag, representation, length, 12
