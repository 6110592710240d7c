"""Methods: trainable conditional models p(target | condition). The waist of the library.

Tasks, training and pipelines call `loss` and `sample` and nothing else; both speak data space. The same networks go into
both methods: a recipe becomes feed-forward by naming the other method.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..types import LESSON, Cond, Network, Noised, Output, Prediction, Shape, State, Target, Timesteps, right
from .codec import Codec, Signed
from .heredity import Heredity, Never
from .readout import Readout, Sampled
from .samplers import Sampler, Step, counted
from .schedule import Schedule
from .taught import alike
from .terms import NO_LOGITS, Term
from .timesteps import TimestepDistribution, Uniform


class Method(nn.Module, ABC):
    network: Network
    codec: Codec
    terms: dict[str, Term]
    readout: Readout  # which of a network's answers is the sample

    @abstractmethod
    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        """Named scalar losses; "loss" is the one to minimise. `target` (b, c, *s) is in data space: a label map, an image."""

    @abstractmethod
    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        """Samples of targets of this shape, (b, codec.maps, *s): probabilities of a mask. `of`: which condition each sample
        has, so that many of one are encoded once; None: one of each.
        """

    def begin(self) -> None:
        """Raises InputError where this cannot be trained: asked before a training, and not of a finished run."""
        self.codec.begin()

    def encode(self, cond: Cond, of: Sequence[int] | None) -> Cond:
        """The network's encoding of each condition, one row a sample. No gradient."""
        with torch.no_grad():
            known = self.network.encode(cond)
        if of is None:
            return known
        own = list(of)  # of conditions that are large, one each is no copy
        return {name: value if own == list(range(len(value))) else value[own] for name, value in known.items()}

    @property
    @abstractmethod
    def steps(self) -> int:
        """Reverse steps a sample takes."""

    @property
    def placed(self) -> list[int] | None:
        """The timesteps that were placed one by one, if sampling takes them."""
        return None

    def check(self, predicts: str) -> None:
        """Raises InputError where the terms ask for what the network does not predict: at once, not at the first loss."""
        if predicts != "logits" and any(term.logits for term in self.terms.values()):
            raise InputError(NO_LOGITS)

    def learning(self, cond: Cond, ex: Noised) -> Noised:
        """The example with what terms alone look at."""
        ex.body = cond.get("body")
        if "soft" in cond:
            ex.soft = alike(cond["soft"], self.codec.maps)
            ex.soft_x0, ex.known = self.codec.place(ex.soft), cond["known"][:, 0]
        return ex

    def total(self, pred: Prediction, ex: Noised) -> dict[str, Tensor]:
        ex = ex.seen(pred.output)  # all of it, but for a network that trains on patches
        values = {name: told(term, term(pred, ex), ex.known).mean() for name, term in self.terms.items()}
        loss = torch.stack([self.terms[name].weight * value for name, value in values.items()]).sum()
        return {"loss": loss, **values}


class Diffusion(Method):
    """A denoising diffusion model of the encoded target.

    `predicts` says how the network's value is read: the noise, the clean target, v = alpha eps - sigma x0
    (Salimans & Ho 2022), or logits of the mask, which the codec maps to x0. `heredity`: what becomes of a network's state, in
    training and in sampling; None: it is begun anew at every step. (sampler.inherit_state False hands on none whatever it says.)
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        terms: dict[str, Term],
        sampler: Sampler,
        codec: Codec | None = None,
        predicts: Literal["eps", "x0", "v", "logits"] = "eps",
        timesteps: TimestepDistribution | None = None,
        readout: Readout | None = None,
        heredity: Heredity | None = None,
    ) -> None:
        super().__init__()
        if predicts == "eps" and schedule.at(len(schedule) - 1)[0] == 0:
            raise InputError(
                "noise prediction cannot recover x0 where the schedule ends without signal (zero_snr); set --method.predicts v, x0 or logits"
            )
        counted(sampler.steps, len(schedule))
        self.network, self.schedule, self.codec = network, schedule, codec or Signed()
        self.terms, self.sampler, self.predicts = terms, sampler, predicts
        self.timesteps, self.readout, self.heredity = timesteps or Uniform(), readout or Sampled(), heredity or Never()
        self.check(predicts)

    def corrupt(self, target: Target, t: Timesteps, eps: Tensor) -> Noised:
        x0 = self.codec.encode(target)
        if x0.shape != eps.shape:
            raise ValueError(f"the codec encodes {tuple(target.shape)} to {tuple(x0.shape)} but the noise has {tuple(eps.shape)}")
        alpha, sigma = (right(c, x0) for c in self.schedule(t))
        x_t = alpha * x0 + sigma * eps
        snr = ((alpha / sigma) ** 2).flatten()
        return Noised(self.codec.probabilities(target), x0, eps, x_t, t, self.schedule.posterior(t), snr=snr)

    def denoise(self, x_t: Tensor, t: Tensor, cond: Cond, state: State = None) -> Prediction:
        """`cond` as the network's `encode` returned it."""
        return self.read(self.network(x_t, t, cond, state), x_t, t)

    def read(self, out: Output, x_t: Tensor, t: Tensor) -> Prediction:
        alpha, sigma = (right(c, x_t) for c in self.schedule(t))
        value, x_t = out.value.float(), out.part(x_t)
        fitting(value, x_t)
        match self.predicts:
            case "eps":
                return Prediction((x_t - sigma * value) / alpha, value, out)
            case "v":
                return Prediction(alpha * x_t - sigma * value, sigma * x_t + alpha * value, out)
            case "x0":
                return Prediction(value, (x_t - alpha * value) / sigma, out)
            case _:  # logits
                x0 = self.codec.from_logits(value)
                return Prediction(x0, (x_t - alpha * x0) / sigma, out, logits=value)

    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        t = self.timesteps.draw(len(target), len(self.schedule), target.device)
        eps = rng.normal(self.codec.shape(tuple(target.shape)), target.device)
        ex = self.learning(cond, self.corrupt(target, t, eps))
        known = self.network.encode(seen(cond))
        state = self.heredity.trained(ex, self.schedule, lambda x, t, state: self.denoise(x, t, known, state))
        return self.total(self.denoise(ex.x_t, t, known, state), ex)

    def trajectory(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Iterator[Step]:
        """Every step of one sampling; `shape` is the targets' in data space."""
        x = rng.normal(self.codec.shape(shape), self.schedule.table.device)
        yield from self.walk(x, self.encode(cond, of))

    def walk(self, x: Tensor, known: Cond) -> Iterator[Step]:
        """Every step from this noise, (b, k, *s) in model space; `known` as the network's `encode` returned it, a row a sample."""

        def denoise(x: Tensor, t: Tensor, state: State) -> Prediction:
            return self.denoise(x, t, known, self.heredity.sampled(state))

        yield from self.sampler.trajectory(denoise, self.schedule, x, self.codec.bound)

    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        last = deque(self.trajectory(cond, shape, of), maxlen=1).pop()  # the steps before it are let go as they pass
        return self.readout(last, self.codec, shape)

    @property
    def steps(self) -> int:
        return self.sampler.steps

    @property
    def placed(self) -> list[int] | None:
        return self.sampler.placed


class FeedForward(Method):
    """The same networks with nothing to denoise: x is zero, t is 0, one evaluation, read as logits of a mask or as the target.

    predicts: "logits", or "x0" for targets that are no masks.
    """

    def __init__(
        self,
        network: Network,
        terms: dict[str, Term],
        codec: Codec | None = None,
        readout: Readout | None = None,
        predicts: Literal["logits", "x0"] = "logits",
    ) -> None:
        super().__init__()
        self.network, self.terms, self.codec, self.readout = network, terms, codec or Signed(), readout or Sampled()
        self.predicts = predicts
        self.check(predicts)

    def predict(self, known: Cond, shape: Shape, device: torch.device) -> tuple[Prediction, Tensor, Tensor]:
        """The prediction with the x and t that stood for "nothing"; `known` as the network's `encode` returned it."""
        x = torch.zeros(self.codec.shape(shape), device=device)
        t = torch.zeros(shape[0], dtype=torch.long, device=device)
        out = self.network(x, t, known)
        value = out.value.float()
        fitting(value, out.part(x))
        logits = value if self.predicts == "logits" else None
        return Prediction(value if logits is None else self.codec.from_logits(value), x, out, logits), x, t

    def loss(self, target: Target, cond: Cond) -> dict[str, Tensor]:
        pred, x, t = self.predict(self.network.encode(seen(cond)), tuple(target.shape), target.device)
        ex = Noised(self.codec.probabilities(target), self.codec.encode(target), x, x, t)
        return self.total(pred, self.learning(cond, ex))

    @torch.no_grad()
    def sample(self, cond: Cond, shape: Shape, of: Sequence[int] | None = None) -> Tensor:
        pred, _, _ = self.predict(self.encode(cond, of), shape, next(self.parameters()).device)
        return self.readout(Step(-1, pred.x0, pred), self.codec, shape)

    @property
    def steps(self) -> int:
        return 1


def seen(cond: Cond) -> Cond:
    """What a network is given of a condition in training: nothing that a teacher said."""
    return {name: part for name, part in cond.items() if name not in LESSON}


def told(term: Term, values: Tensor, known: Tensor | None) -> Tensor:
    """(b,): nothing of an example without a mask, unless the term is a teacher's. Each example counts as it would beside others."""
    return values if known is None or term.taught else torch.where(known > 0, values, torch.zeros_like(values))


def fitting(value: Tensor, x: Tensor) -> None:
    """A network's value has the shape of what it was given: another one would broadcast without a word."""
    if value.shape != x.shape:
        raise InputError(
            f"the network returns {tuple(value.shape)} for a target of {tuple(x.shape)} in model space; "
            f"give it {x.shape[1]} mask channels (--method.network.mask_channels {x.shape[1]})"
        )
