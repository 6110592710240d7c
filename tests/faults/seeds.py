"""Good files of every kind that somite reads, small, from which broken ones are made; and how a kind is packed, so that what is broken
lies behind the checksums, not only in them.
"""

import gzip
import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

import somite
from dicoms import head, write_series

RANDOM = np.random.default_rng(0)
GREY, COLOUR = (RANDOM.integers(0, 256, shape, np.uint8) for shape in ((9, 12), (9, 12, 3)))
DEEP = RANDOM.integers(0, 65536, (9, 12), np.uint16)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png() -> list[bytes]:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    images = [grey, colour, colour.quantize(8), grey.convert("1"), Image.fromarray(DEEP), colour.convert("RGBA"), grey.convert("LA")]
    return [stored(image, "PNG") for image in images]


def jpg() -> list[bytes]:
    exif = Image.Exif()
    exif[274] = 6
    colour = Image.fromarray(COLOUR)
    return [stored(image, "JPEG", exif=exif) for image in (Image.fromarray(GREY), colour, colour.convert("CMYK"))] + [
        stored(colour, "JPEG", progressive=True)
    ]


def tiff() -> list[bytes]:
    images = [Image.fromarray(one) for one in (GREY, COLOUR, DEEP, DEEP.astype(np.float32), DEEP.astype(np.int32))]
    plain = [stored(image, "TIFF") for image in images]
    return plain + [stored(images[1], "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]


def bmp() -> list[bytes]:
    return [stored(image, "BMP") for image in (Image.fromarray(GREY), Image.fromarray(COLOUR))]


def nii() -> list[bytes]:
    values = RANDOM.integers(0, 4, (5, 4, 3))
    made = [nib.Nifti1Image(values.astype(kind), np.diag([1, 2, 3, 1.0])) for kind in (np.uint8, np.int16, np.float32)]
    made.append(nib.Nifti1Image(values[..., None].repeat(2, -1).astype(np.float32), np.eye(4)))
    sloped = nib.Nifti1Image(values.astype(np.int16), np.eye(4))
    sloped.header.set_slope_inter(2, -1)
    return [one.to_bytes() for one in [*made, sloped]] + [nib.Nifti2Image(values.astype(np.uint8), np.eye(4)).to_bytes()]


def itk(*suffixes: str) -> list[bytes]:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(RANDOM.integers(0, 4, (3, 4, 5)).astype(np.int16))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in suffixes:
            for packed in (False, True):
                sitk.WriteImage(image, f"{folder}/a{suffix}", packed)
                found.append(Path(f"{folder}/a{suffix}").read_bytes())
    return found


def dicom() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        series = write_series(Path(folder) / "a", head((8, 8, 2)))
        return [path.read_bytes() for path in sorted(series.iterdir())]


def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}


def safetensors() -> list[bytes]:
    return [save(weights())]


class Stranger:
    """What a training program pickles beside the weights."""


def pth() -> list[bytes]:
    found = []
    for content in (weights(), {"state_dict": weights(), "hyper": {"rate": 0.1}}, {"state_dict": weights(), "callback": Stranger()}):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            found.append(buffer.getvalue())
    return found


def npz() -> list[bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, train_images=RANDOM.integers(0, 256, (4, 6, 6), np.uint8), train_labels=np.array([[0], [1], [0], [1]]))
    return [buffer.getvalue()]


def table() -> list[bytes]:
    return [b"image,mask,id,group,split\n" + b"".join(b"%d.png,m%d.png,case%d,p%d,train\n" % (i, i, i, i) for i in range(4))]


def labels() -> list[bytes]:
    return [b"id,kind,group\n0,a,p\n1,b,q\n2,a,r\n", b"id,x,y\n0,1,0\n1,0,1\n2,1,1\n"]


def splits() -> list[bytes]:
    return [json.dumps({"train": ["0", "1"], "val": ["2"], "test": [], "excluded": {"3": "why"}, "note": "x"}).encode()]


def published() -> list[bytes]:
    return [json.dumps({"train": ["0", "1"], "val": ["2"], "test": ["3"], "groups": {"0": "p"}, "note": "x"}).encode()]


def recipe() -> list[bytes]:
    root = Path(somite.__file__).parent / "recipes"
    return [(root / name).read_bytes() for name in ("medsegdiffnca/demo.yaml", "sdseg/small.yaml")]


# ---- repacking


def checksummed(data: bytes) -> bytes:
    """A PNG whose chunks' checksums are true again, as far as its chunks can be told."""
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        out.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + size
    return b"".join(out) + data[at:]


def zipped(data: bytes) -> bytes:
    """A zip file, stored, whose members' checksums are true again; others as they are."""
    buffer = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as made:
            for info in archive.infolist():
                made.writestr(info.filename, data_of(data, info))
    except Exception:  # zipfile's zoo, of files that this program broke
        return data
    return buffer.getvalue()


def data_of(data: bytes, info: zipfile.ZipInfo) -> bytes:
    """Of a stored member, without a look at its checksum."""
    start = info.header_offset
    name, extra = struct.unpack("<HH", data[start + 26 : start + 30])
    return data[start + 30 + name + extra :][: info.file_size]


REPACKED: dict[str, Callable[[bytes], bytes]] = {
    "png": checksummed,
    "nii.gz": lambda data: gzip.compress(data, 1),
    "pth": zipped,
    "npz": zipped,
}
