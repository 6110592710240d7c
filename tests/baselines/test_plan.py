"""Plans against what nnU-Net's rules give by hand, and a planned recipe trained, predicted and evaluated."""

import itertools
import json
from math import prod

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.networks.nets import DynUNet as MonaiDynUNet

import somite
from somite.baselines.fit import plan_recipe
from somite.baselines.plan import Fingerprint, Intensity, fingerprint, plan, recipe, supervision, target_spacing, topology
from somite.data.normalise import Standard
from somite.data.phantoms import write_phantoms
from somite.errors import InputError
from somite.evaluation import evaluate
from somite.networks.baselines import DynUNet
from somite.recipe import parse, path_of
from somite.trainer.run import train


def known(shape, spacing, cases=1000, channels=("channel 0",)):
    return Fingerprint("here", (shape,) * cases, (spacing,) * cases, channels, (Intensity(0, 1, -1, 1),) * len(channels), 2, None, None)


def test_images_of_256_get_nnunets_seven_levels():
    made = plan(known((256, 256), (1.0, 1.0)), 2)
    assert made.patch == (256, 256)
    assert made.features == (32, 64, 128, 256, 512, 512, 512)
    assert made.strides == ((1, 1),) + ((2, 2),) * 6
    assert made.kernels == ((3, 3),) * 7
    assert made.batch == 48  # 12 x 512^2 voxels
    assert supervision(made.levels) * (1 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16) == pytest.approx(1)
    with torch.device("meta"):
        ours = DynUNet(**made.network(3, 2))
        theirs = MonaiDynUNet(2, 3, 2, [3] * 7, [1] + [2] * 6, [2] * 6, filters=made.features, deep_supervision=True, deep_supr_num=5)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 33_463_852
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == 33_463_852 - (512 * 2 + 2)  # the idle head


def test_thick_slices_are_pooled_and_convolved_in_plane_until_spacing_is_alike():
    """320 x 320 x 20 at 0.6 x 0.6 x 3.6: in plane 0.6 -> 1.2 -> 2.4, now within 2 of 3.6: z joins, from 20 to 10 to 5, which is below 8."""
    made = plan(known((320, 320, 20), (0.6, 0.6, 3.6)), 3)
    flat, full = (2, 2, 1), (2, 2, 2)
    assert made.strides == ((1, 1, 1), flat, flat, full, full, flat, flat)
    assert made.kernels == ((3, 3, 1), (3, 3, 1)) + ((3, 3, 3),) * 5
    assert made.patch == (320, 320, 20)
    assert made.features == (32, 64, 128, 256, 320, 320, 320)
    assert plan(known((320, 320, 20), (0.6, 0.6, 3.6)), 2).axis == 2
    assert plan(known((20, 320, 320), (3.6, 0.6, 0.6)), 2).axis == 0
    assert plan(known((64, 64, 64), (1.0, 1.0, 1.0)), 2).axis == 2


def test_every_plan_keeps_the_rules():
    random = np.random.default_rng(0)
    for _ in range(60):
        dims = int(random.integers(2, 4))
        shape = tuple(random.integers(12, 400 if dims == 2 else 200, dims).tolist())
        spacing = tuple(random.uniform(0.4, 3, dims).tolist()) if dims == 3 else (1.0, 1.0)
        budget = int(random.integers(20_000, 2_000_000))
        made = plan(known(shape, spacing, cases=2000), dims, budget)
        divisor = [prod(axis) for axis in zip(*made.strides, strict=True)]
        assert all(n % d == 0 and n // d >= 4 for n, d in zip(made.patch, divisor, strict=True) if d > 1)
        assert prod(made.patch) <= budget / {2: 12, 3: 2}[dims]
        assert made.batch >= 2
        assert made.batch * prod(made.patch) <= budget * 1.5 or made.batch == 2
        assert all(3 in kernel for kernel in made.kernels)
        assert len(made.kernels) == len(made.strides) == len(made.features)


def test_the_bundled_recipe_is_the_plan_for_256():
    found = known((256, 256), (1.0, 1.0), channels=("R", "G", "B"))
    planned_, bundled = recipe(found, plan(found, 2), None), yaml.safe_load(path_of("nnunet/images").read_text())
    ours, theirs = bundled["method"]["init_args"], planned_["method"]["init_args"]
    assert ours["terms"] == theirs["terms"]
    network = theirs["network"]["init_args"]["network"]["init_args"]["network"]["init_args"]
    given = ours["network"]["init_args"]
    assert given == {k: v for k, v in network.items() if k not in ("mask_channels", "dims")} | {"deep_heads": None}
    with torch.device("meta"):
        one, two = DynUNet(**given), DynUNet(**network)
    assert len(one.unet.deep_supervision_heads) == len(two.unet.deep_supervision_heads) == 5
    assert bundled["training"] == planned_["training"]
    for key in ("foreground_rate", "augment"):
        assert bundled["data"][key] == planned_["data"][key]
    assert bundled["data"]["preprocess"]["normalise"] == planned_["data"]["preprocess"]["normalise"]


def test_batches_hold_at_most_a_twentieth_of_the_data():
    assert plan(known((256, 256), (1.0, 1.0), cases=200), 2).batch == 10
    assert plan(known((256, 256), (1.0, 1.0), cases=3), 2).batch == 2


def test_a_patch_is_the_median_image_at_the_target_spacing():
    shapes, spacings = ((100, 100, 40), (200, 200, 40), (120, 120, 80)), ((1.0, 1.0, 2.0), (0.5, 0.5, 2.0), (1.0, 1.0, 1.0))
    made = plan(Fingerprint("here", shapes, spacings, ("MR",), (Intensity(0, 1, 0, 1),), 2, None, None), 3)
    assert made.spacing == (1.0, 1.0, 2.0)
    assert made.shape == (100, 100, 40)
    assert made.patch[2] in (40, 48)


def test_the_coarse_axis_of_anisotropic_data_gets_its_tenth_percentile():
    coarse = np.array([4.0, 5.0, 5.0, 6.0, 9.0])
    spacings = np.stack([np.full(5, 0.5), np.full(5, 0.5), coarse], 1)
    shapes = np.tile([300, 300, 20], (5, 1))
    assert target_spacing(spacings, shapes)[2] == pytest.approx(np.percentile(coarse, 10))
    assert target_spacing(spacings, np.tile([300, 300, 200], (5, 1)))[2] == 5.0


def test_topology_halves_while_four_are_left():
    for edge, levels in ((8, 1), (11, 1), (12, 2), (16, 2), (32, 3), (256, 6)):
        one = topology((1.0, 1.0), (edge, 6))  # an axis that is halved alone wants 12
        assert len(one.strides) == levels
        assert all(stride[1] == 1 for stride in one.strides)
    for edge, levels in ((7, 1), (8, 2), (14, 2), (15, 3), (16, 3), (256, 7), (512, 8)):  # halves are rounded up
        assert len(topology((1.0, 1.0), (edge, edge)).strides) == levels


def volumes(root, modality):
    """Five cases in nnU-Net's first layout; the last is for testing and unlike the rest."""
    random = np.random.default_rng(1)
    inside = []
    for index in range(5):
        part = "Ts" if index == 4 else "Tr"
        image = random.normal(50, 200, (20, 18, 16)).astype(np.float32) + 10_000 * (index == 4)
        mask = np.zeros(image.shape, np.uint8)
        mask[4 : 12 + index, 5:13, 6:12] = 1
        for kind, array in (("images", image), ("labels", mask)):
            (root / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
            name = f"c{index}_0000" if kind == "images" else f"c{index}"
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.5, 1.0])), root / f"{kind}{part}" / f"{name}.nii.gz")
        if part == "Tr":
            inside.append(image[mask > 0])
    content = {"channel_names": {"0": modality}, "labels": {"background": 0, "x": 1}, "numTraining": 4, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    return np.concatenate(inside).astype(np.float64)


def test_ct_is_normalised_by_the_foreground_of_the_training_cases(tmp_path):
    inside = volumes(tmp_path, "CT")
    found = fingerprint(tmp_path)
    assert found.shapes == ((20, 18, 16),) * 4
    assert np.allclose(found.spacings, (1.0, 1.0, 1.5))
    (one,) = found.intensities
    low, high = np.percentile(inside, (0.5, 99.5))
    assert (one.mean, one.std, one.low, one.high) == pytest.approx((inside.mean(), inside.std(), low, high))
    node = plan(found, 3).normalise
    assert node["class_path"].endswith("Standard")
    image = torch.randn(1, 1, 4, 5, 6) * 500
    expected = (image.numpy().clip(low, high) - inside.mean()) / inside.std()
    assert np.allclose(Standard(**node["init_args"])(image, "x").numpy(), expected, atol=1e-4)


def test_other_modalities_are_z_scored_and_mixtures_refused(tmp_path):
    volumes(tmp_path, "MRI")
    assert plan(fingerprint(tmp_path), 3).normalise == {"class_path": "somite.data.normalise.ZScore"}
    with pytest.raises(InputError, match="several kinds"):
        plan(known((40, 40, 40), (1.0, 1.0, 1.0), channels=("CT", "PET")), 3)


def test_what_cannot_be_planned_is_refused(tmp_path):
    with pytest.raises(InputError, match="flat images"):
        plan(known((64, 64), (1.0, 1.0)), 3)
    with pytest.raises(InputError, match="too small"):
        plan(known((7, 7), (1.0, 1.0)), 2)
    with pytest.raises(InputError, match="raise the budget"):
        plan(known((64, 64), (1.0, 1.0)), 2, budget=100)
    with pytest.raises(InputError, match="3 channels"):
        Standard([0], [1], [0], [1])(torch.zeros(1, 3, 4, 4), "x")


def planned(tmp_path, dims, size, channels, *overrides):
    root = write_phantoms(tmp_path / "data", 12, size, channels)
    path = plan_recipe(root, dims, 1, tmp_path / "planned.yaml", budget=12 * 24 * 24 if dims == 2 else 2 * 16 * 16 * 8).path
    steps = ["--training.steps=2", "--training.batch=2", "--training.validate=2"]
    train(parse(path, [*steps, *overrides]), tmp_path / "run")
    return path, somite.load(tmp_path / "run", device="cpu")


def test_a_planned_recipe_trains_and_predicts_with_mirroring_and_windows(tmp_path):
    path, run = planned(tmp_path, 2, (40, 36), 3)
    tree = yaml.safe_load(path.read_text())
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("fold 1 of 5" in line for line in head)
    assert any(
        "10 training and validation cases of 36 x 40" in line or "10 training and validation cases of 40 x 36" in line for line in head
    )
    patch = tree["data"]["crop"]
    assert patch == [24, 24]
    optimizer = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"][0]
    assert (optimizer["momentum"], optimizer["nesterov"], optimizer["weight_decay"]) == (0.99, True, 3e-5)
    data = run.recipe.data
    assert len(data.cases("val")) == 2  # one patient of five
    assert {case.group for case in data.cases("val")}.isdisjoint(case.group for case in data.cases("train"))

    # An image of one patch: the softmax of MONAI's own logits, averaged over the four mirrorings.
    unet = run.method.network.network.network.unet
    image = np.random.default_rng(0).random((3, 24, 24), dtype=np.float32)
    z = torch.from_numpy((image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True, ddof=1))[None]
    with torch.no_grad():
        sets = [axes for count in range(3) for axes in itertools.combinations((2, 3), count)]
        logits = torch.stack([unet(z.flip(axes)).flip(axes) for axes in sets]).mean(0)
    result = run.predict(image)
    assert np.allclose(result.probability, logits.softmax(1)[0].numpy(), atol=1e-4)
    summary = evaluate(run, "test", run.path)
    assert 0 <= summary["metrics"]["dice"]["mean"] <= 1
    assert run.predict(data.cases("test")[0]).mask.shape == (40, 36)


def test_a_planned_recipe_in_3d_trains(tmp_path):
    path, run = planned(tmp_path, 3, (20, 18, 12), 1)
    tree = yaml.safe_load(path.read_text())["method"]["init_args"]["network"]["init_args"]
    assert tree["patch"] == yaml.safe_load(path.read_text())["data"]["crop"]
    assert run.predict(run.recipe.data.cases("test")[0]).probability.shape == (2, 20, 18, 12)


def test_a_network_of_planned_strides_is_monais_and_keeps_the_size():
    made = plan(known((48, 48, 10), (0.5, 0.5, 3.0)), 3)
    assert not made.isotropic
    given = {**made.network(1, 3), "channels": [4 + level for level in range(made.levels)]}
    network = DynUNet(**given).eval()
    image = torch.randn(1, 1, 45, 47, 9)
    zero = torch.zeros(1, 3, 45, 47, 9), torch.zeros(1).long()
    with torch.no_grad():
        assert network(*zero, {"image": image}).value.shape == (1, 3, 45, 47, 9)
        fits = torch.randn(1, 1, *made.patch)
        assert torch.equal(network(torch.zeros(1, 3, *made.patch), zero[1], {"image": fits}).value, network.unet(fits))
    assert network.train()(*zero, {"image": image}).aux["deep"].shape[1] == made.levels - 3
    with pytest.raises(InputError, match="strides"):
        DynUNet((4, 8, 8), deep_heads=1, strides=[1, 2])
    with pytest.raises(InputError, match="idle_heads 2"):
        DynUNet((4, 8, 8), deep_heads=1, idle_heads=2)
