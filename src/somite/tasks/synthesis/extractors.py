"""By what generated images are compared with real ones, and how that is called wherever a number made with it stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint import tensors
from ...data import normalise
from ...data.preprocess import Preprocess
from ...data.record import Case, Record
from ...errors import InputError
from ...files import read_json
from ...networks import classifier
from ...networks.classifier import FEATURES, Classifier
from ...nn.features import Latents, Pixels, Pretrained
from ...nn.frozen import Part
from ...nn.latent_diffusion_names import part
from ...sampling import class_path
from ...store import digest_of
from ...trust import values

NETWORK = "network."  # entries of a run's weights
SHOWN = 8  # digits of a digest in a name


def extractor_of(source: Part | None) -> nn.Module:
    """Images (b, 1 or 3, h, w) in [0, 1] -> (b, d), with a `name`: a kind, and the beginning of the SHA-256 of what it was opened from, so
    that one network has one name wherever it lies.

    None: the pixels. A run of classification: what its network sees before the last layer. A run that trained an autoencoder, or a folder
    or file of one: its latents. Any other folder: a vision model of transformers. Raises InputError for what is none of these.
    """
    if source is None:
        return Pixels()
    path = Path(source.source)
    made = opened(path)
    made.name = f"{made.name} {(source.digest or digest_of(path))[:SHOWN]}"
    return made


def opened(path: Path) -> Any:  # noqa: ANN401 - a module with a name
    if (path / "recipe.yaml").is_file():
        network = part_of_run(path, "method").get("network") or {}
        kind = str(network.get("class_path"))
        return OfClassifier(path) if kind.startswith(f"{classifier.__name__}.") else Latents(path)
    config = next((read_json(one) for one in (path / "config.json", path / "vae" / "config.json") if one.is_file()), {})
    return Latents(path) if path.is_file() or config.get("_class_name") == "AutoencoderKL" else Pretrained(path)


class OfClassifier(nn.Module):
    """What the network of a run of classification sees before its last layer, of images brought to the size, channels and brightness that it
    was trained with. Of its recipe plain values are read alone, so no stranger's class is built.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        network, told = part_of_run(run, "method")["network"], part_of_run(run, "data").get("preprocess") or {}
        kind = getattr(classifier, network["class_path"].rpartition(".")[2], None)
        if not (isinstance(kind, type) and issubclass(kind, Classifier)):
            raise InputError(f"{run} has the network {network['class_path']}, and a classifier of somite's own was wanted as an extractor")
        self.network = kind(**network.get("init_args", {}))
        try:
            self.network.load_state_dict(part(tensors(run / "weights.safetensors"), NETWORK))
        except RuntimeError as error:
            raise InputError(f"{run}: recipe.yaml and weights.safetensors do not fit; both must come from the same run") from error
        self.network.requires_grad_(False).eval()
        if told.get("class_path", class_path(Preprocess)) != class_path(Preprocess):
            raise InputError(f"{run} prepares images by {told['class_path']}, which is not somite's; it cannot be an extractor")
        wanted = told.get("init_args", {}) if "class_path" in told else told
        self.preprocess = Preprocess(**{**wanted, "normalise": brightness(wanted.get("normalise"), run)})
        self.name = f"classifier {kind.__name__}"

    def forward(self, image: Tensor) -> Tensor:
        seen = [self.preprocess.image(record(one)) for one in image.cpu()]
        return torch.cat([self.network.encode({"image": one.to(image.device)})[FEATURES] for one in seen])


def record(image: Tensor) -> Record:
    return Record(Case("image", (), None, "image"), "image", image.numpy(), None, None, None, None)


def brightness(told: dict[str, Any] | None, run: Path) -> normalise.Normalise | None:
    """The Normalise that a recipe names, if it is one of somite's."""
    if not told:
        return None
    module, _, name = str(told.get("class_path")).rpartition(".")
    kind = getattr(normalise, name, None) if module == normalise.__name__ else None
    if not (isinstance(kind, type) and issubclass(kind, normalise.Normalise)):
        raise InputError(f"{run} treats brightness by {told.get('class_path')}, which is not somite's; it cannot be an extractor")
    inner = {key: brightness(value, run) if key == "after" else value for key, value in (told.get("init_args") or {}).items()}
    return kind(**inner)


def part_of_run(run: Path, name: str) -> dict[str, Any]:
    """A part of the recipe in a run folder as plain values; of a class its arguments."""
    tree = values(run / "recipe.yaml")
    found = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"{run / 'recipe.yaml'} has no {name}; give a run folder that somite train made")
    return found.get("init_args", {}) if "class_path" in found else found


def features_of(extractor: nn.Module, images: Sequence[Tensor] | Tensor, batch: int) -> Tensor:
    """(n, d) on the CPU, of n images (c, h, w), as many at a time as `batch` says where they are of one size."""
    device = next(extractor.parameters(), images[0]).device
    same = len({tuple(one.shape) for one in images}) == 1
    chunks = torch.stack(list(images)).split(batch) if same else [one[None] for one in images]
    with torch.no_grad():
        return torch.cat([extractor(chunk.to(device)).float().cpu() for chunk in chunks])
