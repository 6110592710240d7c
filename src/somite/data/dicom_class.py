"""What a DICOM file is, by the class of object in its first lines: reports, structure sets and masks are no slices of a scan."""

import struct
from pathlib import Path

_STORAGE = "1.2.840.10008.5.1.4.1.1."  # what follows says what the object is: PS3.6, table A-1
_KINDS = {
    "88.59": "a list of key images (KO)",
    "88.": "a structured report (SR)",
    "66.4": "a segmentation (DICOM-SEG)",
    "66.7": "a segmentation (DICOM-SEG)",
    "481.2": "a radiotherapy dose (RTDOSE)",
    "481.3": "a structure set (RTSTRUCT)",
    "481.5": "a radiotherapy plan (RTPLAN)",
    "11.": "a presentation state (PR)",
    "104.": "a document (PDF)",
}
_CLASS = (0x0002, 0x0002)  # MediaStorageSOPClassUID
_LONG = (b"OB", b"UN")  # value representations of the group whose length has four bytes behind two empty ones


def kind_of(path: Path) -> str:
    """A word for what is certainly no scan; nothing for images, and for files that do not say what they are."""
    name = _class(path)
    number = name.removeprefix(_STORAGE)
    if number == name:
        return ""
    return next((word for start, word in _KINDS.items() if number == start or (start.endswith(".") and number.startswith(start))), "")


def _class(path: Path) -> str:
    """The class of a file's object, from the group that every file begins with, explicit and little endian whatever follows."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return ""
        while len(head := file.read(8)) == 8:
            group, element, vr, length = struct.unpack("<HH2sH", head)
            if group != _CLASS[0]:
                return ""
            if vr in _LONG:
                length = int.from_bytes(file.read(4), "little")
            value = file.read(min(length, 1 << 16))
            if element == _CLASS[1]:
                return value.decode("ascii", errors="ignore").strip(" \0")
    return ""
