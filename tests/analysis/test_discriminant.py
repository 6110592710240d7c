"""The closed-form probe against Bayes' rule for Gaussians, and against SciPy's densities."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from somite.analysis.discriminant import discriminant

MEANS = np.array([[0.0, 0, 0], [2, 0, 1], [0, 3, -1]])
COVARIANCE = np.array([[1.0, 0.5, 0], [0.5, 2, 0.3], [0, 0.3, 0.7]])


def drawn(each, seed):
    random = np.random.default_rng(seed)
    x = np.concatenate([random.multivariate_normal(mean, COVARIANCE, each) for mean in MEANS])
    return torch.as_tensor(x), torch.arange(3).repeat_interleave(each)


@pytest.mark.parametrize("priors", [[1 / 3, 1 / 3, 1 / 3], [0.9, 0.05, 0.05]])
def test_it_is_bayes_rule_where_classes_are_gaussian(priors):
    x, y = drawn(20000, 0)
    fitted = discriminant(x, y, torch.tensor(priors), shrinkage=0)
    new, _ = drawn(2000, 1)
    density = np.stack([multivariate_normal(mean, COVARIANCE).logpdf(new) for mean in MEANS], 1) + np.log(priors)
    assert (fitted(new).numpy() == density.argmax(1)).mean() > 0.98


def test_units_do_not_matter():
    x, y = drawn(200, 0)
    plain = discriminant(x, y, torch.ones(3) / 3)
    scaled = discriminant(x * torch.tensor([1.0, 1000, 0.01]), y, torch.ones(3) / 3)
    assert torch.equal(plain(x), scaled(x * torch.tensor([1.0, 1000, 0.01])))


def test_more_numbers_than_examples_are_no_trouble_and_an_unseen_class_is_never_answered():
    x = torch.randn(20, 300)
    fitted = discriminant(x, torch.arange(20) % 2, torch.tensor([0.5, 0.2, 0.3]))
    answers = fitted(torch.randn(50, 300))
    assert answers.max() <= 1 and len(answers.unique()) == 2
