"""What a DICOM file is, by the class of object in its first lines: reports, structure sets and masks are no slices of a scan."""

from pathlib import Path

from .dicom_elements import head, mapped, own

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
_MOST = 1 << 16  # bytes that are looked at


def kind_of(path: Path) -> str:
    """A word for what is certainly no scan; nothing for images, and for files that do not say what they are."""
    name = _class(path)
    number = name.removeprefix(_STORAGE)
    if number == name:
        return ""
    return next((word for start, word in _KINDS.items() if number == start or (start.endswith(".") and number.startswith(start))), "")


def _class(path: Path) -> str:
    """The class of a file's object, from the group that every file begins with; nothing where there is none."""
    with mapped(path) as (data, at):
        while at and own(data, at):
            tag, _, length, size = head(data, at)
            at += size
            if tag == _CLASS:
                return data[at : at + min(length, _MOST)].decode("ascii", errors="ignore").strip(" \0")
            at += length
    return ""
