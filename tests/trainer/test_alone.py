"""A run folder has one process that trains into it, and what ends a training says why."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runs import TINY, somite
from somite.cli import main
from somite.data.images import read_image
from somite.data.phantoms import write_phantoms
from somite.diffusion.methods import Diffusion
from somite.errors import InputError
from somite.trainer import lock
from somite.trainer.lock import NAME, alone
from victims import hold


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data"), 6, (32, 32))


def training(root, out, *more):
    return ["train", "medsegdiffnca/demo", f"--data.root={root}", "--out", str(out), *TINY, "--training.steps=8", *more]


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder, and does not end."""
    out, ready = tmp_path / "run", tmp_path / "ready"
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(out, ready))
    process.start()
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.02)
    yield out, process
    process.kill()
    process.join()


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_ends(root, holder, refused):
    out, process = holder
    before = sorted(path.name for path in out.iterdir())
    refused(training(root, out), out, f"trained by process {process.pid} on ", "wait for its end", "another --out")
    assert sorted(path.name for path in out.iterdir()) == before == [NAME]
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (out / NAME).exists()  # what it left has no meaning
    assert main(training(root, out, "--training.steps=2")) == 0
    assert not (out / NAME).exists()


def test_what_was_made_for_nothing_is_taken_away_and_what_was_there_stays(tmp_path):
    for made in (tmp_path / "new", tmp_path):
        with alone(made):
            assert (made / NAME).read_text().startswith(f"process {os.getpid()} on ")
    assert tmp_path.exists() and not list(tmp_path.iterdir())


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="cannot be written"), alone(tmp_path / "run"):
        pass  # it is not entered
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", unknown)
    told = []
    with alone(tmp_path, told.append):
        pass
    assert "knows no locks" in told[0]


# ---- what ends a training


def test_nan_in_the_loss_names_the_files_and_keeps_what_was_good(root, tmp_path, monkeypatch, capsys):
    """The batch's files are told by the images that the step saw, not by the stream that chose them."""
    seen = []

    def loss(self, target, cond, loss=Diffusion.loss, **more):
        found = loss(self, target, cond, **more)
        seen.append(cond["image"])
        return {**found, "loss": found["loss"] * float("nan")} if len(seen) == 6 else found

    out, plain = tmp_path / "run", ("--data.crop=null", "--data.augment=null", "--training.checkpoint=1", "--training.validate=2")
    monkeypatch.setattr(Diffusion, "loss", loss)
    assert main(training(root, out, *plain)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the loss of step 5 is nan") and len(told.splitlines()) == 1
    named = {path for path in (root / "images").iterdir() if str(path) in told}
    images = {path: torch.from_numpy(read_image(path)) for path in (root / "images").iterdir()}
    shown = {min(images, key=lambda path: float((shapely(images[path]) - shapely(image)).abs().max())) for image in seen[-1]}
    assert named == shown
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    kept = (out / "weights.safetensors").read_bytes()
    monkeypatch.undo()
    assert main(training(root, out, *plain)) == 0  # the same line goes on
    assert len(kept) == len((out / "weights.safetensors").read_bytes())


def shapely(image):
    """Standardised, so that images are known again whatever the recipe's normalisation."""
    return (image - image.mean()) / image.std()


def test_an_infinite_gradient_reaches_no_checkpoint(root, tmp_path, monkeypatch, capsys):
    count = []

    def loss(self, target, cond, loss=Diffusion.loss, **more):
        found = loss(self, target, cond, **more)
        count.append(0)
        if len(count) == 4:  # finite, with a gradient that is not: sqrt at 0
            found["loss"] = found["loss"] + (next(self.parameters()) * 0).sum().sqrt()
        return found

    monkeypatch.setattr(Diffusion, "loss", loss)
    assert main(training(root, tmp_path / "run", "--training.checkpoint=1", "--training.clip=null")) == 2
    told = capsys.readouterr().err
    assert "weights are NaN or infinite after step 3" in told and str(root / "images") in told
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3 and all(bool(value.isfinite().all()) for value in checkpoint["state_dict"].values())


@pytest.mark.slow
@pytest.mark.fault
def test_a_loader_process_that_is_killed_is_told_as_such(root, tmp_path):
    out = tmp_path / "run"
    line = training(root, out, "--training.workers=1", "--training.steps=100000", "--training.checkpoint=5", "--training.validate=100000")
    process = subprocess.Popen([sys.executable, "-m", "somite.cli", *line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.time() + 200
    while not (out / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None and time.time() < end
        time.sleep(0.05)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(children[-1], signal.SIGKILL)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 2, told
    assert "ended from outside by the signal 'Killed'" in told and "--training.workers" in told and len(told.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.fault
def test_what_a_loader_process_finds_wrong_is_told_as_if_it_were_this_one(root, tmp_path):
    """The file is spoilt after the check before training."""
    data = tmp_path / "data"
    shutil.copytree(root, data)
    out = tmp_path / "run"
    line = ["--training.workers=1", "--training.steps=100000", "--training.checkpoint=5", "--training.validate=100000", "--data.cache_gb=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "somite.cli", *training(data, out, *line)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (out / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    for path in (data / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    _, told = process.communicate(timeout=100)
    assert process.returncode == 2 and len(told.strip().splitlines()) == 1
    assert told.startswith(f"error: {data / 'images'}") and "truncated or damaged" in told
    assert somite("--version").returncode == 0
