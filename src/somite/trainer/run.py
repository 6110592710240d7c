"""One training run: a folder that explains itself, and that the same command goes on with."""

import logging
import re
import warnings
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from ..data.dataset import Data
from ..data.digest import digest, summary
from ..data.stream import Stream
from ..diffusion.methods import Diffusion, Method
from ..environment import bfloat16_gradients_in_3d, environment, has_bfloat16
from ..errors import InputError
from ..files import read_json, write_json, write_text
from ..progress import tracked
from ..recipe import Recipe, build, dump, parse, settled
from ..rng import derive
from ..store import begun, kept
from ..training import Training
from ..types import Sample
from ..wording import count
from .callbacks import AtomicCheckpoints, Averaged, Best, Look, Resumable
from .lock import alone
from .metrics_csv import MetricsCSV, rewind
from .module import Module
from .progress import Line

LAST = "checkpoints/last.ckpt"
FEW = 50  # cases that are read without a bar
# What may differ when a run is resumed: none of it changes the weights.
FREE = ("training.workers", "training.checkpoint", "data.cache_gb", "data.cache_disk_gb", "data.cache_folder")


def train(config: Namespace, out: Path, name: str = "") -> None:
    """Train into the folder `out`, or go on with the run that is there. A finished run is left as it is.

    `name` is the recipe's, for reports.
    """
    config = kept(settled(config, out), out)
    refuse_another(config, out)
    if finished(out):
        say(f"{out} is trained already ({read_json(out / 'training.json')['steps']} steps); nothing to do")
        return
    with alone(out, say) if rank_zero_only.rank == 0 else nullcontext():  # of several processes that train together the first holds it
        train_alone(config, out, name)


def train_alone(config: Namespace, out: Path, name: str) -> None:
    torch.manual_seed(derive("weights", config.training.seed))
    recipe = build(begun(config, out))
    check(recipe)
    precision = usable_precision(recipe.training, recipe.method)
    warn_of_gain(recipe.method, precision)
    trainer = make_trainer(recipe, out, precision)
    last = out / LAST
    sweep(out)
    step = resumed_step(last)
    if step:
        say(f"{out}: going on from step {step} of {recipe.training.steps}")
    else:
        describe(config, recipe, out, name, precision)
    say(in_short(recipe))
    rewind(out / "metrics.csv", step)
    start = step * recipe.training.accumulate
    world, rank = trainer.world_size, trainer.global_rank
    options = recipe.training
    loader = recipe.data.stream(options.batch, options.steps * options.accumulate, options.seed, start, rank, world, options.workers)
    module = Module(recipe.method, recipe.task, recipe.training, partial(files_of, recipe.data, loader))
    try:
        trainer.fit(module, loader, validation(recipe.data, rank, world), ckpt_path=last if step else None, weights_only=True)
    except SystemExit:  # how Lightning ends on Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except Exception as error:  # a signal's handler says it, wherever training is at that moment
        lost = lost_worker(error)
        if lost is None:
            raise
        raise InputError(lost) from error
    if trainer.is_global_zero:
        write_json(out / "training.json", {"steps": trainer.global_step, "best": best(trainer)})


def refuse_another(config: Namespace, out: Path) -> None:
    """A folder that holds weights is gone on with by the recipe that made them, and by no other."""
    path = out / "recipe.yaml"
    if not any((out / name).exists() for name in (LAST, "weights.safetensors")):
        return
    if not path.exists():
        raise InputError(f"{out} holds weights but no recipe.yaml, so it cannot be resumed; choose another --out")
    changed = differences(yaml.safe_load(dump(parse(path))), yaml.safe_load(dump(config)))
    if changed:
        raise InputError(
            f"{out} was begun with another recipe ({'; '.join(changed[:3])}); choose another --out, or delete the folder to start afresh"
        )


def differences(old: Any, new: Any, at: str = "") -> list[str]:  # noqa: ANN401 - YAML trees
    if at and any(at == free or at.startswith(free + ".") for free in FREE):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [text for key in keys for text in differences(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))]
    if at.endswith(".clip") and old == 1.0 and new == "codec":
        return []  # version 0.1.0 wrote the codecs' common bound as a number
    return [] if old == new else [f"{at.replace('.init_args', '')} is {old} there and {new} here"]


def finished(out: Path) -> bool:
    return (out / "training.json").exists() and (out / "weights.safetensors").exists()


def check(recipe: Recipe) -> None:
    """What would otherwise fail hours later. Every file is read once, before anything is written."""
    recipe.method.begin()
    train, val = recipe.data.cases("train"), recipe.data.cases("val")
    many = rank_zero_only.rank == 0 and len(train) + len(val) > FEW
    read = partial(tracked, what="reading") if many else iter
    recipe.task.check(recipe.data, recipe.method.codec, (recipe.data.loaded(case) for case in read([*train, *val])))


def in_short(recipe: Recipe) -> str:
    """What is about to be trained, in a line."""
    train, val = (len(recipe.data.cases(split)) for split in ("train", "val"))
    options = recipe.training
    each = f"{count(options.steps, 'step')} of {options.batch * options.accumulate}"
    return f"{count(trained_weights(recipe), 'weight')}, {count(train, 'training case')}, {val} for validation, {each}"


def trained_weights(recipe: Recipe) -> int:
    return sum(p.numel() for p in recipe.method.parameters() if p.requires_grad)


def usable_precision(options: Training, method: Method) -> str:
    """The precision asked for, or float32 where this machine only imitates bfloat16, which is many times slower, or computes it wrongly."""
    on_gpu = torch.cuda.is_available() and options.lightning.get("accelerator") != "cpu"
    if options.precision != "bf16-mixed":
        return options.precision
    if not has_bfloat16("cuda" if on_gpu else "cpu"):
        say("this processor has no bfloat16 arithmetic, and imitating it is many times slower: training in float32 instead of bf16-mixed")
        return "32-true"
    deep = any(isinstance(module, torch.nn.Conv3d) for module in method.modules())
    if deep and not on_gpu and not bfloat16_gradients_in_3d():
        say("on this processor torch computes wrong bfloat16 gradients of small 3D convolutions: training in float32 instead of bf16-mixed")
        return "32-true"
    return options.precision


def warn_of_gain(method: Method, precision: str) -> None:
    """One step from noise prediction divides the rounding of half precision by alpha at T-1."""
    if precision == "32-true" or not isinstance(method, Diffusion) or method.predicts != "eps" or method.steps > 1:
        return
    alpha, sigma = method.schedule.at(len(method.schedule) - 1)
    say(
        f"warning: {precision} with noise prediction and one reverse step: errors of rounding in the predicted noise reach the answer {sigma / alpha:.1f}-fold. "
        "Train with --training.precision 32-true, or predict the target (--method.predicts x0)"
    )


@rank_zero_only
def describe(config: Namespace, recipe: Recipe, out: Path, name: str, precision: str) -> None:
    """The first files of a run: what it is made of. Not before all of it is known to fit together."""
    write_text(out / "recipe.yaml", dump(config))
    cases = [case for split in ("train", "val") for case in recipe.data.cases(split)]
    told = {"recipe": name, **environment(), "precision": precision, "weights": trained_weights(recipe)}
    write_json(out / "environment.json", {**told, "data": {"digest": digest(cases), **summary(cases)}})


def make_trainer(recipe: Recipe, out: Path, precision: str) -> Trainer:
    quiet()
    options = recipe.training
    callbacks: list[Callback] = [Best(out / "weights.safetensors"), Look(out / "glimpses")]
    if options.ema:
        callbacks.insert(0, Averaged(options.ema))
    if options.patience is not None:
        callbacks.append(EarlyStopping("val/score", mode="max", patience=options.patience))
    callbacks.append(Resumable(out / LAST, options.checkpoint, options.validate))
    callbacks.append(Line(recipe.task.score_name))
    defaults: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "max_epochs": 1,  # one pass over a stream of options.steps batches
        "accumulate_grad_batches": options.accumulate,
        "val_check_interval": options.validate * options.accumulate,
        "gradient_clip_val": options.clip,
        "precision": precision,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "use_distributed_sampler": False,  # the stream shares itself out
        "enable_checkpointing": False,  # ours are exact and atomic
        "enable_model_summary": False,
    }
    logger: list[Logger] = [MetricsCSV(out / "metrics.csv")]
    if find_spec("tensorboard"):
        logger.append(TensorBoardLogger(out, name="tensorboard", version=""))
    try:
        return Trainer(**{**defaults, **options.lightning}, logger=logger, callbacks=callbacks, plugins=[AtomicCheckpoints()])
    except (
        TypeError,
        ValueError,
        RuntimeError,
        MisconfigurationException,
    ) as error:  # Lightning's own words say which device or flag is not to be had
        raise InputError(f"--training.lightning {options.lightning}: {error}") from error


def validation(data: Data, rank: int, world: int) -> DataLoader:
    """Each process samples its share of the validation cases, one case a batch."""
    cases = data.cases("val")[rank::world]
    items = [(index, case.id) for index, case in enumerate(cases)]

    def load(batch: list[tuple[int, str]]) -> tuple[Sample, str]:
        ((index, name),) = batch
        return data.watched(cases[index]), name

    return DataLoader(items, batch_size=1, collate_fn=load)  # type: ignore[arg-type]


def sweep(out: Path) -> None:
    """What a process that was killed was writing: under a name of its own, and as large as a checkpoint. Nobody else writes here now."""
    for folder in (out, (out / LAST).parent, out / "glimpses"):
        for left in folder.glob(".????????-*"):
            if left.is_file():
                left.unlink(missing_ok=True)


def resumed_step(last: Path) -> int:
    if not last.exists():
        return 0
    try:
        return int(torch.load(last, map_location="cpu", weights_only=True)["global_step"])
    except Exception as error:
        raise InputError(
            f"{last} cannot be read ({type(error).__name__}); delete it to train from the start, or restore it from a copy"
        ) from error


def files_of(data: Data, loader: DataLoader, step: int) -> list[str]:
    """What a batch of this process was made of: the files of its cases, or their ids where many lie in a file."""
    assert isinstance(loader.batch_sampler, Stream)
    cases = [data.cases("train")[index] for index in loader.batch_sampler.cases_of(step)]
    return list(dict.fromkeys(str(case.images[0]) if case.images else case.id for case in cases))


def lost_worker(error: BaseException | None) -> str | None:
    """One sentence, if an error means that a process which prepares data was ended from outside; None for others."""
    told = []
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    if not any("DataLoader worker (pid" in text for text in told):  # "Caught ... in DataLoader worker process" says why itself
        return None
    signal = next((found[1].strip(" .") for text in told if (found := re.search(r"killed by signal: ([^.]+)", text))), None)
    how = f" by the signal {signal!r}" if signal else ""
    return (
        f"a process that prepares data was ended from outside{how}, mostly for lack of memory (main or shared, /dev/shm): lower "
        "--training.workers or --data.cache_gb; the same command goes on from the last checkpoint"
    )


def best(trainer: Trainer) -> dict[str, float]:
    (kept,) = [callback for callback in trainer.callbacks if isinstance(callback, Best)]  # type: ignore[attr-defined]
    return kept.state_dict()


def quiet() -> None:
    """Lightning's tips and deprecation notes are not for our users."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*(num_workers|does not have many workers|logging interval|pin_memory).*")


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)
