"""Other people's checkpoints, opened without running their code, and the run folders that they become."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import Namespace
from safetensors.torch import save
from torch import Tensor

from ..diffusion.methods import Method
from ..environment import environment
from ..errors import InputError
from ..files import replacing, sha256, write_json, write_text
from ..recipe import dump


def check_free(out: Path) -> None:
    if any((out / name).exists() for name in ("recipe.yaml", "weights.safetensors", "checkpoints")):
        raise InputError(f"{out} holds a run already; choose another --out")


def opened(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"the checkpoint {path} is not there; give the file that the authors' program saved")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is no plain file of weights: opening it would run code that it names, or it is no PyTorch file; "
            "give the state_dict() alone, as the authors released it"
        ) from error
    except Exception as error:  # torch has a zoo of them for damaged files
        raise InputError(f"{path} cannot be read as a checkpoint ({type(error).__name__}); copy it again from its origin") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no state dict of tensors; give the network's weights, not those of the optimizer or scheduler")
    return found


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
