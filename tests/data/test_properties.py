"""Whatever an image, a table or a recipe may hold (hypothesis): what was written is read again, and what is refused is refused in a sentence."""

import csv
import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.numpy import save_file

from somite import checkpoint, trust
from somite.data import images, nifti, published, sources
from somite.errors import InputError

# The same inputs at every run: what is found is found again. Other inputs: `pytest --hypothesis-seed=N` with derandomize off.
usual = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
SIDES = {2: st.tuples(*[st.integers(1, 9)] * 2), 3: st.tuples(*[st.integers(1, 6)] * 3)}
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
CELLS = st.one_of(WORDS, st.sampled_from(["0.png", "m0.png", "train", "val", "../0.png", "/etc/passwd", "nan", "-1", "", " ", "é"]))
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.sampled_from(["0", "1", "train"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def told(read, path):
    """What was read, and None; or None, and the one line in which it was refused."""
    try:
        return read(path), None
    except InputError as error:
        refused = str(error)
    assert refused.strip() and len(refused.splitlines()) == 1
    return None, refused


@usual
@given(st.data(), st.sampled_from([np.uint8, np.uint16]), st.sampled_from(["PNG", "TIFF"]))
def test_grey_images(folder, data, kind, form):
    values = data.draw(arrays.arrays(kind, SIDES[2]))
    path = folder / f"a.{form.lower()}"
    Image.fromarray(values).save(path, form)
    read = images.read_image(path)
    assert read.shape == (1, *values.shape) and read.dtype == np.float32
    np.testing.assert_array_equal(np.rint(read[0] * np.float64(np.iinfo(kind).max)), values)
    np.testing.assert_array_equal(images.read_labels(path), values)


@usual
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_colour_images(folder, values):
    path = folder / "colour.png"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(np.rint(images.read_image(path) * 255), values.transpose(2, 0, 1))


@usual
@given(arrays.arrays(np.uint8, SIDES[2]))
def test_masks_that_somite_writes(folder, values):
    path = folder / "mask.png"
    images.write_png(path, values)
    np.testing.assert_array_equal(images.read_labels(path), values)


FINITE = st.floats(-(2.0**20), 2.0**20, width=32)


@usual
@given(
    st.data(),
    st.sampled_from([np.uint8, np.int16, np.int32, np.float32]),
    st.tuples(*[st.floats(0.25, 8, width=32)] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    st.tuples(*[st.floats(-500, 500, width=32)] * 3),
)
def test_volumes(folder, data, kind, spacing, axes, signs, origin):
    """Of any type, spacing and orientation: voxels, spacing and place as nibabel wrote them."""
    shape = data.draw(SIDES[3])
    elements = FINITE if kind is np.float32 else st.integers(max(np.iinfo(kind).min, -(2**20)), min(np.iinfo(kind).max, 2**20))
    values = data.draw(arrays.arrays(kind, shape, elements=elements))
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[:, axes] * np.array(spacing)
    affine[:3, 3] = origin
    path = folder / "a.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    read, refused = told(nifti.read_volume, path)
    assert read is not None, refused
    np.testing.assert_array_equal(read.array[0], values.astype(np.float32))
    np.testing.assert_allclose(read.geometry.spacing_mm, spacing, rtol=1e-5)
    np.testing.assert_allclose(read.geometry.affine, affine, rtol=1e-5, atol=1e-4)


@usual
@given(arrays.arrays(np.float32, SIDES[3], elements=st.one_of(FINITE, st.sampled_from([np.nan, np.inf, -np.inf]))))
def test_what_is_not_finite_is_refused(folder, values):
    path = folder / "b.nii"
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    assert (told(nifti.read_volume, path)[0] is None) == (not np.isfinite(values).all())


@usual
@given(st.lists(st.lists(CELLS, max_size=5), max_size=6), st.permutations(["image", "mask", "id", "group", "split"]))
@example([["0.png", "m0.png"]], ["image", "mask"])
def test_tables(folder, rows, header):
    """Any cells at all: a list of cases whose files lie there, or a sentence."""
    for name in ("0.png", "m0.png"):
        images.write_png(folder / name, np.zeros((4, 4), np.uint8))
    path = folder / "cases.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    found, _ = told(sources.find, path)
    for case in found.all if found else []:
        assert all(one.is_file() for one in case.files)


def pairs(folder):
    for part in ("images", "masks"):
        (folder / "set" / part).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            images.write_png(folder / "set" / part / f"{index}.png", np.zeros((4, 4), np.uint8))
    return folder / "set"


SPLITS = st.one_of(TREES, st.fixed_dictionaries({}, optional={name: TREES for name in ("train", "val", "test", "excluded", "groups")}))


@usual
@given(SPLITS)
@example({"train": ["0", "1"], "val": ["2"], "test": ["3"]})
def test_splits(folder, tree):
    """Any JSON at all: each case in one split at most, or a sentence."""
    root = pairs(folder)
    (root / "splits.json").write_text(json.dumps(tree))
    found, _ = told(sources.find, root)
    (root / "splits.json").unlink()
    if found is not None:
        ids = [name for split in found.splits.values() for name in split]
        assert len(ids) == len(set(ids)) and set(ids) <= {"0", "1", "2", "3"}


@usual
@given(SPLITS)
def test_published_lists(folder, tree):
    cases, path = sources.find(pairs(folder)), folder / "list.json"
    path.write_text(json.dumps(tree))
    told(lambda path: published.resplit(cases, str(path)), path)


@usual
@given(TREES)
def test_recipes(folder, tree):
    """Any YAML tree: a sentence, or nothing in it that could be a stranger's class or file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    _, refused = told(trust.only_own, path)
    for text in trust.strings(yaml.safe_load(path.read_text(encoding="utf-8"))) if refused is None else ():
        assert trust.OWN.fullmatch(text) or not set(text) & set("./\\:")


@usual
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9),
        arrays.arrays(np.float32, SIDES[2]),
        min_size=1,
    )
)
def test_weights(folder, weights):
    path = folder / "a.safetensors"
    save_file(weights, path)
    found, refused = told(checkpoint.tensors, path)
    assert found is not None, refused
    assert set(found) == set(weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name].numpy(), values)
