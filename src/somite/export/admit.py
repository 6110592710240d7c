"""Which runs can be one program from image to mask, and what to say of the others."""

from typing import NoReturn

from ..diffusion.codec import OneHot, Pixelwise
from ..diffusion.methods import Diffusion, FeedForward
from ..diffusion.samplers import Stepwise
from ..errors import InputError
from ..nn.automaton import Automaton, Cellular
from ..pipeline import Run
from ..predict.tiling import Windows
from ..tasks.segmentation import Segmentation
from . import brightness, fusing


def deterministic(run: Run) -> Run:
    """The run whose cells, if it has any, act by their expected share, in 32 bits and without windows."""
    cells = [module for module in run.method.modules() if isinstance(module, Cellular)]
    if not cells:
        return run
    windows = {"tile": None} if getattr(run.method.network, "tile", None) else {}
    return run.at(firing="expected", arithmetic="float32", **windows)


def admit(run: Run) -> None:
    """Raises InputError for a run that no single program says."""
    of_task(run)
    of_method(run)
    of_images(run)


def of_task(run: Run) -> None:
    task = run.recipe.task
    if type(task) is not Segmentation:
        refuse(run, f"its task is {type(task).__name__}, and only masks of images can be exported; use it by `somite`")
    if not fusing.known(task.fusion):
        refuse(
            run,
            f"its fusion is {type(task.fusion).__name__}, which is no formula; write somite.predict.fusion.Mean as task.fusion of its recipe.yaml",
        )


def of_method(run: Run) -> None:
    method = run.method
    if type(method) not in (Diffusion, FeedForward):
        refuse(run, f"its method is {type(method).__name__}; only Diffusion in one step and FeedForward become one program")
    assert isinstance(method, Diffusion | FeedForward)
    if not isinstance(method.codec, Pixelwise | OneHot):
        refuse(
            run,
            f"it answers in the latents of {type(method.codec).__name__}; export it with --format diffusers, or teach a small network of pixels "
            "(`somite distil`)",
        )
    if method.steps > 1:
        refuse(
            run,
            f"it takes {method.steps} reverse steps; add --steps 1, or teach a run of one step by it (`somite distil`)",
        )
    if isinstance(method, Diffusion) and not isinstance(method.sampler, Stepwise):
        refuse(run, f"its sampler is {type(method.sampler).__name__} of another library; add --sampler ddim")
    if any(isinstance(part, Cellular) and not isinstance(part, Automaton) for part in method.modules()):
        refuse(run, f"{type(method.network).__name__} looks only at cells that act, which are known when it runs; use `somite predict`")
    if isinstance(method.network, Windows):
        refuse(run, "it answers in windows, which are a loop around the network; use `somite predict`, or train a run without windows")


def of_images(run: Run) -> None:
    data, seen = run.data, run.data.preprocess
    if seen.dims == 3:
        refuse(run, "it works on volumes, and only 2D runs become one program; use `somite predict`")
    if seen.spacing_mm is not None or not seen.whole:
        what = "spacing_mm" if seen.spacing_mm is not None else "orientation or above"
        refuse(run, f"it prepares images by --data.preprocess.{what}, which a file's header decides; use `somite predict`")
    if seen.cubic:
        refuse(run, "it resizes by --data.preprocess.cubic; train with false, or use `somite predict`")
    if data.coordinates is not None or data.body is not None:
        refuse(run, "its network is told where in the body it looks; use `somite predict`")
    if not brightness.known(seen.normalise):
        refuse(run, f"its brightness is {type(seen.normalise).__name__}'s, which has no form in a program; train with Percentile or Unit")


def refuse(run: Run, why: str) -> NoReturn:
    raise InputError(f"{run.path} cannot be exported as one program: {why}")
