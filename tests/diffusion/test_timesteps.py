import pytest
import torch
from scipy.stats import binomtest, chisquare

from somite.diffusion.timesteps import Terminal, Uniform
from somite.rng import seeded

CPU = torch.device("cpu")


def test_uniform_timesteps_pass_a_chi_square_test():
    t = Uniform().draw(50_000, 20, CPU)
    assert t.dtype == torch.int64
    assert (int(t.min()), int(t.max())) == (0, 19)
    assert chisquare(torch.bincount(t, minlength=20).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_terminal_rate(rate):
    t = Terminal(rate).draw(20_000, 50, CPU)
    share = rate + (1 - rate) / 50
    assert binomtest(int((t == 49).sum()), 20_000, share).pvalue > 1e-4
    rest = t[t < 49]
    if rate < 1:
        assert chisquare(torch.bincount(rest, minlength=49).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("distribution", [Uniform(), Terminal(0.5)])
def test_rows_have_their_own_stream(distribution):
    def drawn(names):
        with seeded(0, names):
            return distribution.draw(len(names), 1000, CPU).tolist()

    assert drawn(["a", "b", "c", "d"])[1:3] == drawn(["b", "c"])
