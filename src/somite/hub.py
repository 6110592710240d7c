"""The Hugging Face hub: parts that a recipe names by a hub id ("org/name", or "org/name/folder" for a folder of it), and whole runs
("org/name", or "org/name@revision"), fetched from there and given there.

Only configurations, recipes and safetensors are fetched, so that no pickle comes along; huggingface_hub's own settings hold (HF_ENDPOINT,
HF_TOKEN, HF_HUB_OFFLINE).
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError

FILE = r"(?!.*\.(safetensors|ckpt|pt|pth|ya?ml)$)"
ID = re.compile(FILE + r"\w[\w.-]*/\w[\w.-]*(/[\w-]+)*")
RUN = re.compile(FILE + r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")
FILES = ("config.json", "diffusion_pytorch_model.safetensors", "model.safetensors", "recipe.yaml", "weights.safetensors")
OF_A_RUN = ("recipe.yaml", "weights.safetensors")
FITTED = ("temperature.json", "control.json", "quality.json")
BESIDE = (*FITTED, *(f"frozen/*/{file}" for file in FILES))  # what a run may have too
KEPT = "runs"  # the folder of a store that holds what was had
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


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
        raise missing(source, folder, "the huggingface_hub library is missing: pip install 'somite[hub]'") from error
    except Exception as error:  # of the network, the hub, its answers
        raise missing(source, folder, first_line(error)) from error
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


def run_of(source: str, store: Path) -> Path:
    """The folder of a run on the hub, "org/name" or "org/name@revision", in a cache inside the store.

    The hub is asked each time what is newest, and what is there already is not fetched again; where the hub cannot be reached, what was
    had last is taken. Raises InputError where it cannot be had, or is no run.
    """
    told = RUN.fullmatch(source)
    if told is None:
        raise InputError(f"{source} names nothing on the Hugging Face hub; write org/name, or org/name@revision")
    try:
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                told["repository"],
                revision=told["revision"],
                cache_dir=store / KEPT,
                allow_patterns=[*OF_A_RUN, *BESIDE],
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        )
    except ImportError as error:
        raise no_run(source, "needs its library to be asked: pip install 'somite[hub]'") from error
    except Exception as error:  # of the network, the hub, its answers
        raise no_run(source, refusal(error, "read")) from error
    lacks = [name for name in OF_A_RUN if not (folder / name).is_file()]
    if lacks:
        raise no_run(source, f"has no run of somite's there: it has no {lacks[0]}; `somite push` gives a run there")
    return folder


def no_run(source: str, why: str) -> InputError:
    return InputError(f"{source} is no run folder here, and the Hugging Face hub {why}")


def give(folder: Path, repository: str, public: bool) -> str:
    """Upload a folder as the repository's newest revision, and return its address. A repository that is not there yet is made, private
    unless `public`. Raises InputError where the hub refuses, or the repository is public and that was not asked for.
    """
    told = RUN.fullmatch(repository)
    if told is None or told["revision"]:
        raise InputError(f"{repository} is no name to push to; write org/name, with your own user name or organisation before the stroke")
    try:
        from huggingface_hub import HfApi

        hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="somite")
        address = hub.create_repo(repository, private=not public, exist_ok=True)
        if not public and not hub.model_info(repository).private:
            raise InputError(f"{repository} is public already, so everybody would see the run; add --public, or push to another name")
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="A run of somite")
    except ImportError as error:
        raise InputError("pushing needs the Hugging Face hub's library: pip install 'somite[hub]'") from error
    except InputError:
        raise
    except Exception as error:  # of the network, the hub, its answers
        raise InputError(f"{repository} was not pushed: the Hugging Face hub {refusal(error, 'write')}") from error
    return str(address)


def refusal(error: BaseException, right: str) -> str:
    """What the hub's refusal means, and the mend: the rest of a sentence that begins with the hub. right: "read" or "write"."""
    kinds = [type(one).__name__ for one in causes(error)]
    status = next((one.response.status_code for one in causes(error) if getattr(one, "response", None) is not None), None)
    if "RevisionNotFoundError" in kinds:
        return f"has no such revision of it ({status}); leave the part after @ out for the newest"
    if "GatedRepoError" in kinds or status == 403:
        return f"does not let you {right} it ({status}): ask its owner, accept its terms on its page, or use a token that may {right} it"
    if "RepositoryNotFoundError" in kinds or status == 404:
        return f"has none of that name, or it is private ({status}): check the name, or {LOG_IN} to a token that may {right} it"
    if status == 401:
        return f"does not take the token, or there is none (401): {LOG_IN} to a token that may {right} it"
    if status is None and {
        "ConnectError",
        "ConnectTimeout",
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "IncompleteSnapshotError",
    } & {*kinds}:
        kept = "no copy of it is in the cache" if right == "read" else "nothing was sent"
        return f"cannot be reached, and {kept}: try again with a connection, and without HF_HUB_OFFLINE"
    return f"answers: {first_line(error)}"


def causes(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "").partition(". ")[0] or type(error).__name__
