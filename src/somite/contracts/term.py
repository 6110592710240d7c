"""What a loss must satisfy."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import torch

from ..diffusion.codec import OneHot, Signed
from ..diffusion.schedule import linear
from ..diffusion.terms import Term
from ..types import Noised, Output, Prediction


class TermContract:
    """`make()` returns a term; `channels` of the target. zero: whether it is 0 where the prediction is the target."""

    channels = 1
    zero = True

    def make(self) -> Term:
        raise NotImplementedError

    def example(self, perfect=False):
        """A prediction and what it was made from: three examples of 6 x 5 pixels, with every part that a term may ask for."""
        k = self.channels
        target = OneHot(k).probabilities(torch.randint(k, (3, 1, 6, 5))) if k > 1 else (torch.rand(3, 1, 6, 5) > 0.5).float()
        x0, eps = Signed(channels=k).encode(target), torch.randn(3, k, 6, 5)
        schedule, t = linear(), torch.tensor([0, 300, 900])
        alpha, sigma = (c.view(-1, 1, 1, 1) for c in schedule(t))
        x_t = alpha * x0 + sigma * eps
        ex = Noised(target, x0, eps, x_t, t, schedule.posterior(t))
        guess = x0.clone() if perfect else x0 + 0.3 * torch.randn_like(x0)
        value = guess.requires_grad_()
        logits = 30 * value if perfect else 2 * value
        var = torch.zeros_like(x0).requires_grad_()
        aux = {"map": (value + 1) / 2, "deep": logits[:, None].expand(-1, 2, *logits.shape[1:])}
        return Prediction(value, (x_t - alpha * value) / sigma, Output(value, var, aux), logits), ex, value, var

    def test_one_finite_value_an_example_with_a_gradient(self):
        pred, ex, value, var = self.example()
        loss = self.make()(pred, ex)
        assert loss.shape == (3,)
        assert loss.isfinite().all()
        loss.sum().backward()
        grads = [g for g in (value.grad, var.grad) if g is not None]
        assert any(bool(g.any()) for g in grads)
        assert all(g.isfinite().all() for g in grads)

    def test_what_is_right_costs_nothing_and_what_is_wrong_something(self):
        if self.zero:
            pred, ex, *_ = self.example(perfect=True)
            assert float(self.make()(pred, ex).detach().abs().max()) < 1e-3
            pred, ex, *_ = self.example()
            assert float(self.make()(pred, ex).detach().max()) > 1e-2

    def test_an_example_does_not_depend_on_its_neighbours(self):
        pred, ex, *_ = self.example()
        whole = self.make()(pred, ex)
        rows = [2, 0]
        aux = {name: part[rows] for name, part in pred.output.aux.items()}
        output = Output(pred.output.value[rows], pred.output.var[rows], aux)
        some = Prediction(pred.x0[rows], pred.eps[rows], output, pred.logits[rows])
        posterior = type(ex.posterior)(*(part[rows] for part in vars(ex.posterior).values()))
        few = Noised(ex.target[rows], ex.x0[rows], ex.eps[rows], ex.x_t[rows], ex.t[rows], posterior)
        torch.testing.assert_close(self.make()(some, few), whole[rows])
