"""Small pictures against means written out; hashes against what may not change them."""

import numpy as np
import pytest

from somite.checkup.likeness import averaged, candidates, hashes, pairs, small, turned, turns
from somite.data.images import read_image
from somite.data.sources import NUCLEI


@pytest.mark.parametrize(("n", "side"), [(12, 4), (10, 4), (3, 7)])
def test_areas_average_to_the_integral_over_them(n, side):
    """Pixels as steps of a function on [0, n]; the mean over each of `side` parts by a fine sum."""
    values = np.random.default_rng(0).normal(size=n)
    fine = values.repeat(side * 1)  # n * side samples; each part holds n of them
    expected = fine.reshape(side, n).mean(1)
    np.testing.assert_allclose(averaged(values, 0, side), expected, atol=1e-12)


def test_brightness_and_size_change_nothing():
    image = np.random.default_rng(0).random((1, 64, 64), dtype=np.float32)
    picture = small(image)
    assert picture is not None and picture.dtype == np.uint8
    for other in (0.3 * image + 0.2, image.repeat(3, 1).repeat(2, 2)):
        again = small(other)
        assert again is not None
        assert np.abs(again.astype(int) - picture).max() <= 1
    assert small(np.full((3, 8, 8), 0.5, np.float32)) is None


def test_hashes_of_all_turns_of_a_set_are_those_of_the_turned_set():
    stack = np.random.default_rng(0).integers(0, 255, (5, 64, 64), dtype=np.uint8)
    assert len(turns(2)) == 8 and len(turns(3)) == 1
    seen = {turned(stack, *turn).tobytes() for turn in turns(2)}
    assert len(seen) == 8
    assert hashes(stack).shape == (5, 63)
    np.testing.assert_array_equal(np.abs(hashes(stack)), 1)


def test_candidates_are_those_of_a_double_loop():
    codes = np.where(np.random.default_rng(0).random((300, 63)) > 0.5, np.float32(1), np.float32(-1))
    codes[200] = codes[3]
    codes[201, :5] *= -1
    expected = {(i, j) for i in range(300) for j in range(i + 1, 300) if (codes[i] != codes[j]).sum() <= 10}
    found = {(int(a), int(b)) for i, j in candidates(codes, codes) for a, b in zip(i, j, strict=True)}
    assert found == expected and (3, 200) in found


def test_pairs_correlate_as_numpy_says():
    paths = sorted((NUCLEI / "images").iterdir())[:12]
    pictures = [small(read_image(path)) for path in paths]
    other = np.clip(pictures[4].astype(float) + np.random.default_rng(0).normal(0, 5, (64, 64)), 0, 255).astype(np.uint8)
    ((a, b, r),) = pairs([*pictures, other])
    assert (a, b) == (4, 12)
    assert r == pytest.approx(np.corrcoef(pictures[4].ravel(), other.ravel())[0, 1], abs=1e-5)
