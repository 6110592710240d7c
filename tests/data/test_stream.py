"""The stream of samples: permutations one after the other, shared out between processes, going on anywhere."""

import itertools

import pytest
import torch

from somite.data.stream import Stream

CASES, BATCH, TOTAL = 7, 3, 28


def flat(batches):
    return [draw for batch in batches for draw in batch]


def test_epochs_are_permutations_each_another_one():
    indices = [index for index, _ in flat(Stream(CASES, BATCH, TOTAL, 0))]
    epochs = [indices[at : at + CASES] for at in range(0, len(indices), CASES)]
    assert len(epochs) == 12
    assert all(sorted(epoch) == list(range(CASES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8


def test_every_sample_has_a_seed_of_its_own():
    seeds = [seed for _, seed in flat(Stream(CASES, BATCH, TOTAL, 0))]
    assert len(set(seeds)) == len(seeds)


def test_another_seed_gives_another_stream():
    a, b = (flat(Stream(CASES, BATCH, TOTAL, seed)) for seed in (0, 1))
    assert [i for i, _ in a] != [i for i, _ in b]
    assert not {s for _, s in a} & {s for _, s in b}


@pytest.mark.parametrize("start", [1, 5, 13, TOTAL])
def test_it_goes_on_where_it_stopped(start):
    torch.manual_seed(start)
    assert list(Stream(CASES, BATCH, TOTAL, 0, start)) == list(Stream(CASES, BATCH, TOTAL, 0))[start:]


def test_it_can_be_walked_twice_and_leaves_torchs_generator_alone():
    stream = Stream(CASES, BATCH, TOTAL, 0)
    state = torch.get_rng_state()
    assert list(stream) == list(stream)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_it_out(world):
    """Step by step, the ranks' batches in a row are one process's larger batch."""
    ranks = [list(Stream(CASES, BATCH, TOTAL, 0, rank=rank, world=world)) for rank in range(world)]
    together = list(Stream(CASES, BATCH * world, TOTAL, 0))
    assert [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)] == together


def test_its_length_is_the_whole_runs():
    assert len(Stream(CASES, BATCH, TOTAL, 0)) == len(Stream(CASES, BATCH, TOTAL, 0, start=9)) == TOTAL
