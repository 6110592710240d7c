"""An ensemble is a function of (seed, case, slice, member): of neither the batch nor how many members were asked for."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.data.phantoms import phantom
from somite.data.preprocess import Preprocess
from somite.data.record import Case, Record
from somite.diffusion.codec import OneHot, Signed
from somite.diffusion.methods import Diffusion
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import linear
from somite.diffusion.terms import DiceCE
from somite.networks.medsegdiffnca import MedSegDiffNCA
from somite.predict.ensemble import Model, answer, fused
from somite.predict.fusion import Majority, Mean, MeanSquared, decide
from somite.predict.temperature import Tempered


def method(image_channels=3, classes=1, dims=2, steps=1, ancestral=False, dropout=0.0):
    torch.manual_seed(3)
    network = MedSegDiffNCA(
        channels=16, hidden=16, updates=2, image_channels=image_channels, mask_channels=classes, dims=dims, norm="none", dropout=dropout
    )
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn_like(p)  # as if trained: fresh automata do nothing
    codec = Signed() if classes == 1 else OneHot(classes)
    sampler = Ancestral(steps) if ancestral else DDIM(steps)
    return Diffusion(network, linear(100), {"mask": DiceCE()}, sampler, codec, "logits").eval()


def predict(method, preprocess, record, members, fusion, seed=0, batch=10):
    image = preprocess.image(record)
    model = Model(method, preprocess, {"image": image}, (len(image), 1, *image.shape[2:]))
    return answer([model], record, members, fusion, seed, batch, keep=True)


def record(*size, channels=3, classes=1, name="case"):
    image, labels = phantom(0, size, channels, classes)
    return Record(Case(name, (Path(name),), None, name), name, image, labels, None, None, None)


@pytest.mark.parametrize("kind", ["one step", "ancestral", "classes", "slices", "volume"])
def test_members_depend_on_neither_the_batch_nor_their_number(kind):
    make, case, preprocess = {
        "one step": ({}, record(20, 24), Preprocess()),
        "ancestral": ({"steps": 4, "ancestral": True}, record(20, 24), Preprocess(size=16)),
        "classes": ({"classes": 3, "steps": 2}, record(20, 24, classes=2), Preprocess()),
        "slices": ({"image_channels": 1, "steps": 2}, record(16, 12, 8, channels=1), Preprocess(channels=1, axis=0)),
        "volume": ({"image_channels": 1, "dims": 3}, record(8, 9, 8, channels=1), Preprocess(channels=1, dims=3)),
    }[kind]
    used = method(**make)
    results = {batch: predict(used, preprocess, case, 10, Mean(), 4, batch) for batch in (1, 3, 10)}
    for batch in (3, 10):
        assert np.abs(results[batch].members - results[1].members).max() <= 1e-6
    members = results[1].members
    assert members.shape == (10, make.get("classes", 1), *case.shape)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in pairwise(members))  # and they differ
    fewer = predict(used, preprocess, case, 3, Mean(), 4, 10)
    assert np.abs(fewer.members - members[:3]).max() <= 1e-6
    assert np.abs(predict(used, preprocess, case, 3, Mean(), 5, 10).members - fewer.members).max() > 1e-4


def test_another_case_has_another_stream_and_torchs_generator_stays():
    used = method()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a, b = (predict(used, Preprocess(), record(20, 24, name=name), 2, Mean()) for name in "ab")
    assert torch.equal(torch.get_rng_state(), state)
    assert np.abs(a.members - b.members).max() > 1e-4


def test_a_result_is_made_of_its_members():
    result = predict(method(), Preprocess(size=16), record(20, 24), 5, MeanSquared())
    members = result.members.astype(np.float64)
    assert result.count == 5
    assert np.allclose(result.probability, members.mean(0) ** 2, atol=1e-6)
    assert np.allclose(result.spread, np.sqrt(((members - members.mean(0)) ** 2).mean(0)), atol=1e-6)
    assert np.array_equal(result.mask, decide(result.probability))
    assert result.mask.shape == (20, 24)
    assert result.mask.dtype == np.uint8
    assert members.min() >= 0
    assert members.max() <= 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_slice_of_a_volume_is_predicted_as_by_hand(axis):
    """One slice and member at a time, through the method itself."""
    from somite.rng import seeded

    case, used, preprocess = record(12, 10, 8, channels=1), method(image_channels=1), Preprocess(channels=1, axis=axis)
    result = predict(used, preprocess, case, 2, Mean(), 0, 7)
    for index in range(case.shape[axis]):
        plane = torch.from_numpy(case.image[0].take(index, axis).copy())[None, None]
        for member in range(2):
            with seeded(0, [f"case/{index}/{member}"]):
                expected = used.sample({"image": plane}, (1, 1, *plane.shape[2:]))[0, 0]
            assert np.abs(result.members[member, 0].take(index, axis) - expected.numpy()).max() <= 1e-6


@pytest.mark.parametrize("fusion", [Mean(), MeanSquared(), Majority(), Tempered(2.0)], ids=lambda one: type(one).__name__)
def test_memory_does_not_grow_with_the_ensemble(fusion):
    """Three classes of 256 x 256, a map of 0.8 MB: 60 members need what 6 need, and give what an array of all would."""
    case = record(256, 256, classes=2)

    def members(count):
        random = np.random.default_rng(0)
        for _ in range(count):
            raw = random.random((3, 256, 256), dtype=np.float32)
            yield raw / raw.sum(0, keepdims=True)

    def peak(count):
        tracemalloc.start()
        result = fused(case, members(count), fusion)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert result.members is None
        return most

    few, many = peak(6), peak(60)
    assert many < 1.1 * few
    whole = np.stack(list(members(20)))
    result = fused(case, iter(whole), fusion)
    np.testing.assert_allclose(result.probability, fusion(whole), atol=1e-6)
    np.testing.assert_allclose(result.spread, whole.std(0), atol=1e-5)


def test_a_volume_in_slabs_is_the_volume_whole():
    """A fusion that is local is taken slab by slab, STAPLE's kind at once: members are the same, and so is the mean."""

    class Whole(Mean):
        local = False

    used, case, preprocess = method(image_channels=1, steps=2), record(16, 12, 9, channels=1), Preprocess(channels=1, axis=2)
    slabs, whole = (predict(used, preprocess, case, 3, fusion, 4, 7) for fusion in (Mean(), Whole()))
    for name in ("probability", "spread", "members"):
        np.testing.assert_allclose(getattr(slabs, name), getattr(whole, name), atol=1e-6)
    assert np.array_equal(slabs.mask, whole.mask)
