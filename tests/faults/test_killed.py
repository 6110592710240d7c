"""Training that is killed at random moments, also while it writes, loses nothing: after each kill the run folder is whole, and in the end
weights, training state and log are those of a training that nobody disturbed, to the bit.
"""

import csv
import json
import multiprocessing
import random

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from killing import killed_after, train, used
from runs import TINY
from somite.data.phantoms import write_phantoms
from somite.trainer.run import LAST, resumed_step

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1500)]
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["somite.commands"])
STEPS, TIMED, TORN = 40, 20, 10  # steps, kills at random moments, kills while a file is being written

# Everything random is on: dropout, firing, noise, timesteps, crops, augmentation.
SETTINGS = [
    *TINY,
    "--method.network.dropout=0.2",
    f"--training.steps={STEPS}",
    "--training.validate=10",
    "--training.checkpoint=2",
    "--training.ema=0.9",
    "--training.lightning={log_every_n_steps: 1}",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), 8, (32, 32))


def begun(root, out, die_at=None, seed=0):
    started = out.with_name("started")
    started.unlink(missing_ok=True)
    line = ["train", "medsegdiffnca/demo", f"--data.root={root}", "--out", str(out), *SETTINGS]
    process = SPAWN.Process(target=train, args=(line, die_at, started, seed))
    process.start()
    while process.is_alive() and not started.exists():
        pass
    return process


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory):
    """The undisturbed run, and the seconds of processor time that it took."""
    out = tmp_path_factory.mktemp("straight") / "run"
    process, seconds = begun(root, out), 0.0
    while process.is_alive():
        seconds = max(seconds, used(process.pid))
        process.join(0.02)
    assert process.exitcode == 0
    return out, seconds


def whole(out):
    """Every file of a run folder can be read; nothing but temporary files (.name) is half-written."""
    for path in (path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".") and path.parent.name != "tensorboard"):
        match path.suffix:
            case ".ckpt":
                assert torch.load(path, weights_only=True)["global_step"] <= STEPS
            case ".safetensors":
                assert load_file(path)
            case ".json":
                json.loads(path.read_text())
            case ".yaml":
                assert yaml.safe_load(path.read_text())["training"]["steps"] == STEPS
            case ".png":
                with Image.open(path) as image:
                    image.load()
            case ".csv":  # appended to: its last line may be cut, and is forgotten when training goes on
                with path.open(newline="") as file:
                    assert all(len(row) == 3 for row in list(csv.reader(file))[:-1])


def same(out, straight, gone_on_from=()):
    """The log may lack the row of the step before a checkpoint: it is written after that, and a kill may come between."""
    assert (out / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()
    ours, theirs = ((folder / "metrics.csv").read_text().splitlines() for folder in (out, straight))
    left_out = {step - 1 for step in gone_on_from}
    assert ours == [row for row in theirs if row in ours or int(row.partition(",")[0]) not in left_out]
    ours, theirs = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (out, straight))
    assert ours["global_step"] == theirs["global_step"] == STEPS
    for kind in ("state_dict", "current_model_state"):  # averaged and raw
        assert {*ours[kind]} == {*theirs[kind]} and all(torch.equal(ours[kind][name], theirs[kind][name]) for name in theirs[kind])
    sheets = [sorted(path.name for path in (folder / "glimpses").iterdir()) for folder in (out, straight)]
    assert sheets[0] == sheets[1]
    assert not [path for path in out.rglob(".*") if path.is_file()]  # what a killed process was writing is gone


def ended(root, out):
    process = begun(root, out)
    process.join()
    assert process.exitcode == 0


def test_killed_at_random_moments(root, straight, tmp_path):
    expected, seconds = straight
    draw, steps, run = random.Random(12), [], 0
    while len(steps) < TIMED:
        out = tmp_path / f"run{run}"
        while len(steps) < TIMED and killed_after(begun(root, out), draw.uniform(0.2, 1) * seconds):
            whole(out)
            steps.append(resumed_step(out / LAST))
        ended(root, out)
        same(out, expected, steps)
        run += 1
    print(f"killed with checkpoints of the steps {steps}, in {run} trainings")
    assert len({*steps}) > 5


@pytest.mark.parametrize("name", ["last.ckpt", "weights.safetensors"])
def test_killed_while_writing(root, straight, tmp_path, name):
    draw, out = random.Random(name), tmp_path / "run"
    for kill in range(TORN // 2):
        process = begun(root, out, (name, draw.randrange(1, 4) if name == "last.ckpt" else 1), kill)
        process.join()
        assert process.exitcode == -9
        assert [path for path in out.rglob(f".*{name}")]  # it was really writing
        whole(out)
    ended(root, out)
    same(out, straight[0])
