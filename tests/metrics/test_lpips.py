"""LPIPS with random weights of AlexNet: the published formula, and torchmetrics' own network around the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips as theirs
from torch import nn
from torch.nn import functional as F

from somite.errors import InputError
from somite.metrics.lpips import SIDE, Lpips

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}  # torchvision's alexnet().features
HEADS = torch.load(Path(theirs.__file__).with_name("lpips_models") / "alex.pth", map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def alexnet():
    generator, made = torch.Generator().manual_seed(0), {"classifier.6.bias": torch.zeros(1000)}
    for layer, (out, into, side) in SHAPES.items():
        made[f"features.{layer}.weight"] = torch.randn(out, into, side, side, generator=generator) / (into * side * side) ** 0.5
        made[f"features.{layer}.bias"] = torch.randn(out, generator=generator) / 10
    return made


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 3, 40, 51), dtype=np.float32)  # (two sets, n, h, w)


def published(alexnet, a, b):
    """Zhang et al. 2018, equation 1, on images (n, h, w) in [0, 1]."""

    def layers(x):
        shift, scale = (np.reshape(values, (3, 1, 1)) for values in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
        x, found = torch.from_numpy((2 * np.stack([x] * 3, 1) - 1 - shift) / scale), []
        for layer, (stride, padding, pooled) in {0: (4, 2, 0), 3: (1, 2, 1), 6: (1, 1, 1), 8: (1, 1, 0), 10: (1, 1, 0)}.items():
            x = F.max_pool2d(x, 3, 2) if pooled else x
            weight, bias = (alexnet[f"features.{layer}.{name}"].double() for name in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    heads = [HEADS[f"lin{i}.model.1.weight"].double() for i in range(5)]
    return sum((w * (x - y) ** 2).sum(1).mean((1, 2)) for x, y, w in zip(layers(a), layers(b), heads, strict=True)).numpy()


def test_agrees_with_the_published_formula(alexnet, images):
    found = Lpips(alexnet)(*images)
    assert found.shape == (3,) and (found > 0.01).all()
    assert found == pytest.approx(published(alexnet, *images.astype(np.float64)), rel=1e-4)


def test_agrees_with_torchmetrics(alexnet, images, monkeypatch):
    def features(net, pretrained=False):
        convolutions = {i: nn.Conv2d(into, out, side, 4 if i == 0 else 1, min(side // 2, 2)) for i, (out, into, side) in SHAPES.items()}
        layers = nn.Sequential(*(convolutions.get(i, nn.MaxPool2d(3, 2) if i in (2, 5, 12) else nn.ReLU()) for i in range(13)))
        layers.load_state_dict({name.removeprefix("features."): value for name, value in alexnet.items() if name.startswith("features.")})
        return layers

    monkeypatch.setattr(theirs, "_get_tv_model_features", features)
    a, b = (torch.from_numpy(2 * x - 1)[:, None].repeat(1, 3, 1, 1) for x in images)
    expected = theirs.learned_perceptual_image_patch_similarity(a, b, net_type="alex", reduction=None)
    assert Lpips(alexnet)(*images) == pytest.approx(expected.numpy(), rel=1e-4)


def test_equal_images_are_at_no_distance_and_batches_make_none(alexnet, images):
    measure = Lpips(alexnet)
    assert (measure(images[0], images[0]) == 0).all()
    many = np.concatenate([images[0]] * 6), np.concatenate([images[1]] * 6)  # more than a batch
    assert measure(*many) == pytest.approx(np.tile(measure(*images), 6), rel=1e-4)


def test_as_many_weights_as_torchvision(alexnet):
    assert sum(p.numel() for p in Lpips(alexnet).network.parameters()) == 61_100_840 - 58_631_144  # AlexNet less its classifier


def test_what_does_not_fit_is_said(alexnet):
    with pytest.raises(InputError, match=r"features\.0\.weight.*has none"):
        Lpips({})
    with pytest.raises(InputError, match=r"features\.3\.bias.*\(5,\)"):
        Lpips({**alexnet, "features.3.bias": torch.zeros(5)})
    assert Lpips(alexnet)(np.zeros((1, SIDE, SIDE)), np.ones((1, SIDE, SIDE))).shape == (1,)
    for shape in ((1, SIDE - 1, 40), (SIDE, SIDE)):
        with pytest.raises(ValueError, match="sides from 31"):
            Lpips(alexnet)(np.zeros(shape), np.zeros(shape))
