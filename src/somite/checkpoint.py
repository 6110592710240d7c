"""Files of weights from elsewhere, PyTorch's and safetensors, opened without running anybody's code.

A PyTorch file is a pickle, and a pickle may name any function for its reader to call. torch opens those that name tensors and plain
values alone; a checkpoint of a training program also holds its callbacks and options, objects of classes that are not here. For
these there is a second reader: it knows tensors and plain containers, and whatever else is named becomes an `Inert`, which is never
imported or called. Of the numbers only the state dict's are read, so an optimiser's cost no memory.
"""

import math
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import InputError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # with which files begin that are older than PyTorch 1.6
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def tensors(path: Path) -> dict[str, Tensor]:
    """A state dict by its names: the file's own, or the one under "state_dict" as Lightning saves it, or both under "model"
    and "ema" as DiT's program saves them, whose names then begin so.

    Raises InputError for what is no file of weights, and for one that is damaged.
    """
    if not path.is_file():
        raise InputError(f"the checkpoint {path} is not there; give the file that the authors' program saved")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else unpickled(path)
    except Exception as error:  # there is a zoo of them for damaged files
        why = next(iter(str(error).strip().splitlines()), "").partition(". ")[0] or type(error).__name__
        raise InputError(f"{path} cannot be read as a checkpoint ({why}); copy it again from its origin") from error
    odd = next((name for name, value in found.items() if isinstance(value, Inert)), None)
    if odd is not None:
        raise InputError(
            f"{path} is no plain file of weights: its {odd} is no tensor, and opening it as what it is could run code; "
            "give the state_dict() alone, as the authors released it"
        )
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no state dict of tensors; give the network's weights, not those of the optimizer or scheduler")
    return found


def unpickled(path: Path) -> dict[Any, Any]:
    """The state dict: by torch, or where the file names what torch does not know, by the reader of this module."""
    try:
        return state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError:
        return archived(path) if zipfile.is_zipfile(path) else consecutive(path)


def state_dict(found: object) -> dict[Any, Any]:
    """Of what a file holds; empty where it is something else."""
    match found:
        case {"state_dict": dict() as inner}:
            return inner
        case {"model": dict() as raw, "ema": dict() as averaged}:  # DiT's training script and its descendants
            return {f"model.{name}": value for name, value in raw.items()} | {f"ema.{name}": value for name, value in averaged.items()}
        case dict():
            return found
        case _:
            return {}


def archived(path: Path) -> dict[Any, Any]:
    """From a zip file: data.pkl, and each storage in a member of its own."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if not names:
            raise ValueError("a zip file without a data.pkl")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and member(archive, f"{root}byteorder") != b"little":
            raise ValueError("written by a machine of another byte order")
        with archive.open(names[0]) as file:
            found = state_dict(Reader(file).load())
        return {name: made(value, lambda key: member(archive, f"{root}data/{key}")) for name, value in found.items()}


def member(archive: zipfile.ZipFile, name: str) -> bytearray:
    """PyTorch compresses nothing, so what is compressed was made to grow."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} in it is compressed")
    return bytearray(archive.read(name))


def consecutive(path: Path) -> dict[Any, Any]:
    """From a file older than PyTorch 1.6: five pickles, then the storages one after another, each behind its length."""
    with path.open("rb") as file:
        if Reader(file).load() != MAGIC or Reader(file).load() != PROTOCOL:
            raise ValueError("it does not begin as PyTorch's files do")
        Reader(file).load()  # about the machine that wrote it
        reader = Reader(file)
        found = state_dict(reader.load())
        wanted = {value.storage.key for value in found.values() if isinstance(value, Stored)}
        data = {}
        for key in map(str, Reader(file).load()):
            (count,) = struct.unpack("<q", file.read(8))
            size = count * reader.dtypes[key].itemsize
            if key in wanted:
                data[key] = bytearray(file.read(size))
            else:
                file.seek(size, 1)
        if file.tell() > path.stat().st_size:  # storages lie in the order of addresses, so what is cut off may be one that nobody reads
            raise ValueError("it ends before its last number")
        return {name: made(value, data.__getitem__) for name, value in found.items()}


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors may share: their key in the file, and of what kind they are."""

    key: str
    dtype: torch.dtype


class Inert:
    """In the place of everything that is neither tensor nor container: it can be made, called and filled, and does nothing."""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "Inert":
        return self

    def __setitem__(self, *_: object) -> None: ...

    __setstate__ = append = extend = add = __init__


class Stored(Inert):
    """A tensor whose numbers are still in the file. Arguments are those of `torch._utils._rebuild_tensor_v2`."""

    def __init__(self, storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *_: object) -> None:  # noqa: ANN401
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)


def made(value: object, data: Any) -> object:  # noqa: ANN401
    """A tensor from the bytes that `data` gives for a storage's key; other values as they are."""
    if not isinstance(value, Stored):
        return value
    if not math.prod(value.size):
        return torch.empty(value.size, dtype=value.storage.dtype)
    # torch refuses places outside of the storage, so that a file cut short is told
    return torch.frombuffer(data(value.storage.key), dtype=value.storage.dtype).as_strided(value.size, value.stride, value.offset)


class Entries(dict):
    """Where a file has an OrderedDict, whose attributes are of no use."""

    def __setstate__(self, _: object) -> None: ...


def first(value: object, *_: object) -> object:
    return value


class Reader(pickle.Unpickler):
    """Nothing that a file names is imported."""

    known: dict[tuple[str, str], Any] = {  # noqa: RUF012
        ("collections", "OrderedDict"): Entries,
        ("torch", "Size"): tuple,
        ("torch._utils", "_rebuild_tensor"): Stored,
        ("torch._utils", "_rebuild_tensor_v2"): Stored,
        ("torch._utils", "_rebuild_parameter"): first,
        **{(module, name): dtype for module in ("torch", "torch.cuda") for name, dtype in DTYPES.items()},
    }

    def __init__(self, file: Any) -> None:  # noqa: ANN401
        super().__init__(file)
        self.dtypes: dict[str, torch.dtype] = {}  # of storages, by key

    def find_class(self, module: str, name: str, /) -> Any:  # noqa: ANN401
        return self.known.get((module, name), Inert)

    def persistent_load(self, pid: Any, /) -> object:  # noqa: ANN401
        """("storage", type, key, device, count), in older files with a view of it behind them, or ("module", ...)."""
        match pid:
            case ("storage", torch.dtype() as dtype, key, _, _, *views) if views in ([], [None]):
                self.dtypes[str(key)] = dtype
                return Storage(str(key), dtype)
            case _:
                return Inert()
