"""The run folders that other people's checkpoints become."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from safetensors.torch import save

from ..diffusion.methods import Method
from ..environment import environment
from ..errors import InputError
from ..files import replacing, sha256, write_json, write_text
from ..recipe import dump


def check_free(out: Path) -> None:
    if any((out / name).exists() for name in ("recipe.yaml", "weights.safetensors", "checkpoints")):
        raise InputError(f"{out} holds a run already; choose another --out")


def write_run(out: Path, config: Namespace, method: Method, checkpoints: Sequence[Path], origin: str, licence: str) -> Path:
    """A run folder as training would have left it, with a note of where its weights are from."""
    files = [{"file": Path(path).name, "sha256": sha256(path)} for path in checkpoints]
    write_json(out / "origin.json", {"origin": origin, "licence": licence, "files": files})
    write_json(out / "environment.json", {**environment(), "weights": sum(p.numel() for p in method.parameters())})
    write_json(out / "training.json", {"steps": 0, "best": {}})  # none here
    with replacing(out / "weights.safetensors") as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in method.state_dict().items()}))
    write_text(out / "recipe.yaml", dump(config))  # last: from now on the folder is a run
    return out
