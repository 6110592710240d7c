"""What a GPU computes is what the CPU computes; run by `pytest -m gpu` on a machine that has one."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import somite
from runs import tiny
from somite.contracts import alive
from somite.data.phantoms import write_phantoms
from somite.networks.ensemdiff import EnsemDiff
from somite.networks.medsegdiffnca import MedSegDiffNCA
from somite.nn.automaton import Expected

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
NETWORKS = {
    "MedSegDiffNCA": lambda: MedSegDiffNCA(channels=16, hidden=32, updates=4, firing=Expected()),
    "MedSegDiffNCA, global": lambda: MedSegDiffNCA(channels=16, hidden=32, updates=4, norm="global", firing=Expected()),
    "EnsemDiff": lambda: EnsemDiff(channels=32, mults=(1, 2), res_blocks=1, attention=(2,), image_channels=3),
}


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch):
    """TF32, PyTorch's default for convolutions, has 10 bits of mantissa: no 1e-4."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = write_phantoms(tmp_path_factory.mktemp("data"), 6, (40, 40))
    return tiny(root, tmp_path_factory.mktemp("run") / "run", "--training.steps=2", "--training.precision=bf16-mixed")


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_forward_pass_is_the_cpus(name):
    network = alive(NETWORKS[name]()).eval()
    x, t, cond = torch.randn(2, 1, 32, 32), torch.tensor([3, 700]), {"image": torch.rand(2, 3, 32, 32)}
    cpu = network(x, t, network.encode(cond))
    network.cuda()
    gpu = network(x.cuda(), t.cuda(), network.encode({"image": cond["image"].cuda()}))
    assert gpu.value.is_cuda
    assert float(cpu.value.std()) > 1e-3  # or equality would say nothing
    torch.testing.assert_close(gpu.value.cpu(), cpu.value, rtol=1e-4, atol=1e-4)
    for key, aux in cpu.aux.items():
        torch.testing.assert_close(gpu.aux[key].cpu(), aux, rtol=1e-4, atol=1e-4)


def test_two_steps_in_bfloat16_make_a_run(path):
    weights = load_file(path / "weights.safetensors")
    assert weights
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())
    assert any(value.any() for name, value in weights.items() if name.endswith("act.weight"))  # zeros before the first step
    assert "bf16-mixed" in (path / "recipe.yaml").read_text()


def test_members_do_not_depend_on_how_many_are_asked_for(path):
    run = somite.load(path, device="cuda")
    assert all(p.is_cuda for p in run.method.parameters())
    array = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    three = run.predict(array, members=3).members
    assert three.shape == (3, 1, 40, 48)
    assert np.abs(three[0] - three[1]).max() > 1e-6
    for members in (1, 2, 7):
        found = run.predict(array, members=members).members
        both = min(members, 3)
        np.testing.assert_allclose(found[:both], three[:both], atol=1e-4)
