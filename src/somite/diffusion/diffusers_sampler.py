"""Any scheduler of the diffusers library as a sampler: DPM-Solver++, UniPC, Euler, Heun, LCM and what comes after them."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..types import State
from .samplers import Clip, Denoise, Sampler, Step, checked, clipped, counted
from .schedule import Schedule

# Most schedulers return NaN on beta = 1, the end of a zero_snr schedule, where the log-SNR is -infinity. Nearer to 1 those
# that walk x / alpha lose digits, and 0.9 leaves less signal already than float32 resolves beside the noise.
ALMOST_ONE = 0.9


class Diffusers(Sampler):
    """A diffusers scheduler class by name, on this method's own betas, with trailing timesteps.

    The scheduler is given v = alpha eps - sigma x0 (Salimans & Ho 2022), which is finite at both ends of every schedule,
    whatever the network predicts. `options` go to the scheduler's constructor. A scheduler that does not start at T-1
    is refused.
    """

    def __init__(
        self,
        scheduler: str = "DPMSolverMultistepScheduler",
        steps: int = 20,
        clip: Clip = "codec",
        inherit_state: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.scheduler, self.steps, self.clip, self.inherit_state = scheduler, steps, clip, inherit_state
        self.options = options or {}

    def build(self, schedule: Schedule) -> Any:  # noqa: ANN401 - diffusers' schedulers share no base with `step`
        try:
            import diffusers
        except ImportError as error:
            raise InputError("the sampler Diffusers needs the diffusers library: pip install 'somite[diffusers]'") from error
        kind = getattr(diffusers, self.scheduler, None)
        if kind is None:
            raise InputError(f"diffusers has no scheduler {self.scheduler!r}; one that it has is DPMSolverMultistepScheduler")
        wanted = {
            "num_train_timesteps": len(schedule),
            "trained_betas": [beta if beta < 1 else ALMOST_ONE for beta in schedule.betas],
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "clip_sample": False,
            **self.options,
        }
        known = inspect.signature(kind).parameters  # not from_config: it drops what equals its own defaults
        unknown = sorted({*self.options} - {*known})
        if unknown:
            raise InputError(f"diffusers' {self.scheduler} has no option {unknown[0]!r}; correct --method.sampler.options")
        return kind(**{name: value for name, value in wanted.items() if name in known})

    def trajectory(self, denoise: Denoise, schedule: Schedule, x: Tensor, bound: float | None = None) -> Iterator[Step]:
        counted(self.steps, len(schedule))
        scheduler = self.build(schedule)
        scheduler.set_timesteps(self.steps, device=x.device)
        ts = [round(float(t)) for t in scheduler.timesteps]
        checked(ts, len(schedule))
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        keywords = {"generator": rng.generators(x.device)} if takes_generator else {}
        x = x * float(scheduler.init_noise_sigma)
        state: State = None
        for t, stamp in zip(ts, scheduler.timesteps, strict=True):
            with torch.no_grad():
                x_t = scheduler.scale_model_input(x, stamp)  # some schedulers walk x / alpha
                alpha, sigma = now = schedule.at(t)
                pred = clipped(denoise(x_t, torch.full((len(x),), t, device=x.device), state), x_t, now, self.limit(bound))
                after = scheduler.step(alpha * pred.eps - sigma * pred.x0, stamp, x, **keywords).prev_sample
            yield Step(t, x_t, pred)
            x, state = after, pred.output.state if self.inherit_state else None
        yield Step(-1, x, pred)
