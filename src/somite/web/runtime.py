"""onnxruntime-web, which runs ONNX files in browsers: six files of its npm package (MIT), known by their digests.

They are 41 MB and no part of somite: fetched once from the npm registry and kept in the user's cache, or taken from a package that is at hand.
"""

import hashlib
import io
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..files import replacing
from ..store import user_store

VERSION = "1.30.0"
REGISTRY = "https://registry.npmjs.org"
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
Say = Callable[[str], None]


def runtime(given: Path | None = None, say: Say = print) -> Path:
    """A folder of these files. given: the package as a .tgz, unpacked, or its folder dist.

    Raises InputError where they cannot be had, or are not those of this version.
    """
    if given is not None and given.is_dir():
        return checked(
            next((one for one in (given, given / "dist", given / "package" / "dist") if (one / next(iter(FILES))).is_file()), given)
        )
    kept = user_store().with_name(f"onnxruntime-web-{VERSION}")
    if given is None and all((kept / name).is_file() for name in FILES):
        return checked(kept)
    if given is not None:
        if not given.is_file():
            raise InputError(f"--runtime {given}: there is no such file or folder; give the package onnxruntime-web {VERSION}")
        return unpacked(given.read_bytes(), str(given), kept)
    say(f"fetching onnxruntime-web {VERSION} from the npm registry (33 MB, once)")
    return unpacked(fetched(), "the npm registry's package", kept)


def fetched() -> bytes:
    place = os.environ.get("NPM_CONFIG_REGISTRY") or REGISTRY
    address = f"{place.rstrip('/')}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    if not address.startswith(("https://", "http://")):
        raise InputError(f"NPM_CONFIG_REGISTRY {place} is no address of a registry; it begins with https://")
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.read()
    except OSError as error:  # of the network, and what urllib makes of it
        raise InputError(
            f"onnxruntime-web could not be fetched from {address} ({error}); on a machine with network run `npm pack onnxruntime-web@{VERSION}` "
            "and give the file with --runtime"
        ) from error


def unpacked(packed: bytes, whence: str, folder: Path) -> Path:
    """The files of a .tgz in a folder of the cache; nothing else of it is looked at."""
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as package:
            for name, digest in FILES.items():
                part = package.extractfile(f"package/dist/{name}")
                content = b"" if part is None else part.read()
                right(name, hashlib.sha256(content).hexdigest(), digest, whence)
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise InputError(
            f"{whence} is not the package onnxruntime-web {VERSION} ({error}); get it with `npm pack onnxruntime-web@{VERSION}`"
        ) from error
    return folder


def checked(folder: Path) -> Path:
    for name, digest in FILES.items():
        path = folder / name
        if not path.is_file():
            raise InputError(
                f"{folder} has no {name}; give the package onnxruntime-web {VERSION}, as `npm pack onnxruntime-web@{VERSION}` has it"
            )
        right(name, hashlib.sha256(path.read_bytes()).hexdigest(), digest, str(folder))
    return folder


def right(name: str, found: str, wanted: str, whence: str) -> None:
    if found != wanted:
        raise InputError(f"{name} of {whence} is not that of onnxruntime-web {VERSION}; get it with `npm pack onnxruntime-web@{VERSION}`")


def copy(folder: Path, out: Path) -> None:
    out.mkdir()
    for name in FILES:
        shutil.copyfile(folder / name, out / name)
