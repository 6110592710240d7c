"""Released weights of the programs around diffusion pretraining for CT, both by the same people: vox2vec and APE.

Files are state dicts of the backbone alone (vox2vec_contrastive.pt, vox2vec_vicreg.pt) or of the whole network (ape.pt); names are ours. Sizes come
from the files, preprocessing from the recipe.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from ..errors import InputError
from ..recipe import build, parse, path_of
from .foreign import write_run
from .importer import Asked, Importer, State

LICENCE = "MIT, if these are the files released there; otherwise that of their author"


class Vox2VecImporter(Importer):
    """The contrastive pretext's projector and a segmenting head are not released: they are as they begin, and of no use."""

    kind, system = "vox2vec", "vox2vec"

    def recognises(self, names: Collection[str]) -> bool:
        return {"first_conv.weight", "left_blocks.0.layers.0.layers.0.weight", "bottom_block.layers.0.layers.0.weight"} <= {*names}

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        (state,), (path,) = states, paths
        first = state["first_conv.weight"]
        if first.ndim != 5:
            raise InputError(
                f"{path} is no backbone of vox2vec's: first_conv.weight has shape {tuple(first.shape)}, wanted (base, channels, 3, 3, 3)"
            )
        levels = 1 + len({name.split(".")[1] for name in state if name.startswith("left_blocks.")})
        base, channels = first.shape[:2]
        sizes = {"base": base, "levels": levels, "image_channels": channels}
        told = [f"--method.network.{name}={value}" for name, value in sizes.items()]
        width = sum(base * 2**level for level in range(levels))
        config = parse(path_of("vox2vec/ct"), [*told, f"--method.projector.width={width}", f"--data.preprocess.channels={channels}"])
        return put(
            config,
            out,
            path,
            "network.fpn.",
            {f"network.fpn.{name}": value for name, value in state.items()},
            "vox2vec, Goncharov et al. 2023 (arXiv 2307.14725)",
        )


class APEImporter(Importer):
    """The scales of its axes, which the loss alone uses, are not released."""

    kind, system = "ape", "APE"

    def recognises(self, names: Collection[str]) -> bool:
        return {"fpn.stem.mask_token", "fpn.stem.conv.weight", "head.convs.0.weight"} <= {*names}

    def convert(self, states: Sequence[State], paths: Sequence[Path], out: Path, asked: Asked) -> Path:
        (state,), (path,) = states, paths

        def counted(part: str, level: int) -> int:
            return len({name.split(".")[4] for name in state if name.startswith(f"{part}.{level}.blocks.")})

        levels = len({name.split(".")[2] for name in state if name.startswith("head.convs.")})
        heads = [state.get(f"head.convs.{level}.weight") for level in range(levels)]
        if any(head is None or head.ndim != 5 for head in heads) or state["fpn.stem.conv.weight"].ndim != 5:
            raise InputError(f"{path} is a part of an APE checkpoint, or damaged: its sizes fit no pyramid; give the whole file")
        widths = [head.shape[1] for head in heads if head is not None]
        down = [counted("fpn.left_stages", level) for level in range(levels - 1)]
        down.append(len({name.split(".")[3] for name in state if name.startswith("fpn.bottom_stage.blocks.")}))
        sizes = {
            "widths": widths,
            "depths": down,
            "depths_up": [counted("fpn.right_stages", level) for level in range(levels - 1)],
            "image_channels": state["fpn.stem.conv.weight"].shape[1],
        }
        config = parse(path_of("bodyparts/official"), [f"--method.network.{name}={value}" for name, value in sizes.items()])
        return put(
            config,
            out,
            path,
            "network.",
            {f"network.{name}": value for name, value in state.items()},
            "APE, Sokolov et al. 2024 (arXiv 2409.10291)",
        )


IMPORTERS = [Vox2VecImporter(), APEImporter()]


def put(config, out: Path, path: Path, part: str, state: State, origin: str) -> Path:  # noqa: ANN001 - jsonargparse's Namespace
    """The recipe's method with these weights of its `part` as a run folder. Raises InputError where they are of something else."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # for what is not released
        method = build(config).method
    own = method.state_dict()
    lacking, odd = sorted(name for name in own if name.startswith(part) and name not in state), sorted({*state} - {*own})
    wrong = [name for name in state if name in own and state[name].shape != own[name].shape]
    bad = [name for name in state if not state[name].isfinite().all()]
    for names, told in (
        (lacking, "lacks"),
        (odd, "has, which has no place here,"),
        (wrong, "has of another size"),
        (bad, "has with NaN or infinite values"),
    ):
        if names:
            raise InputError(f"{path} is no whole checkpoint of {origin.split(',')[0]}: it {told} {names[0].removeprefix('network.')}")
    method.load_state_dict({**own, **state})
    return write_run(out, config, method, [path], origin, LICENCE)
