"""Autoencoders as a method: the target is given, and has to come back through a narrow place."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..types import Cond, Network, Noised, Prediction, Shape, Target
from .codec import Codec
from .methods import Method
from .pictures import Grey
from .readout import Readout, Sampled
from .samplers import Step
from .terms import Term, per_example


class Divergence(Term):
    """KL(q(z | x) || N(0, I)) of the posterior aux["mean"], aux["log_var"], summed over the latent (Kingma & Welling 2014, eq. 10).

    Rombach et al. 2022 weigh it by 1e-6: hardly at all, for a latent that stays bounded and informative.
    """

    def __init__(self, weight: float = 1e-6) -> None:
        self.weight = weight

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        mean, log_var = pred.output.aux["mean"].float(), pred.output.aux["log_var"].float()
        return 0.5 * (mean**2 + log_var.exp() - 1 - log_var).flatten(1).sum(1)


class Distilled(Term):
    """| value - aux["teacher"] |^power: with what another network makes of the same."""

    def __init__(self, weight: float = 1.0, power: float = 1.0) -> None:
        self.weight, self.power = weight, power

    def __call__(self, pred: Prediction, ex: Noised) -> Tensor:
        return per_example((pred.x0 - pred.output.aux["teacher"].float()).abs() ** self.power)


class Autoencoding(Method):
    """network: pictures in, pictures out (networks/autoencoder.py). codec: how a target becomes a picture (diffusion/pictures.py).

    Terms that suit: `Clean` on the picture, `Divergence`, `Distilled`. The condition of a sample is its own target, cond["target"].
    """

    def __init__(self, network: Network, terms: dict[str, Term], codec: Codec | None = None, readout: Readout | None = None) -> None:
        super().__init__()
        self.network, self.terms, self.codec, self.readout = network, terms, codec or Grey(), readout or Sampled()
        self.check("x0")

    def rebuilt(self, x0: Tensor) -> Prediction:
        t = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
        out = self.network(x0, t, {})
        return Prediction(out.value.float(), torch.zeros_like(x0), out)

    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        x0 = self.codec.encode(target)
        nothing = torch.zeros_like(x0)
        t = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
        return self.total(self.rebuilt(x0), Noised(self.codec.probabilities(target), x0, nothing, x0, t))

    @torch.no_grad()
    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        if "target" not in cond:
            raise InputError("an autoencoder rebuilds its own target; use --task somite.tasks.reconstruction.Reconstruction")
        target = cond["target"] if of is None else cond["target"][list(of)]
        pred = self.rebuilt(self.codec.encode(target))
        return self.readout(Step(-1, pred.x0, pred), self.codec, shape)

    @property
    def steps(self) -> int:
        return 1
