"""One slice as a DICOM file."""

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian


def dicom(path, pixels, syntax, **told):
    """One slice, as a scanner writes it, with a sequence before the pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = syntax, "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    image = Dataset()
    image.file_meta = meta
    image.Rows, image.Columns = pixels.shape
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-1", "somewhere"
    inner.ConceptCodeSequence = Sequence([Dataset()])
    image.AnatomicRegionSequence = Sequence([inner, inner])
    image["AnatomicRegionSequence"].is_undefined_length = True
    image.SamplesPerPixel, image.PhotometricInterpretation, image.BitsAllocated, image.BitsStored, image.HighBit = (
        1,
        "MONOCHROME2",
        16,
        12,
        11,
    )
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.RescaleSlope, image.RescaleIntercept = "1.5", "-1024"
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OW"
    for name, value in told.items():
        setattr(image, name, value)
    pydicom.dcmwrite(path, image, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
