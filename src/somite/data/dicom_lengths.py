"""Whether a DICOM file holds what its elements promise: GDCM takes the memory that a length asks for before it looks, and does not give it
back where the file ends first (a damaged file of a kilobyte can cost gigabytes).
"""

from pathlib import Path

from .dicom_elements import ITEM, OPEN, Bytes, head, mapped, own

_SYNTAX, _PIXELS, _LAST = (0x0002, 0x0010), (0x7FE0, 0x0010), 0xE0DD
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def within(path: Path) -> bool:
    """Whether no element is longer than what is left of the file. True too where elements cannot be told apart from here on: what is
    deflated, or of unknown representation without a length.
    """
    with mapped(path) as (data, at):
        return len(data) >= 8 and _walked(data, at)


def _walked(data: Bytes, at: int) -> bool:
    syntax, pieces = b"", False  # pieces: of pixel data in a codec's form, whose items are no elements
    while at + 8 <= len(data):
        meta = own(data, at)
        if syntax == _DEFLATED and not meta:
            return True
        tag, representation, length, size = head(data, at, b"" if meta else syntax)
        at += size
        if tag[0] == ITEM:
            pieces = pieces and tag[1] != _LAST
            if not pieces:
                continue  # an item's elements follow, or what comes after them
        elif length == OPEN:
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
