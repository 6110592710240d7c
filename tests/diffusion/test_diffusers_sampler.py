"""diffusers' schedulers through our door: our own DDIM and a Gaussian in closed form are the truth."""

import pytest
import torch
from test_samplers_shared import MEAN, VARIANCE, end, gaussian, wavy

from somite.diffusion.diffusers_sampler import Diffusers
from somite.diffusion.samplers import DDIM, Ancestral
from somite.diffusion.schedule import cosine, linear, scaled_linear
from somite.errors import InputError
from somite.rng import seeded

DETERMINISTIC = ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"]
ALL = [*DETERMINISTIC, "DDPMScheduler", "LCMScheduler"]
