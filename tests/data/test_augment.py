"""An image that is its own mask stays its own mask, whatever is done to both; every change is a function of the seed."""

import numpy as np
import pytest
import torch

from somite.data.augment import Augment

SHAPES = [(48, 48), (40, 56), (20, 20, 12), (16, 20, 12)]
OFF = {"flip": False, "rotate_degrees": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0, "rate": 1.0}
SPATIAL = {"flip": {"flip": True}, "rotate": {"rotate_degrees": 25.0}, "scale": {"scale": 0.2}, "elastic": {"elastic": 1.5}}
COLOURS = {
    "brightness": {"brightness": 0.2},
    "contrast": {"contrast": 0.3},
    "colour": {"colour": 0.2},
    "gamma": {"gamma": 0.5},
    "noise": {"noise": 0.1},
}


def blob(shape: tuple[int, ...]) -> torch.Tensor:
    """A lopsided box, so that no mirror and no turn leaves it as it was."""
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    mask[(0, *(slice(n // 6, n // 2 + i) for i, n in enumerate(shape)))] = 1
    mask[(0, *(slice(n // 6, n // 3) for n in shape[:-1]), slice(0, shape[-1] - 2))] = 1
    return mask


def pair(augment, image, mask, seed):
    out = augment({"image": image, "mask": mask}, seed)
    return out["image"], out["mask"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", SPATIAL)
def test_image_and_mask_move_together(kind, shape):
    augment = Augment(**{**OFF, **SPATIAL[kind]})
    mask = blob(shape)
    moved = 0
    for seed in range(4):
        image, out = pair(augment, mask.float().repeat(3, *[1] * len(shape)), mask, seed)
        assert image.shape == (3, *shape)
        assert out.shape == mask.shape
        assert out.dtype == mask.dtype
        assert set(out.unique().tolist()) <= {0, 1}
        agree = (image.round() == out).float().mean()  # linear rounded against nearest: only borders may differ
        assert agree == 1 if kind == "flip" else agree > 0.97
        moved += not torch.equal(out, mask)
    assert moved >= 1  # a half turn may undo two flips


@pytest.mark.parametrize("shape", [(24, 24), (20, 28)], ids=str)
def test_flips_and_turns_are_those_of_a_rectangle(shape):
    """Eight for a square, four for the rest; all of them are met, and nothing else."""
    mask = torch.arange(shape[0] * shape[1], dtype=torch.int64).view(1, *shape)
    augment = Augment(**{**OFF, "flip": True, "rate": 0.5})
    turns = range(4) if shape[0] == shape[1] else (0, 2)
    known = {tuple(t.flatten().tolist()) for k in turns for t in (mask[0].rot90(k), mask[0].rot90(k).flip(0))}
    met = {tuple(pair(augment, mask.float(), mask, seed)[1].flatten().tolist()) for seed in range(80)}
    assert met == known


@pytest.mark.parametrize("kind", COLOURS)
@pytest.mark.parametrize("shape", [(20, 24), (10, 12, 8)], ids=str)
def test_colours_change_the_image_alone(kind, shape):
    image = torch.rand(3, *shape) * 0.8 + 0.1
    mask = blob(shape)
    before = image.clone()
    out, unchanged = pair(Augment(**{**OFF, **COLOURS[kind]}), image, mask, 5)
    assert torch.equal(unchanged, mask)
    assert torch.equal(image, before)
    assert out.shape == image.shape
    assert not torch.allclose(out, image)
    change = (out - image).flatten(1)
    if kind == "brightness":
        assert torch.allclose(change, change[:1, :1].expand_as(change), atol=1e-5)
        assert change.abs().max() <= 0.2 + 1e-5
    if kind == "contrast":
        ratio = (out / image).flatten()
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), atol=1e-4)
        assert 0.7 - 1e-4 <= ratio[0] <= 1.3 + 1e-4
    if kind == "colour":
        slopes = [np.polyfit(a.flatten().numpy(), b.flatten().numpy(), 1) for a, b in zip(image, out, strict=True)]
        assert len({round(float(slope[0]), 4) for slope in slopes}) == 3  # each channel by itself, linearly
    if kind == "gamma":
        assert (out.flatten().argsort() == image.flatten().argsort()).all()
    if kind == "noise":
        assert 0 < change.std() < 0.2


def test_all_off_changes_nothing():
    image, mask = torch.rand(3, 20, 24), blob((20, 24))
    out = pair(Augment(**OFF), image, mask, 1)
    assert torch.equal(out[0], image)
    assert torch.equal(out[1], mask)


@pytest.mark.parametrize("shape", [(32, 32), (16, 16, 12)], ids=str)
def test_a_function_of_the_seed_alone(shape):
    everything = {name: value for part in (*SPATIAL.values(), *COLOURS.values()) for name, value in part.items()}
    augment = Augment(**everything, rate=0.7)
    image, mask = torch.rand(3, *shape), blob(shape)
    before = pair(augment, image, mask, 3)
    other = pair(augment, image, mask, 4)
    torch.manual_seed(99)
    np.random.seed(99)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = pair(Augment(**everything, rate=0.7), image, mask, 3)  # another object, after other draws
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)
    for a, b in zip(before, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(before[0], other[0])


def test_rate_is_how_often():
    augment = Augment(**{**OFF, "brightness": 0.3, "rate": 0.25})
    image, mask = torch.rand(1, 8, 8), blob((8, 8))
    changed = sum(not torch.equal(pair(augment, image, mask, seed)[0], image) for seed in range(400))
    assert abs(changed - 100) < 5 * np.sqrt(400 * 0.25 * 0.75)
