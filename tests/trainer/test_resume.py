"""A run that is killed and started again ends in the same weights, bit for bit, as one that was not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from runs import TINY
from somite.cli import main
from somite.data.phantoms import write_phantoms

# Everything random is on: dropout, firing, noise, timesteps, crops, augmentation; gradients are accumulated.
SETTINGS = [
    *TINY,
    "--method.network.dropout=0.2",
    "--training.steps=18",
    "--training.validate=6",
    "--training.checkpoint=4",
    "--training.accumulate=2",
    "--training.lightning={log_every_n_steps: 1}",
]


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return ["train", "medsegdiffnca/demo", f"--data.root={root}", "--out", str(out), *SETTINGS, *more]


def command(root: Path, out: Path, *more: str) -> list[str]:
    """In a process of its own, which takes seconds to begin: for what is killed, and for several processes."""
    return [sys.executable, "-m", "somite.cli", *arguments(root, out, *more)]


def killed_after(step: int, line: list[str], out: Path) -> None:
    """Start, wait until that step is logged, and kill without warning."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log, end = out / "metrics.csv", time.time() + 120
    while time.time() < end:
        if log.exists() and f"\n{step}," in log.read_text():
            break
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), 10, (40, 40))


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    assert main(arguments(root, out)) == 0
    return out


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 9, pytest.param(13, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_bit_identical_weights(root, straight, tmp_path, step, capsys):
    out = tmp_path / "run"
    killed_after(step, command(root, out), out)
    assert not (out / "training.json").exists()
    capsys.readouterr()
    assert main(arguments(root, out)) == 0
    if step > 4:
        assert "going on from step" in capsys.readouterr().out
    ours, theirs = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (out, straight))
    assert ours["global_step"] == theirs["global_step"] == 18
    for kind in ("state_dict", "current_model_state"):  # averaged and raw
        assert all(torch.equal(ours[kind][name], theirs[kind][name]) for name in theirs[kind])
    assert (out / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()
    assert (out / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()


def test_another_seed_gives_other_weights(root, straight, tmp_path):
    out = tmp_path / "run"
    assert main(arguments(root, out, "--training.seed=1")) == 0
    ours, theirs = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for path in (out, straight))
    assert not all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_run_is_left_as_it_is(root, straight, capsys):
    before = (straight / "weights.safetensors").stat().st_mtime_ns
    assert main(arguments(root, straight)) == 0
    assert "trained already" in capsys.readouterr().out
    assert (straight / "weights.safetensors").stat().st_mtime_ns == before


def test_a_run_is_not_resumed_with_another_recipe(root, straight, refused):
    refused(arguments(root, straight, "--training.rate=0.5"), "training.rate is 0.002 there and 0.5 here")


def test_two_processes_train_together_and_agree(root, tmp_path):
    """DDP on gloo: the same weights on both ranks, the same stream of samples shared out, all validation cases scored once."""
    out = tmp_path / "run"
    flags = "{devices: 2, accelerator: cpu, strategy: ddp, log_every_n_steps: 1}"
    done = subprocess.run(command(root, out, f"--training.lightning={flags}"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "training.json").exists()
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 18
