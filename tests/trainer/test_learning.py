"""Training learns: on phantoms, a few hundred steps of tiny networks give masks that are mostly right."""

import csv

import pytest

from runs import tiny
from somite.data.phantoms import write_phantoms

KINDS = {
    "one-step diffusion": ("medsegdiffnca/demo",),
    "feed-forward": (
        "medsegdiffnca/demo",
        "--method=somite.diffusion.methods.FeedForward",
        "--method.network=somite.networks.medsegdiffnca.MedSegDiffNCA",
        "--method.network.cbam=false",
        "--method.terms={mask: {class_path: somite.diffusion.terms.DiceCE}}",
    ),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "feed-forward" else ()) for kind in KINDS])
def test_a_few_hundred_steps_give_masks(kind, tmp_path):
    recipe, *overrides = KINDS[kind]
    root = write_phantoms(tmp_path / "data", 20, (32, 32))
    steps = ["--training.steps=240", "--training.validate=240", "--training.batch=4", "--training.rate=5e-3", "--training.warmup=20"]
    out = tiny(root, tmp_path / "run", *overrides, *steps, "--training.ema=0.98", "--data.augment=null", recipe=recipe)
    with (out / "metrics.csv").open() as file:
        dice = [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "val/score"]
    assert dice[-1] > 0.8
