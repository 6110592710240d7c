"""Parts that a recipe names by a hub id: "org/name", or "org/name/folder" for a folder of it. Fetched once from the Hugging Face hub.

Only configurations and safetensors are, so that no pickle comes along; huggingface_hub's own settings hold (HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE).
"""

import os
import re
import shutil
from pathlib import Path

from .errors import InputError

ID = re.compile(r"(?!.*\.(safetensors|ckpt|pt|pth)$)\w[\w.-]*/\w[\w.-]*(/[\w-]+)*")
FILES = ("config.json", "diffusion_pytorch_model.safetensors", "model.safetensors", "recipe.yaml", "weights.safetensors")


def fetched(source: str, store: Path) -> Path:
    """The folder in a store that a hub id stands for, downloaded where it is not there yet.

    Raises InputError where it cannot be had, saying what to put where.
    """
    folder = store / "hub" / source.replace("/", "--")
    if folder.is_dir():
        return folder
    owner, name, *inside = source.split("/")
    wanted = ["/".join([*inside, file]) for file in FILES]
    partial = folder.with_name(f".{folder.name}")
    try:
        from huggingface_hub import snapshot_download

        snapshot_download(f"{owner}/{name}", local_dir=partial, allow_patterns=wanted, endpoint=os.environ.get("HF_ENDPOINT"))
    except ImportError as error:
        raise missing(source, folder, "the huggingface_hub library is missing: pip install 'somite[diffusers]'") from error
    except Exception as error:  # of the network, the hub, its answers
        why = next(iter(str(error).strip().splitlines()), "").partition(". ")[0] or type(error).__name__
        raise missing(source, folder, why) from error
    arrived = partial.joinpath(*inside)
    if not any(arrived.glob("*.safetensors")):
        shutil.rmtree(partial, ignore_errors=True)
        raise missing(source, folder, "no safetensors lie there; of a pipeline name the folder, as org/name/vae")
    shutil.rmtree(arrived / ".cache", ignore_errors=True)  # the downloader's notes
    arrived.rename(folder)
    shutil.rmtree(partial, ignore_errors=True)
    return folder


def missing(source: str, folder: Path, why: str) -> InputError:
    return InputError(
        f"{source} is no path here, and could not be had from the Hugging Face hub ({why}); download its config.json and safetensors "
        f"and put them at {folder}, or give the path of a folder"
    )
