import hashlib
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import stats

from somite import rng

CPU = torch.device("cpu")


def test_derive_is_blake2b():
    for key in ((0, "case/1/2"), ("train", 3, 4, 0), ()):
        digest = hashlib.blake2b("\x1f".join(str(part) for part in key).encode(), digest_size=8).digest()
        assert rng.derive(*key) == int.from_bytes(digest, "little") // 2
        assert 0 <= rng.derive(*key) < 2**63
    assert rng.derive("a", "bc") != rng.derive("ab", "c")
    assert len({rng.derive(seed, name) for seed in range(50) for name in range(50)}) == 2500


@pytest.mark.parametrize("draw", [rng.normal, rng.uniform])
def test_a_row_is_a_stream_of_its_own(draw):
    def drawn(names, seed=0):
        with rng.seeded(seed, names):
            return torch.stack([draw((len(names), 3, 4), CPU) for _ in range(3)], 1)

    together = drawn(["a", "b", "c"])
    assert torch.equal(drawn(["c", "a"]), together[[2, 0]])
    assert torch.equal(drawn(["b"]), together[[1]])
    assert not torch.equal(drawn(["a", "b", "c"], seed=1), together)
    assert len(together.flatten().unique()) == together.numel()  # neither rows nor draws repeat


def test_the_streams_are_torchs():
    with rng.seeded(7, ["x"]):
        found = rng.normal((1, 5), CPU)
    assert torch.equal(found[0], torch.randn(5, generator=torch.Generator().manual_seed(rng.derive(7, "x"))))


def test_global_generators_are_left_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with rng.seeded(0, ["a"]):
        rng.normal((1, 100), CPU)
        torch.rand(10)
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ZeroDivisionError), rng.seeded(0, ["a"]):
        torch.rand(10 // 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert rng.generators(CPU) is None


def test_what_draws_by_itself_is_seeded_too():
    def drawn():
        with rng.seeded(0, ["a"]):
            return torch.nn.functional.dropout(torch.ones(50))

    first = drawn()
    torch.rand(10)
    assert torch.equal(drawn(), first)


def test_outside_it_is_torchs_global_generator():
    torch.manual_seed(3)
    found = rng.normal((2, 3), CPU), rng.uniform((4,), CPU)
    torch.manual_seed(3)
    assert torch.equal(found[0], torch.randn(2, 3))
    assert torch.equal(found[1], torch.rand(4))


def test_contexts_nest():
    with rng.seeded(0, ["a", "b"]):
        first = rng.normal((2, 3), CPU)
        with rng.seeded(0, ["a"]):
            assert torch.equal(rng.normal((1, 3), CPU), first[:1])
        second = rng.normal((2, 3), CPU)
    with rng.seeded(0, ["a", "b"]):
        assert torch.equal(torch.stack([rng.normal((2, 3), CPU), rng.normal((2, 3), CPU)]), torch.stack([first, second]))


def test_another_number_of_rows_is_an_error():
    with rng.seeded(0, ["a", "b"]), pytest.raises(ValueError, match="3 rows"):
        rng.normal((3, 2), CPU)


def test_each_training_step_has_its_seed():
    draws = []
    for key in ((0, 1, 0), (0, 2, 0), (1, 1, 0), (0, 1, 1), (0, 1, 0)):
        rng.step_seed(*key)
        draws.append(tuple(torch.rand(4).tolist()))
    assert draws[0] == draws[-1]
    assert len(set(draws)) == 4


@pytest.mark.parametrize("rows", [True, False])
def test_what_was_drawn_is_drawn_again_after_a_rewind(rows):
    with rng.seeded(3, "ab") if rows else nullcontext():
        rng.normal((2, 3), CPU)
        here = rng.mark(CPU)
        first = rng.normal((2, 3), CPU), rng.uniform((2, 5), CPU)
        rng.rewind(here, CPU)
        again = rng.normal((2, 3), CPU), rng.uniform((2, 5), CPU)
        after = rng.normal((2, 3), CPU)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(after, first[0])


def test_parts_of_rows_have_streams_that_their_rows_began():
    """A part is the same in any batch of parts, differs from the others and from call to call, and costs a row nothing where none draws."""

    def drawn(batches, calls=1):
        with rng.seeded(0, ["a", "b"]):
            found = []
            for _ in range(calls):
                for rows in batches:
                    with rng.parts(rows):
                        found += rng.normal((len(rows), 5), CPU)
            return torch.stack(found), rng.normal((2, 5), CPU)

    together, after = drawn([[0, 0, 0, 1, 1, 1]])
    one_by_one, _ = drawn([[0], [0, 0, 1], [1, 1]])
    assert torch.equal(one_by_one, together)
    assert len(drawn([[0, 0, 0, 1, 1, 1]], calls=2)[0].flatten().unique()) == 60
    with rng.seeded(0, ["a", "b"]):
        with rng.parts([0, 1]):
            pass
        untouched = rng.normal((2, 5), CPU)
    with rng.seeded(0, ["a", "b"]):
        assert torch.equal(rng.normal((2, 5), CPU), untouched)
    assert not torch.equal(after, untouched)
    torch.manual_seed(0)
    with rng.parts([0, 0]):
        found = rng.normal((2, 5), CPU)
    torch.manual_seed(0)
    assert torch.equal(rng.normal((2, 5), CPU), found)  # outside of `seeded` nothing changes


def test_splitmix64_is_the_published_one():
    """The first numbers of the stream of seed 1234567, as published with Vigna's reference implementation and on Rosetta Code."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [number % 2**64 for number in rng.mixed(torch.tensor(1234567), torch.arange(5)).tolist()] == known


def test_what_is_placed_does_not_depend_on_what_else_was_asked_for():
    for start, stop in (((0, 0), (40, 60)), ((0, 0, 0), (11, 12, 13))):
        whole = rng.placed(77, 3, start, stop, CPU)
        assert whole.shape == stop
        part = tuple(slice(n // 3, n - 2) for n in stop)
        assert torch.equal(rng.placed(77, 3, [s.start for s in part], [s.stop for s in part], CPU), whole[part])
        assert not torch.equal(rng.placed(78, 3, start, stop, CPU), whole)
        assert not torch.equal(rng.placed(77, 4, start, stop, CPU), whole)


def test_what_is_placed_is_uniform_and_independent():
    """Kolmogorov-Smirnov and chi-squared by SciPy; no correlation with neighbours, of updates, keys or transposed places."""
    maps = torch.stack([rng.placed(key, count, (100, 7), (356, 263), CPU) for key in (1, 2**61) for count in (0, 1)]).numpy()
    n = maps[0].size
    assert maps.min() >= 0
    assert maps.max() < 1
    for one in maps:
        assert stats.kstest(one.ravel(), "uniform").pvalue > 1e-3
        pairs = np.histogram2d(one[:, :-1].ravel(), one[:, 1:].ravel(), 16, [[0, 1]] * 2)[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-3
        others = [(one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one[1:, 1:], one[:-1, :-1]), (one, one.T)]
        for a, b in others:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / n**0.5
    for i in range(4):
        for j in range(i):
            assert abs(np.corrcoef(maps[i].ravel(), maps[j].ravel())[0, 1]) < 5 / n**0.5
    fired = maps < 0.3
    assert stats.binomtest(int(fired.sum()), fired.size, 0.3).pvalue > 1e-3
    counts = np.bincount(fired.sum(0).ravel(), minlength=5)  # how often a cell acts in four updates is binomial
    assert stats.chisquare(counts, n * stats.binom.pmf(range(5), 4, 0.3)).pvalue > 1e-3


def test_keys_are_of_the_rows_streams():
    with rng.seeded(0, "abc"):
        together = [rng.keys(3, CPU) for _ in range(2)]
    with rng.seeded(0, "b"):
        assert [rng.keys(1, CPU) for _ in range(2)] == [[keys[1]] for keys in together]
    assert len({key for keys in together for key in keys}) == 6
    assert all(0 <= key < 2**62 for keys in together for key in keys)
