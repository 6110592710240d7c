"""Small pretrained runs on phantoms, for tests of what stands on them."""

from pathlib import Path

from somite.cli import main

NETWORK = ["--method.network.base=8", "--method.network.levels=2", "--method.network.patch=[8,8,8]"]
QUICK = ["--training.steps=2", "--training.batch=2", "--training.warmup=1", "--training.validate=2"]
SMALL = {
    "ctpretrain/small": [*NETWORK, "--data.crop=8", "--task.patch=8"],
    "ctpretrain/masked": [*NETWORK, "--data.crop=8", "--task.patch=8", "--method.network.block=4"],
    "ctpretrain/restore": [*NETWORK, "--data.crop=8", "--task.patch=8"],
    "ctpretrain/contrast": [*NETWORK, "--data.views.size=8", "--data.views.voxels=16", "--method.projector.width=32"],
    "vox2vec/ct": [*NETWORK[:2], "--data.views.size=8", "--data.views.voxels=16", "--method.projector.width=24"],
    "bodyparts/small": ["--data.views.size=8", "--data.views.voxels=16", "--method.network.widths=[8,16]", "--method.network.depths=[1,1]"],
    "bodyparts/official": [
        "--data.views.size=8",
        "--data.views.voxels=16",
        "--method.network.widths=[8,16]",
        "--method.network.depths=[1,1]",
    ],
    "probe/paper": ["--data.crop=8", "--method.network.patch=[8,8,8]"],
    "probe/small": ["--data.crop=8", "--method.network.patch=[8,8,8]"],
    "probe/fine-tuned": ["--data.crop=8", "--method.network.patch=[8,8,8]"],
    "probe/scratch": ["--data.crop=8", "--method.network.patch=[8,8,8]"],
}


def trained(recipe: str, data: Path, out: Path, *more: str) -> Path:
    assert main(["train", recipe, f"--data.root={data}", *SMALL[recipe], *QUICK, *more, "--out", str(out)]) == 0
    return out
